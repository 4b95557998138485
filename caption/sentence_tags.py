"""Stage 8, first step: a model writes one sentence and a set of tags for every image of the final set.

Reads   base.csv: path; with --species-hint also images.csv: species
Writes  base.csv: caption, tags; images.csv: caption_model, caption_run_id, caption_error
        with --only: metadata/recap_captions.csv instead, for recap_merge.py

Answers are foreign text: caption/tags.py cleans them. Every paid answer is stored on disk before it counts: a run that
was killed never asks again for what it has. The key is read from OPENAI_API_KEY. OPENAI_BASE_URL selects another
server with the Responses API. --only redoes the captions that cap_filter.py listed, and tells the model what was wrong;
with --redo it also asks again about images that were answered for the same reasons.

    python caption/sentence_tags.py
    python caption/sentence_tags.py --root my-dataset --limit 20 --species-hint
    python caption/sentence_tags.py --only metadata/recap.csv
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from caption.tags import Caption, clean_answer, tags_to_cell
from pokefa.ledger.table import KEY
from pokefa.llm.map_rows import ask_rows
from pokefa.llm.options import Settings, add_options, check_server, settings_from
from pokefa.llm.prompt import Question, Request
from pokefa.llm.recaps import Reasons, RecapCaption, all_recap_captions, read_recap, write_recap_captions
from pokefa.stage.options import add_data_option, stage_parser
from pokefa.stage.rows import choose_ids, eligible_rows
from pokefa.stage.runner import Row, StageRun, decode_rows, run_stage

# Default models: the first that is not shut down. A caption needs knowledge of 1,025 species.
MODELS = ("gpt-5-mini", "gpt-6.1-terra")

INSTRUCTIONS = """\
You caption one picture of Pokémon fan art for a data set that will be used to train image models. Describe what the
pixels show and nothing else: no guesses about the artist, the story, the source or the mood of the maker, no praise,
no mention of a caption, an image, an artwork, a watermark or a signature. What you cannot see, leave out.

CAPTION: exactly one sentence of 12 to 25 words in the present tense. First the subject, by the name of its species
with a capital, and with its form or shiny colours where they show; then what it does; then where it is. Name every
species that you list below, up to three; for more, name the two that matter most. Write plain English prose, without
line breaks, lists, quotation marks around the sentence, or words such as "depicts" and "features". If nothing in the
picture is a Pokémon that you can name, describe what is there without inventing a name, and leave `pokemon` empty.
  good: Umbreon curls up asleep on a mossy stone beneath a full moon while fireflies drift through the dark forest.
  good: Shiny Mega Charizard X breathes blue fire across a ruined tower as Pikachu leaps aside in the pouring rain.
  bad:  A beautiful artwork of a cute Pokémon. (no species, no action, no scene, praise)

TAGS: all of them in lower-case English snake_case, singular where possible, each thing once, the most visible first,
at most six to a field, an empty list where the picture shows nothing of the kind.
  pokemon            species names as in the games, without form: mr_mime, ho_oh, farfetchd, nidoran_female, type_null.
                     Only those that you can tell by shape, colours and marks. Also for a gijinka: the species it is.
  form               side by side with pokemon: null, or mega, mega_x, mega_y, gigantamax, primal, alolan, galarian,
                     hisuian, paldean, or the name of another official form, such as wash for rotom. Not shiny.
  shiny_pokemon      those of pokemon in their official shiny colours. An unusual palette alone is not shiny.
  trainer_presence   true if a person, human or human-like, is shown beside or instead of a Pokémon; gijinka are not.
  gijinka            true if a Pokémon is drawn as a person or as a person in its colours and shape.
  subject_count      single if one individual is the subject, else multiple.
  multi_panel        true for comic pages, sheets with several drawings, before-and-after pairs.
  pose               how bodies are held: sitting, lying_down, standing, curled_up, flying, looking_back.
  actions            what is being done: running, eating, sleeping, using_thunderbolt.
  outfit             what is worn: scarf, witch_hat, school_uniform. Nothing that belongs to the species.
  props              things held or near: poke_ball, umbrella, book, berry.
  environment        the kind of place: indoors, cafe, city_street, bedroom, underwater, outer_space.
  biome              the landscape: forest, beach, desert, snowy_mountain, meadow, swamp.
  time_of_day        dawn, morning, day, sunset, dusk, night; null if the picture does not show it.
  weather            clear, cloudy, rain, thunderstorm, snow, fog, wind; null if the picture does not show it.
  background         what fills the space behind: plain_white, gradient, full_moon, starry_sky, cherry_blossoms.
  characteristics    what strikes the eye about subject or light: glowing_eyes, open_mouth, rim_light, pastel_colors.
  composition        one to three terms of the schema's list: how the picture is framed and seen.
  art_style          one to three terms of the schema's list: medium and style as they look.
