"""Stage 5: a model scores every resized image for relevance, aesthetics and visible artifacts.

Reads   images.csv: path_resized
Writes  images.csv: ae_relevance, ae_aesthetic, ae_artifact, ae_model, score_run_id, score_error

Relevance and aesthetics range from 0 to 100. An image with artifacts gets at most 25 (mild) or 15 (strong) for
aesthetics. This stage only records scores; the filter decides. Every paid answer is stored in metadata/answers.sqlite
before it counts: the same question about the same image is never paid for twice. The key is read from OPENAI_API_KEY.
OPENAI_BASE_URL selects another server with the Responses API (or, with --api chat, Chat Completions). --batch wait and
--flex halve the price; --one-per-group asks about one image per group of near-duplicates.

    python preprocess/score/score.py
    python preprocess/score/score.py --root my-dataset --estimate
    python preprocess/score/score.py --root my-dataset --limit 20 --concurrency 8 --max-cost 0.50
    python preprocess/score/score.py --image picture.png
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from pokefa.errors import EXIT_DONE, ImageError, InputError, PokefaError
from pokefa.ledger.cells import Value
from pokefa.ledger.table import KEY
from pokefa.llm.client import Client
from pokefa.llm.estimate import estimate
from pokefa.llm.images import load_picture
from pokefa.llm.map_rows import ask_rows
from pokefa.llm.options import Settings, add_options, check_server, settings_from
from pokefa.llm.prompt import Question, Request
from pokefa.llm.store import Answers
from pokefa.stage.options import Options, add_data_option, options_from, stage_parser
from pokefa.stage.reader import exit_code_of
from pokefa.stage.runner import Row, StageRun, decode_rows, run_stage, set_up_logging
from preprocess.score.groups import SCORES, find_leaders, has_hashes, shared_cells
from preprocess.score.judges import refuse_another_judge

# Scoring needs less detail than the model could see, and the image is most of a question's cost: at this size it takes
# a third to a half of the tokens.
MAX_SIDE = 768

# Default models: the first that is not shut down. Scoring needs vision rather than knowledge.
MODELS = ("gpt-5-mini", "gpt-6-luna")

# The highest aesthetic score of an image with such artifacts. Code applies it, because the model would weigh a visible
# seam against a pretty subject.
CAPS = {"none": 100, "mild": 25, "strong": 15}

INSTRUCTIONS = """\
You grade one picture for a data set of Pokémon fan art that will be used to train image models. Judge only what the
pixels show. You are not told where the picture comes from, and you do not guess. Where you hesitate between two
bands, take the lower one; where you hesitate inside a band, stay near its lower end. Most pictures are ordinary:
scores over 85 are rare, and a whole collection averages near 50.

RELEVANCE, 0 to 100: is this clearly fan art of Pokémon? Any species, any generation, any style, any medium counts:
painting, line art, pixel art, a 3D render made as a picture, a comic page, a sketch on paper. People belong as long
as a Pokémon, a gijinka (a Pokémon drawn as a person) or a trainer known from the games or the series is the subject.
  0        no fan art of Pokémon. In particular: photographs of people, animals, places or food; trading cards, their
           scans and binders; screenshots of games, apps, videos or web pages; photographs of merchandise, plush toys,
           figures, costumes and shops; logos, text posts, charts, memes made of screenshots; other franchises; blank
           or unreadable pictures; creatures that only resemble Pokémon.
  1-20     hardly anything speaks for it: a shape or a colour scheme that may have been inspired by a Pokémon.
  21-40    doubtful: the creature cannot be named with confidence, or official artwork and stock renders that nobody
           redrew, or a Pokémon so small or so hidden that it is a detail of another picture.
  41-60    probably: a Pokémon that one can name, but drawn off-model, cut off, or one subject among several others.
  61-80    yes: a Pokémon that one can name is the main subject, with some doubt about medium or design.
  81-95    beyond doubt: the named Pokémon is the subject, and the picture was plainly made by an artist.
  96-100   as 81-95, and every feature of the design can be checked against the species and agrees.

