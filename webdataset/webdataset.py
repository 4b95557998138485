"""Stage 9, last part: the shards that trainers load.

Reads   base.csv: path, source_url, ae_relevance, ae_aesthetic, phash, tags, hybrid_caption, species, split;
        images.csv: drop_reason; the exported images; webdataset/manifests/{train,val}_ids.txt
Writes  webdataset/data/{train,val}-%05d.tar; webdataset/manifests/split_stats.json

A sample is `<image_id>.jpg`, `.png` or `.webp`, the exported file byte for byte, with `.txt`, the hybrid caption, and
`.json`, its facts. Samples come in an order drawn from --seed. Every image is decoded as it is packed; a bad one is
left out, counted, and named in split_stats.json. Shards are built apart and take the place of the old ones together at
the end; one whose images and facts are as they were is kept. Same input, same bytes, with any number of --workers.

    python webdataset/webdataset.py
    python webdataset/webdataset.py --root my-dataset --shard-bytes 500000000 --workers 4
    python webdataset/webdataset.py --root my-dataset --dry-run
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from pokefa.engine import Pool, Work, each, run_batches
from pokefa.errors import InputError, PokefaError
from pokefa.images import MAX_BYTES, SUFFIXES, ImageError, open_image
from pokefa.model_files import sha256_of
from pokefa.options import options_from, positive_int, stage_parser
from pokefa.run import Row, StageRun, decode_rows, run_stage
from pokefa.selection import not_dropped_before
from pokefa.table import KEY, replacing, sync_folder
from pokefa.text import write_text

DATA = "webdataset/data"
BUILDING = "webdataset/data/.building"
MANIFESTS = "webdataset/manifests"
STATS = f"{MANIFESTS}/split_stats.json"
SPLITS = ("train", "val")

SHARD_NAME = re.compile(r"(train|val)-\d{5,}\.tar")
# The library takes what stands before the first dot of a member's name for the key of its sample.
SAMPLE_KEY = re.compile(r"[0-9A-Za-z_-]+")
COLUMNS = ("path", "source_url", "ae_relevance", "ae_aesthetic", "phash", "tags", "hybrid_caption", "species", "split")

# Part of every shard's plan: a change in what shards hold takes another number, so that old ones are not kept.
LAYOUT = 1
OWNER = "pokefa"
TAR_BLOCK = 512
TAR_RECORD = 10240  # a tar file ends with two empty blocks and is filled up to whole records
UNPLANNED_JSON_BYTES = 150  # sha256, width and height join the facts only when the image is read

log = logging.getLogger("pokefa")


@dataclass(frozen=True)
class Sample:
    """One image to pack: its file, its caption, and what base.csv says of it."""

    image_id: str
    path: str
    caption: str
    facts: dict[str, Any]


@dataclass(frozen=True)
class Packed:
    """A shard that lies on disk, and what it was made of.

    Args:
        plan: hash of the samples' captions and facts, in order; see `plan_hash`.
        images: hash of the image files, in the same order; see `Digest`.
        left_out: {image_id: reason} of the planned images that it does not hold.
    """

    plan: str
    images: str
    sha256: str
    bytes: int
    samples: int
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Known:
    """A shard of an earlier run, and its file; there is none where all its images were bad."""

    packed: Packed
    path: Path | None = None


@dataclass(frozen=True)
class Task:
    """One shard to pack, or to find unchanged: `known` describes an earlier one of the same plan."""

    plan: str
    samples: tuple[Sample, ...]
    known: Known | None = None


@dataclass(frozen=True)
class ShardSize:
    """A shard is full at so many samples, or when the next sample would take its file over so many bytes."""

    samples: int
    bytes: int | None = None

    def holds(self, samples: int, filled: int) -> bool:
        """Tell whether so many samples, whose members take `filled` bytes, fit into one shard."""
        file_bytes = -(-(filled + 2 * TAR_BLOCK) // TAR_RECORD) * TAR_RECORD
        return samples <= self.samples and (self.bytes is None or file_bytes <= self.bytes)


# -- planning: which sample goes into which shard ---------------------------------------------------------------------


def make_sample(row: Row) -> Sample:
    """Return the sample of one row of base.csv.

    Raises:
        ValueError: the row cannot be packed; the message starts with its reason slug.
    """
    image_id = str(row[KEY])
    if row["hybrid_caption"] is None:
        raise ValueError("no_caption: run caption/hybrid_captions.py first")
    if not SAMPLE_KEY.fullmatch(image_id):
        raise ValueError("bad_id: a sample's key holds letters, digits, _ and - only")
    try:
        tags = json.loads(str(row["tags"] or "{}"))
        to_json(tags)
    except ValueError:  # NaN and lone surrogates too, which the shard's JSON could not hold
        tags = None
    if not isinstance(tags, dict):
        raise ValueError("bad_tags: the tags are not a JSON object; caption the image again")
    species = str(row["species"] or "")
    copied = {name: row[name] for name in ("split", "source_url", "ae_relevance", "ae_aesthetic", "phash")}
    facts = {KEY: image_id, **copied, "species": species, "species_list": species.split(","), "tags": tags}
    return Sample(image_id, str(row["path"]), str(row["hybrid_caption"]), facts)


def shuffled(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """Return the samples in an order that depends on the seed and their ids alone."""
    return sorted(samples, key=lambda each: hashlib.sha256(f"shards {seed} {each.image_id}".encode()).digest())


def fill_shards(samples: Sequence[Sample], size: ShardSize, root: Path) -> Iterator[list[Sample]]:
    """Yield the samples of one shard after the other, in order; none is empty."""
    shard: list[Sample] = []
    filled = 0
    for sample in samples:
        weight = tar_bytes(sample, root) if size.bytes is not None else 0
        if shard and not size.holds(len(shard) + 1, filled + weight):
            yield shard
            shard, filled = [], 0
        shard.append(sample)
        filled += weight
    if shard:
        yield shard


def tar_bytes(sample: Sample, root: Path) -> int:
    """Return the most bytes that a sample takes in a shard: for each member a header and its content in blocks."""
    try:
        image = (root / sample.path).stat().st_size
    except OSError:
        image = 0  # to be left out
    members = (image, len(sample.caption.encode()), len(to_json(sample.facts)) + UNPLANNED_JSON_BYTES)
    return sum(TAR_BLOCK + -(-size // TAR_BLOCK) * TAR_BLOCK for size in members)


def plan_hash(samples: Sequence[Sample]) -> str:
    """Return a hash of all that goes into a shard, except for the image files themselves."""
    content = [LAYOUT, *([each.image_id, each.path, each.caption, each.facts] for each in samples)]
    return hashlib.sha256(to_json(content)).hexdigest()


def to_json(value: object) -> bytes:
    return json.dumps(value, allow_nan=False, ensure_ascii=False, sort_keys=True).encode("utf-8")


# -- packing: in the worker processes ---------------------------------------------------------------------------------


def import_tar_writer() -> Any:
    """Return the library's TarWriter.

    This script's folder stands at the front of `sys.path` and bears the library's name, so it is taken off first.

    Raises:
        PokefaError: the library is not installed.
    """
    here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != here]
    try:
        from webdataset import TarWriter
    except ImportError:
        raise PokefaError(
            "the webdataset library is missing: pip install -r requirements/requirements_webdataset.txt"
        ) from None
    return TarWriter


class Digest:
    """The hash over the image files of a shard: of each the SHA-256 of its bytes, or why it cannot be read."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, content: bytes | ImageError) -> str:
        """Take the next file; return its SHA-256 in hex, which means nothing for an error."""
        one = hashlib.sha256(str(content).encode() if isinstance(content, ImageError) else content).hexdigest()
        self._hash.update(f"{type(content).__name__} {one}\n".encode())
        return one

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