"""


def load_form() -> type[Any]:
    from caption.answer import CaptionAnswer

    return CaptionAnswer


QUESTION: Question[Caption] = Question(
    "pokefa_caption", "caption-1", INSTRUCTIONS, load_form, clean_answer, output_tokens=250
)

HINT = (
    "A search for {species} found this picture. That may be wrong: use the name only if the picture agrees, and name "
    "what you see where it does not."
)
# What the model is told about its first caption, by the reason slugs of cap_filter.py.
ADVICE = {
    "no_species": "it named no species: look again for one that you can name with confidence",
    "unknown_species": "it named a species that does not exist: use the official English name of the species alone",
    "placeholder": "it used filler words in place of what is to be seen",
    "refusal_language": "it spoke about being able to answer: only describe the drawing",
    "wrong_length": "its sentence was too short or too long: write 12 to 25 words",
    "repeated_text": "it repeated itself",
    "same_sentence": "other pictures got the very same sentence: say what sets this one apart",
    "sentence_tags_disagree": "sentence and tags named different species or forms: name the same ones in both",
}
ANOTHER_TRY = "An earlier caption of this picture was rejected: {reasons}."


def note_of(species: str | None, reasons: Reasons) -> str:
    """Return the note about one image: the species hint, if given, and what was wrong with the first caption."""
    parts = [HINT.format(species=species)] if species else []
    if reasons:
        advice = "; ".join(ADVICE.get(reason, reason.replace("_", " ")) for reason in reasons)
        parts.append(ANOTHER_TRY.format(reasons=advice))
    return " ".join(parts)


def caption_images(run: StageRun, settings: Settings, *, species_hint: bool) -> None:
    """Caption every pending image into base.csv."""
    rows = run.rows(["path"])
    ask_of = asks(run, rows, {}, species_hint=species_hint)
    for row, caption, answer in ask_rows(run, QUESTION, rows, ask_of, settings):
        image_id = str(row[KEY])
        made_by = {
            "caption_model": model_name(answer.model, hinted=species_hint),
            "caption_run_id": run.run_id,
            "caption_error": None,
        }
        run.set_cells("images", image_id, made_by)
        cells = {"caption": caption.sentence, "tags": tags_to_cell(caption.tags)}
        run.record(image_id, cells, reason="captioned", durable=True, usage=answer.usage)


def caption_again(run: StageRun, settings: Settings, listed: Mapping[str, Reasons], *, species_hint: bool) -> None:
    """Write new captions for the listed images to recap_captions.csv; base.csv stays as it is."""
    captions = all_recap_captions(run.root, run.step.owner)
    rows = rows_to_caption_again(run, listed, captions)
    ask_of = asks(run, rows, listed, species_hint=species_hint)
    try:
        for row, caption, answer in ask_rows(run, QUESTION, rows, ask_of, settings):
            image_id = str(row[KEY])
            captions[image_id] = RecapCaption(
                image_id,
                caption.sentence,
                tags_to_cell(caption.tags),
                model_name(answer.model, hinted=species_hint, again=True),
                run.run_id,
                " ".join(listed[image_id]),
                None if row["caption"] is None else str(row["caption"]),
            )
            run.note({KEY: image_id, "recap": asdict(captions[image_id]), "usage": answer.usage}, durable=True)
            if row["caption_error"] is not None:
                run.set_cells("images", image_id, {"caption_error": None})
            run.counts["captioned_again"] += 1
            run.done += 1
    finally:
        if captions and not run.options.dry_run:
            write_recap_captions(run.root, captions.values())


def rows_to_caption_again(
    run: StageRun, listed: Mapping[str, Reasons], captions: Mapping[str, RecapCaption]
) -> list[Row]:
    """Return the listed rows, with caption and caption_error, that no new caption answers yet."""
    whole = run.table()
    frame = choose_ids(eligible_rows(whole, run.step), list(listed), None)
    if len(frame) < len(listed):
        run.counts["not_in_base"] = len(listed) - len(frame)
    frame = choose_ids(frame, run.named_ids(whole), None)
    rows = []
    for row in decode_rows(frame, ["path", "caption", "caption_error"], run.step):
        image_id, caption = str(row[KEY]), row["caption"]
        known = captions.get(image_id)
        answered = known is not None and known.answers(listed[image_id], None if caption is None else str(caption))
        failed = row["caption_error"] is not None and not run.options.retry_errors
        if run.options.redo or not (answered or failed):
            rows.append(row)
    rows = rows[: run.options.limit]
    run.seen = len(rows)
    return [] if run.options.dry_run else rows


def asks(
    run: StageRun, rows: Sequence[Row], reasons: Mapping[str, Reasons], *, species_hint: bool
) -> Callable[[Row], Request]:
    """Return the function that makes a row's request."""
    species: dict[str, str | None] = {}
    if species_hint and rows:
        species = dict(run.ledger.images.read().select(KEY, "species").iter_rows())

    def ask_of(row: Row) -> Request:
        image_id = str(row[KEY])
        return Request(run.data / str(row["path"]), note_of(species.get(image_id), reasons.get(image_id, ())))

    return ask_of


def model_name(model: str, *, hinted: bool, again: bool = False) -> str:
    """Return the text of caption_model: the model, the prompt's version, and what else the model was told."""
    told = (["species_hint"] if hinted else []) + (["recap"] if again else [])
    return " ".join([model, "+".join([QUESTION.version, *told])])


def build_parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__)
    add_data_option(parser)
    parser.add_argument(
        "--species-hint",
        action="store_true",
        help="tell the model which species the scraper searched for; caption_model records this",
    )
    parser.add_argument(
        "--only",
        type=Path,
        metavar="FILE",
        help="redo the captions listed in this CSV (image_id, reasons), into metadata/recap_captions.csv",
    )
    parser.for_one_run("only")
    add_options(parser, MODELS)
    return parser


READY_CHECKS = (check_server,)  # for pokefa.stage.check_step


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    settings, only, species_hint = settings_from(args), args.only, args.species_hint

    def body(run: StageRun) -> None:
        if only is None:
            caption_images(run, settings, species_hint=species_hint)
        else:
            caption_again(run, settings, read_recap(only), species_hint=species_hint)

    return run_stage("sentence_tags", args, body, reads_only=settings.estimate)


if __name__ == "__main__":
    raise SystemExit(main())
