"""Stage 9, last part: pack the shards that trainers load.

Reads   base.csv: path, source_url, ae_relevance, ae_aesthetic, phash, caption, tags, hybrid_caption, species, split;
        images.csv: drop_reason, caption_error; the exported images; webdataset/manifests/{train,val}_ids.txt
Writes  webdataset/data/{train,val}-%05d.tar; webdataset/manifests/split_stats.json; the head of webdataset/README.md,
        by which Hugging Face's datasets loads them; with --urls-only, webdataset/urls.parquet and nothing else

A sample is `<image_id>.jpg`, `.png` or `.webp`, the exported file byte for byte; `.txt`, the hybrid caption; and
`.json`, its facts. --seed determines the order of samples. Every image is decoded when it is packed, and left out if it
is damaged or crashes its process. Each row of base.csv is in one shard, or in split_stats.json with a reason. Dropped
images and those that wait for an earlier stage are counted; all others are errors. New shards replace the old ones
together at the end, and unchanged shards are kept. The same input gives the same bytes with any number of --workers.

    python webdataset/webdataset.py
    python webdataset/webdataset.py --root my-dataset --image-format jpg --max-side 1024 --shard-size 2000
    python webdataset/webdataset.py --root my-dataset --verify
    python webdataset/webdataset.py --root my-dataset --urls-only
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from pokefa.engine.work import Pool
from pokefa.errors import InputError
from pokefa.images.decoding import use_limits
from pokefa.ledger.table import KEY, with_missing
from pokefa.shards.check import check_and_report
from pokefa.shards.images import Encoding
from pokefa.shards.layout import (
    HARMLESS,
    IMAGE_SUFFIXES,
    MANIFESTS,
    SPLITS,
    Sample,
    ShardSize,
    built_shard,
    fill_shards,
    make_sample,
    plan_hash,
    shuffled,
    why_in_no_split,
)
from pokefa.shards.pack import Packed, PackShards, Task, pack_tasks
from pokefa.shards.publish import clear_building, describe, finish, make_stats, place_of, publish, read_ids, read_known
from pokefa.shards.urls import URLS, write_urls
from pokefa.stage.options import (
    add_cluster_options,
    add_data_option,
    add_decoding_options,
    limits_from,
    positive_int,
    stage_parser,
)
from pokefa.stage.rows import not_dropped_before
from pokefa.stage.runner import StageRun, decode_rows, run_stage

CHECKS = {True: "full", False: "header"}

COLUMNS = ("path", "source_url", "ae_relevance", "ae_aesthetic", "phash", "tags", "hybrid_caption", "species", "split")

log = logging.getLogger("pokefa")


@dataclass(frozen=True)
class Settings:
    """How the set is packed."""

    size: ShardSize
    encoding: Encoding
    seed: int

    def as_stats(self) -> dict[str, int | str | None]:
        """Return the settings for the manifest."""
        return {
            "check": CHECKS[self.encoding.decode],
            "image_format": self.encoding.format,
            "max_side": self.encoding.max_side,
            "seed": self.seed,
            "shard_bytes": self.size.bytes,
            "shard_size": self.size.samples,
        }


def read_samples(run: StageRun) -> tuple[dict[str, list[Sample]], dict[str, str]]:
    """Return the samples of each split, and {image_id: reason} of all other rows of base.csv.

    Raises:
        InputError: the id lists differ from the split in base.csv.
    """
    table = run.table()
    in_split = pl.col("split").is_not_null() & not_dropped_before(run.step)
    samples: dict[str, list[Sample]] = {split: [] for split in SPLITS}
    ids: dict[str, list[str]] = {split: [] for split in SPLITS}
    left_out = explain_rest(run, table.filter(~in_split))
    for row in decode_rows(table.filter(in_split), COLUMNS, run.step):
        image_id, split = str(row[KEY]), str(row["split"])
        ids[split].append(image_id)
        try:
            samples[split].append(make_sample(row))
        except ValueError as error:
            left_out[image_id] = str(error)
    for split in SPLITS:
        if read_ids(run.root, split).split() != sorted(ids[split]):
            raise InputError(
                f"{MANIFESTS}/{split}_ids.txt does not match the images in {split} of metadata/base.csv: "
                "run webdataset/split.py again"
            )
    return samples, left_out


def explain_rest(run: StageRun, rest: pl.DataFrame) -> dict[str, str]:
    """Return {image_id: reason} of rows of base.csv that are in no split.

    Args:
        rest: cell texts, with the images' drop_reason.
    """
    errors = with_missing(run.ledger.images.read_keyed(), ["caption_error"]).select(KEY, "caption_error")
    dropped = pl.when(~not_dropped_before(run.step)).then("drop_reason")
    rows = with_missing(rest, ["caption", "tags", "species"]).join(errors, on=KEY, how="left", maintain_order="left")
    cells = rows.select(KEY, dropped, "caption", "tags", "species", pl.col("caption_error").is_not_null())
    return {str(image_id): why_in_no_split(image_id, *of, failed=failed) for image_id, *of, failed in cells.iter_rows()}


def pack_dataset(run: StageRun, settings: Settings) -> None:
    """Pack the complete set, publish it locally, and describe it."""
    samples, left_out = read_samples(run)
    run.seen = sum(map(len, samples.values())) + len(left_out)
    planned = {split: plan_shards(run, samples[split], settings) for split in SPLITS}
    if run.options.dry_run:
        report_left_out(run, left_out)
        sizes = (f"{len(samples[split])} {split} images in {len(planned[split])} shards" for split in SPLITS)
        log.info("dry run: %s", ", ".join(sizes))
        return
    known = read_known(run.root)
    tasks = [replace(task, known=known.get(task.plan)) for split in SPLITS for task in planned[split]]
    clear_building(run.root, {task.plan for task in tasks})
    packed = pack_all(run, tasks, settings.encoding)
    shards: dict[str, Packed] = {}
    for split in SPLITS:
        # Shards without samples are dropped, so that the numbers have no gaps, as brace patterns need.
        filled = [packed[task.plan] for task in planned[split] if packed[task.plan].samples]
        shards |= {f"{split}-{number:05d}.tar": shard for number, shard in enumerate(filled)}
    record_images(run, tasks, packed)
    for shard in packed.values():
        left_out |= shard.left_out
    report_left_out(run, left_out)
    facts = {name: vars(shard) for name, shard in shards.items()}
    empty = [vars(shard) for shard in packed.values() if not shard.samples]
    id_lists = {split: read_ids(run.root, split) for split in SPLITS}
    stats = make_stats(facts, empty, left_out, settings.as_stats(), id_lists)
    places = {name: place_of(run.root, shard.plan, known) for name, shard in shards.items()}
    publish(run.root, places, describe(run.root, stats))
    for split in SPLITS:
        count = sum(name.startswith(f"{split}-") for name in shards)
        run.extra.update({f"{split}_shards": count, f"{split}_samples": stats["samples"][split]})


def plan_shards(run: StageRun, samples: Sequence[Sample], settings: Settings) -> list[Task]:
    """Return the shards of one split, in order."""
    filled = fill_shards(shuffled(samples, settings.seed), settings.size, run.data)
    return [Task(plan_hash(shard, settings.encoding), tuple(shard)) for shard in filled]


def pack_all(run: StageRun, tasks: Sequence[Task], encoding: Encoding) -> dict[str, Packed]:
    """Return {plan: description} of every shard, in order; each is packed, or found unchanged.

    Raises:
        PokefaError: a shard cannot be packed; the next run reuses finished shards.
        Interrupted: a signal asked to stop.
    """
    packed: dict[str, Packed] = {}
    packer, pool = PackShards(run.root, encoding, run.data), run.spread(Pool(workers=run.options.workers))
    with run.progress(sum(len(task.samples) for task in tasks)) as advance:
        for task, shard in pack_tasks(packer, tasks, pool, run.stop_asked):
            packed[task.plan] = shard
            for _ in task.samples:
                advance()
    run.check_stop()
    return {task.plan: packed[task.plan] for task in tasks}


def record_images(run: StageRun, tasks: Sequence[Task], packed: Mapping[str, Packed]) -> None:
    """Journal the images of new shards; count those of unchanged ones."""
    for task in tasks:
        left_out = packed[task.plan].left_out
        if not built_shard(run.root, task.plan).exists():
            run.counts["unchanged"] += len(task.samples) - len(left_out)
            continue
        for sample in task.samples:
            if sample.image_id in left_out:
                run.note({KEY: sample.image_id, "left_out": left_out[sample.image_id]})
            else:
                run.record(sample.image_id, {}, reason="packed")


def report_left_out(run: StageRun, left_out: Mapping[str, str]) -> None:
    """Count the images that are in no shard, and log errors: neither dropped nor waiting for an earlier stage."""
    harmless: Counter[str] = Counter()
    for image_id, reason in sorted(left_out.items()):
        slug = reason.split(":")[0]
        run.counts[slug] += 1
        if slug in HARMLESS:
            harmless[reason] += 1
            continue
        log.warning("%s: left out: %s", image_id, reason)
        run.errors += 1
    for reason, count in sorted(harmless.items()):
        log.info("%d %s left out: %s", count, "image" if count == 1 else "images", in_words(reason))


def in_words(reason: str) -> str:
    """Return `dropped: species:no_known_species` as `dropped by species: no known species`, and others unchanged."""
    slug, _, drop = reason.partition(": ")
    stage, _, why = drop.partition(":")
    return f"dropped by {stage}: {why.replace('_', ' ')}" if slug == "dropped" else reason


def export_urls(run: StageRun) -> None:
    """Write the set without its images."""
    samples, left_out = read_samples(run)
    ids = [sample.image_id for split in SPLITS for sample in samples[split]]
    run.seen = len(ids) + len(left_out)
    report_left_out(run, left_out)
    if run.options.dry_run:
        log.info("dry run: %d rows for %s", len(ids), URLS)
        return
    run.extra["urls"] = len(ids)
    write_urls(run.root, run.table(), run.ledger.images.read_keyed(), ids)


def build_parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__, rows=False, workers=True)
    parser.for_one_run("urls_only")
    ask = parser.add_argument
    ask("--shard-size", type=positive_int, default=1000, metavar="N", help="maximum samples per shard")
    ask("--shard-bytes", type=positive_int, metavar="N", help="maximum bytes per shard, unless one sample has more")
    ask("--seed", type=int, default=0, metavar="N", help="seed of the order of samples")
    ask(
        "--image-format",
        choices=["keep", *IMAGE_SUFFIXES],
        default="keep",
        help="convert all images to one format, so that datasets shows one image column",
    )
    ask("--max-side", type=positive_int, metavar="PIXELS", help="downscale so that the longer side is at most PIXELS")
    ask(
        "--check",
        choices=list(CHECKS.values()),
        default="full",
        help="decode every image completely, or read only its header, which is faster but misses damage",
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--verify", action="store_true", help="pack nothing: compare the shards with the manifests")
    instead.add_argument("--urls-only", action="store_true", help=f"pack nothing: write {URLS}, the set without images")
    add_data_option(parser)
    add_decoding_options(parser)
    add_cluster_options(parser, "webdataset", builds=True)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    encoding = Encoding(args.image_format, args.max_side, args.check == CHECKS[True])
    if args.shard_bytes is not None and not encoding.keeps:
        parser.error(
            "--shard-bytes applies to unchanged files only: with --image-format or --max-side use --shard-size"
        )
    if args.engine == "ray" and (args.verify or args.urls_only):
        parser.error("--verify and --urls-only run on this machine only: remove --engine ray")
    if args.verify:
        use_limits(limits_from(args))
        return check_and_report(args.root, args.workers)
    settings = Settings(ShardSize(args.shard_size, args.shard_bytes), encoding, args.seed)
    urls_only = args.urls_only

    def body(run: StageRun) -> None:
        if not run.options.dry_run:
            finish(run.root)  # what a killed run or a killed takedown had decided
        if urls_only:
            export_urls(run)
        else:
            pack_dataset(run, settings)

    return run_stage("webdataset", args, body)


if __name__ == "__main__":
    raise SystemExit(main())