AESTHETIC, 0 to 100: about 60 % technique (drawing, anatomy as the style has it, values, colour, light, edges,
rendering, sharpness, finish) and about 40 % appeal (composition, pose, expression, mood, idea). Judge a style by its
own aims: clean pixel art or a confident ink sketch can stand as high as a painting. Do not reward a popular species,
a cute subject, saturated colour or a large picture as such. Judge photographs and other irrelevant pictures by the
same scale.
  0-10     unreadable or broken: noise, a crop without a subject, blur or compression that hides everything.
  11-25    first attempts: unsure lines, wrong proportions without intent, flat fill, careless photograph of paper.
  26-40    weak: the idea can be read, but the drawing is stiff, the colours fight, parts are unfinished or muddy.
  41-55    ordinary: competent in places, plain pose, simple shading, background empty or generic.
  56-70    good: sure drawing, consistent light and colour, a composition that was thought about.
  71-85    very good: strong on nearly every count, at the level of a practised illustrator.
  86-95    outstanding: would stand in a published art book.
  96-100   among the best pictures that exist of its kind. Almost never.
A watermark, a signature or a caption costs at most 5 points, unless it covers the subject. Patches where something
was painted over are artifacts: name them below, and do not take off points for them here.

ARTIFACT, one of none, mild, strong: damage that came from processing and not from the artist, such as visible grids
or blocks, tiling or a repeated patch, seams and smears where text was painted over, a mirrored half, banding.
  none     nothing to be seen at normal size. Halftone dots, canvas grain, pixel art and comic panels are style.
  mild     to be seen on a second look, away from the subject or small: a smear in the background, faint blocks.
  strong   to be seen at first glance, or on the subject: a tiled picture, a face smeared over, a grid over everything.
When unsure between none and mild, answer none; between mild and strong, answer mild.