class HashingStream:
    """A stream to write to, which hashes and counts what passes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.bytes += len(data)
        return self._stream.write(data)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def read_image(root: Path, path: str) -> bytes | ImageError:
    """Return the bytes of an image file, at most one more than `open_image` takes, or why there are none."""
    try:
        with (root / path).open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except OSError as error:
        return ImageError("missing_file", f"{path}: {error.strerror}")


def members_of(sample: Sample, content: bytes, sha256: str) -> dict[str, Any]:
    """Return the sample as the library writes it: its key, and the bytes of each member by extension.

    Raises:
        ImageError: the image does not decode.
    """
    image = open_image(content)
    facts = sample.facts | {"sha256": sha256, "width": image.width, "height": image.height}
    suffix = SUFFIXES[str(image.format)]
    return {"__key__": sample.image_id, suffix: content, "txt": sample.caption.encode(), "json": to_json(facts)}


def is_unchanged(root: Path, samples: Sequence[Sample], known: Known) -> bool:
    """Tell whether a known shard is whole, and its images are what they were when it was packed."""
    if known.path is not None and (not known.path.is_file() or sha256_of(known.path) != known.packed.sha256):
        return False
    digest = Digest()
    for sample in samples:
        digest.add(read_image(root, sample.path))
    return digest.hexdigest() == known.packed.images


def pack_shard(root: Path, task: Task) -> Packed:
    """Write the shard and its description under the building folder; return the description.

    Raises:
        PokefaError: it cannot be written.
    """
    tar_writer = import_tar_writer()
    digest = Digest()
    left_out: dict[str, str] = {}
    with replacing(built_shard(root, task.plan)) as stream:
        hashing = HashingStream(stream)
        # A float as mtime would bring an extra header to every member.
        with tar_writer(hashing, user=OWNER, group=OWNER, mode=0o644, mtime=0, encoder=False) as writer:
            for sample in task.samples:
                content = read_image(root, sample.path)
                sha256 = digest.add(content)
                try:
                    if isinstance(content, ImageError):
                        raise content
                    writer.write(members_of(sample, content, sha256))
                except ImageError as error:
                    left_out[sample.image_id] = f"unreadable: {error}"
    samples = len(task.samples) - len(left_out)
    packed = Packed(task.plan, digest.hexdigest(), hashing.hexdigest(), hashing.bytes, samples, left_out)
    write_text(built_shard(root, task.plan).with_suffix(".json"), json.dumps(vars(packed), sort_keys=True) + "\n")
    return packed


def built_shard(root: Path, plan: str) -> Path:
    return root / BUILDING / f"{plan}.tar"


@dataclass(frozen=True)
class PackShards:
    """The worker: packs shards that have to be packed."""

    root: Path

    def __call__(self) -> Work[Task, Packed]:
        return each(self.pack)

    def pack(self, task: Task) -> Packed:
        if task.known is not None and is_unchanged(self.root, task.samples, task.known):
            return task.known.packed
        return pack_shard(self.root, task)


# -- the run ----------------------------------------------------------------------------------------------------------


def read_samples(run: StageRun) -> tuple[dict[str, list[Sample]], dict[str, str]]:
    """Return the samples of each split, and {image_id: reason} of the rows that have a split and cannot be packed.

    Raises:
        InputError: a split is neither train nor val, or the id lists tell of another split than base.csv.
    """
    frame = run.table()
    frame = frame.filter(frame["split"].is_not_null()).filter(not_dropped_before(run.step))
    samples: dict[str, list[Sample]] = {split: [] for split in SPLITS}
    ids: dict[str, list[str]] = {split: [] for split in SPLITS}
    left_out: dict[str, str] = {}
    for row in decode_rows(frame, COLUMNS, run.step):
        image_id, split = str(row[KEY]), str(row["split"])
        if split not in SPLITS:
            raise InputError(
                f"metadata/base.csv, image {image_id}, split: {split!r} is not train or val; "
                "run webdataset/split.py again"
            )
        ids[split].append(image_id)
        try:
            samples[split].append(make_sample(row))
        except ValueError as error:
            left_out[image_id] = str(error)
    for split in SPLITS:
        if read_ids(run.root, split).split() != sorted(ids[split]):
            raise InputError(
                f"{MANIFESTS}/{split}_ids.txt does not hold the images that metadata/base.csv has in {split}: "
                "run webdataset/split.py again"
            )
    return samples, left_out


def read_ids(root: Path, split: str) -> str:
    """Return the text of an id list; an empty one where there is none."""
    try:
        return (root / MANIFESTS / f"{split}_ids.txt").read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def read_known(root: Path) -> dict[str, Known]:
    """Return {plan: shard} of the last set, and of what a broken-off run has built."""
    known: dict[str, Known] = {}
    try:
        stats = json.loads((root / STATS).read_text(encoding="utf-8"))
        for facts in stats["empty_shards"]:
            known[facts["plan"]] = Known(Packed(**facts))
        for name in filter(SHARD_NAME.fullmatch, stats["shards"]):
            facts = stats["shards"][name]
            known[facts["plan"]] = Known(Packed(**facts), root / DATA / name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        known.clear()  # no manifest, or a damaged one: every shard is packed anew
    for path in (root / BUILDING).glob("*.json"):
        try:
            packed = Packed(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            continue
        known[packed.plan] = Known(packed, path.with_suffix(".tar"))
    return known


def pack_dataset(run: StageRun, size: ShardSize, seed: int) -> None:
    """Pack the whole set, put it in place, and describe it."""
    samples, left_out = read_samples(run)
    run.seen = sum(map(len, samples.values())) + len(left_out)
    planned = {
        split: [Task(plan_hash(shard), tuple(shard)) for shard in fill_shards(shuffled(those, seed), size, run.root)]
        for split, those in samples.items()
    }
    if run.options.dry_run:
        report_left_out(run, left_out)
        sizes = (f"{len(samples[split])} {split} images in {len(planned[split])} shards" for split in SPLITS)
        log.info("dry run: %s", ", ".join(sizes))
        return
    known = read_known(run.root)
    tasks = [replace(task, known=known.get(task.plan)) for split in SPLITS for task in planned[split]]
    clear_building(run.root, {task.plan for task in tasks})
    packed = pack_all(run, tasks)
    shards: dict[str, Packed] = {}
    for split in SPLITS:
        # A shard whose images are all bad is none: the numbers run on without a gap, as brace patterns need.
        whole = [packed[task.plan] for task in planned[split] if packed[task.plan].samples]
        shards |= {f"{split}-{number:05d}.tar": shard for number, shard in enumerate(whole)}
    record_images(run, tasks, packed)
    publish(run.root, shards, known)
    for shard in packed.values():
        left_out |= shard.left_out
    report_left_out(run, left_out)
    for split in SPLITS:
        mine = [shard for name, shard in shards.items() if name.startswith(split)]
        run.extra.update({f"{split}_shards": len(mine), f"{split}_samples": sum(shard.samples for shard in mine)})
    stats = {
        "empty_shards": [vars(shard) for shard in packed.values() if not shard.samples],
        "id_lists": {f"{split}_ids.txt": describe_ids(read_ids(run.root, split)) for split in SPLITS},
        "left_out": left_out,
        "samples": {split: run.extra[f"{split}_samples"] for split in SPLITS},
        "settings": {"seed": seed, "shard_bytes": size.bytes, "shard_size": size.samples},
        "shards": {name: vars(shard) for name, shard in shards.items()},
    }
    # No time and no run id: the same set has the same text.
    write_text(run.root / STATS, json.dumps(stats, ensure_ascii=False, indent=1, sort_keys=True) + "\n")


def pack_all(run: StageRun, tasks: Sequence[Task]) -> dict[str, Packed]:
    """Return {plan: description} of every shard, in order; each is packed, or found unchanged.

    Raises:
        PokefaError: a shard cannot be packed; those that are finished are found again by the next run.
        Interrupted: a signal asked to stop.
    """
    packed: dict[str, Packed] = {}
    with run.progress(sum(len(task.samples) for task in tasks)) as advance:
        for outcome in run_batches(PackShards(run.root), tasks, Pool(workers=run.options.workers), run.stop_asked):
            if outcome.result is None:
                raise PokefaError(f"a shard of {len(outcome.item.samples)} images cannot be packed: {outcome.error}")
            packed[outcome.item.plan] = outcome.result
            for _ in outcome.item.samples:
                advance()
    run.check_stop()
    return {task.plan: packed[task.plan] for task in tasks}


def clear_building(root: Path, plans: set[str]) -> None:
    """Remove what a broken-off run of another set, or a killed worker, left in the building folder."""
    for path in (root / BUILDING).glob("*"):
        if path.stem not in plans:
            path.unlink()


def publish(root: Path, shards: Mapping[str, Packed], known: Mapping[str, Known]) -> None:
    """Put the shards in place under their names and remove those of an older set.

    The manifest goes before the first change and comes back after the last: while it is missing, the set is not whole.
    """
    folder = root / DATA
    moves = {}
    for name, shard in shards.items():
        built = built_shard(root, shard.plan)
        source = built if built.exists() else known[shard.plan].path
        if source is not None and source != folder / name:
            moves[name] = (source, built)
    stale = [path for path in folder.glob("*.tar") if SHARD_NAME.fullmatch(path.name) and path.name not in shards]
    if moves or stale:
        (root / STATS).unlink(missing_ok=True)
        (root / BUILDING).mkdir(exist_ok=True)
        for source, built in moves.values():  # a kept shard with another number steps aside, before names are taken
            source.replace(built)
        for path in stale:
            path.unlink(missing_ok=True)
        for name, (_, built) in moves.items():
            built.replace(folder / name)
        sync_folder(folder)
    clear_building(root, set())
    if (root / BUILDING).is_dir():
        (root / BUILDING).rmdir()


def record_images(run: StageRun, tasks: Sequence[Task], packed: Mapping[str, Packed]) -> None:
    """Journal the images of the shards that have been built; count those of the unchanged ones."""
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
    """Name and count the images that no shard holds; those that wait for a caption are no errors."""
    for image_id, reason in sorted(left_out.items()):
        log.warning("%s: left out: %s", image_id, reason)
        slug = reason.split(":")[0]
        run.counts[slug] += 1
        run.errors += slug != "no_caption"


def describe_ids(text: str) -> dict[str, int | str]:
    """Return what the manifest says of an id list."""
    data = text.encode()
    return {"bytes": len(data), "samples": len(text.split()), "sha256": hashlib.sha256(data).hexdigest()}


def build_parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__, rows=False, workers=True)
    ask = parser.add_argument
    ask("--shard-size", type=positive_int, default=1000, metavar="N", help="samples in a shard, at most")
    ask("--shard-bytes", type=positive_int, metavar="N", help="bytes in a shard, at most, unless one sample has more")
    ask("--seed", type=int, default=0, metavar="N", help="another seed gives another order of the samples")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    size = ShardSize(args.shard_size, args.shard_bytes)
    seed = args.seed
    return run_stage(
        "webdataset", lambda: options_from(args), lambda run: pack_dataset(run, size, seed), arguments=argv
    )


if __name__ == "__main__":
    raise SystemExit(main())