Answer with the three values and nothing else.
"""


@dataclass(frozen=True)
class Score:
    """The scores of one image: relevance and aesthetics from 0 to 100, artifact `none`, `mild` or `strong`."""

    relevance: int
    aesthetic: int
    artifact: str


def load_form() -> type[Any]:
    from preprocess.score.answer import ScoreAnswer

    return ScoreAnswer


def read_score(answer: Mapping[str, Any]) -> Score:
    """Return the scores of a ScoreAnswer, capped for artifacts."""
    artifact = answer["artifact"]
    return Score(answer["relevance"], min(answer["aesthetic"], CAPS[artifact]), artifact)


QUESTION = Question("pokefa_score", "score-1", INSTRUCTIONS, load_form, read_score, output_tokens=30)


def score_images(run: StageRun, settings: Settings, *, one_per_group: bool = False) -> None:
    """Score every pending image, or with `one_per_group` one image per group of near-duplicates for all of them."""
    rows = run.rows(["path_resized"])
    table = run.table() if rows else None
    grouped = table is not None and (one_per_group or (settings.estimate and has_hashes(table)))
    leaders = find_leaders(table, {str(row[KEY]) for row in rows}) if table is not None and grouped else {}
    led = [row for row in rows if leaders.get(str(row[KEY]), row[KEY]) == row[KEY]]

    def ask_of(row: Row) -> Request:
        return Request(run.data / str(row["path_resized"]))

    if settings.estimate:
        fewer = {str(row[KEY]) for row in led} if grouped else None
        run.extra["estimate"] = estimate(QUESTION, rows, ask_of, settings, fewer)
        return

    def check_model(model: str) -> None:
        if table is not None and not run.options.redo:
            refuse_another_judge(table, model, Answers(run.root).names(QUESTION.version))

    waiting: dict[str, list[str]] = {}
    if one_per_group and table is not None:
        waiting = share_known_scores(run, table, rows, leaders)
    for row, score, answer in ask_rows(run, QUESTION, led if one_per_group else rows, ask_of, settings, check_model):
        image_id = str(row[KEY])
        scores: dict[str, Value] = {
            "ae_relevance": score.relevance,
            "ae_aesthetic": score.aesthetic,
            "ae_artifact": score.artifact,
        }
        judge = f"{answer.model} {QUESTION.version}"
        run.record(image_id, {**scores, "ae_model": judge}, reason="scored", durable=True, usage=answer.usage)
        for member in waiting.pop(image_id, ()):
            run.record(member, shared_cells(image_id, scores), reason="scored_as_group")
    if waiting:
        run.extra["left_with_their_group"] = sum(map(len, waiting.values()))


def share_known_scores(
    run: StageRun, table: pl.DataFrame, rows: Sequence[Row], leaders: Mapping[str, str]
) -> dict[str, list[str]]:
    """Give pending images the scores that the leader of their group already has; return the others by leader."""
    pending = {str(row[KEY]) for row in rows}
    followers = {image_id: leader for image_id, leader in leaders.items() if image_id in pending and image_id != leader}
    known = table.filter(pl.col(KEY).is_in([leader for leader in followers.values() if leader not in pending]))
    scores = {str(row[KEY]): row for row in decode_rows(known, SCORES, run.step)}
    waiting: dict[str, list[str]] = {}
    for image_id, leader in followers.items():
        if leader in scores:
            run.record(image_id, shared_cells(leader, scores[leader]), reason="scored_as_group")
        else:
            waiting.setdefault(leader, []).append(image_id)
    return waiting


def score_file(path: Path, settings: Settings) -> dict[str, object]:
    """Return the scores of one image file outside a dataset.

    Raises:
        InputError: the file cannot be opened as an image.
        PokefaError: there is no usable answer.
    """
    try:
        jpeg, size = load_picture(path, settings.view)
    except ImageError as error:
        raise InputError(f"--image {path} cannot be used: {error}") from None
    answer = Client(settings.form()).ask(QUESTION, jpeg, size=size)
    if answer.value is None:
        raise PokefaError(str(answer.problem))
    return {"image": str(path), **vars(answer.value), "model": f"{answer.model} {QUESTION.version}"}


def print_score(path: Path, settings: Settings) -> int:
    """Print the scores of one file as JSON and return the exit code."""
    set_up_logging(Options())

    def work() -> int:
        print(json.dumps(score_file(path, settings), ensure_ascii=False))
        return EXIT_DONE

    return exit_code_of(work)


def build_parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__)
    add_data_option(parser)
    parser.add_argument(
        "--image", type=Path, metavar="FILE", help="score only this file and print JSON; change no dataset"
    )
    parser.add_argument(
        "--one-per-group",
        action="store_true",
        help="ask only about the largest of several near-duplicates; compute missing hashes first",
    )
    add_options(parser, MODELS, max_side=MAX_SIDE)
    return parser


READY_CHECKS = (check_server,)  # for pokefa.stage.check_step


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    settings = settings_from(args)
    if args.image is not None:
        return print_score(args.image, settings)
    if args.one_per_group and not (settings.estimate or args.dry_run):
        code = make_hashes(args)
        if code:
            return code
    return run_stage(
        "score",
        args,
        lambda run: score_images(run, settings, one_per_group=args.one_per_group),
        reads_only=settings.estimate,
    )


def make_hashes(args: argparse.Namespace) -> int:
    """Compute missing hashes, as phash.py does, and return the exit code."""

    def work() -> int:
        from pokefa.duplicates.hashing import hash_images

        options = replace(options_from(args), ids=None, limit=None, redo=False, retry_errors=False)
        return run_stage("phash", options, partial(hash_images, with_variants=False))

    return exit_code_of(work)


if __name__ == "__main__":
    raise SystemExit(main())
