"""Compares a set of shards with its manifests: `webdataset.py --verify`.

It only needs the folder `webdataset/`, so anyone who downloads a published set can check it too.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pokefa.engine.local import run_batches
from pokefa.engine.work import Pool, Work, each
from pokefa.errors import EXIT_DONE, EXIT_FAILED, ImageError, InputError, first_line
from pokefa.images.decoding import in_decoder
from pokefa.images.files import check_image
from pokefa.ledger.table import KEY
from pokefa.shards.layout import DATA, IMAGE_SUFFIXES, MANIFESTS, SHARD_NAME, SPLITS, STATS, Stats, read_stats
from pokefa.shards.publish import describe_ids, read_ids
from pokefa.stage.reader import exit_code_of

READ_BYTES = 2**20


@dataclass(frozen=True)
class Found:
    """The contents of a shard, and its faults."""

    name: str
    samples: dict[str, str]  # image_id: species, comma-separated
    wrong: list[str]


@dataclass(frozen=True)
class ReadShards:
    """The worker: reads shards."""

    root: Path

    def __call__(self) -> Work[tuple[str, Mapping[str, Any]], Found]:
        return each(lambda task: read_shard(self.root, *task))


def check_and_report(root: Path, workers: int | None) -> int:
    """Print each difference on a line, then the JSON summary; return the exit code."""
    return exit_code_of(partial(_report_differences, root, workers))


def _report_differences(root: Path, workers: int | None) -> int:
    began = time.monotonic()
    stats = manifest_of(root)
    found = list(read_all(root, stats, workers))
    wrong = what_differs(root, stats, found)
    for line in wrong:
        print(line)
    summary = {
        "stage": "webdataset",
        "run_id": None,
        "seen": len(stats.shards),
        "done": sum(not one.wrong for one in found),
        "errors": len(wrong),
        "samples": sum(len(one.samples) for one in found),
        "seconds": round(time.monotonic() - began, 3),
    }
    print(json.dumps(summary), flush=True)
    return EXIT_FAILED if wrong else EXIT_DONE


def what_differs(root: Path, stats: Stats, found: list[Found]) -> list[str]:
    """Return all differences between the shards and the manifests, given the contents of each shard."""
    wrong = [line for one in found for line in one.wrong]
    return [*wrong, *check_files(root, stats), *check_lists(root, stats, found)]


def manifest_of(root: Path) -> Stats:
    """Return split_stats.json.

    Raises:
        InputError: it is missing or damaged.
    """
    stats = read_stats(root)
    if stats is None:
        raise InputError(f"no {STATS}, so the set is not complete: run webdataset/webdataset.py")
    try:
        for facts in (*stats.shards.values(), *(stats.id_lists[f"{split}_ids.txt"] for split in SPLITS)):
            assert {"sha256", "bytes", "samples"} <= facts.keys()
    except (KeyError, AttributeError, AssertionError) as error:
        raise InputError(f"{STATS} is damaged ({error!r}): run webdataset/webdataset.py again") from None
    return stats


def read_all(root: Path, stats: Stats, workers: int | None) -> Iterator[Found]:
    """Yield the contents of each shard in the manifest, sorted by name."""
    tasks = sorted(stats.shards.items())
    found: dict[str, Found] = {}
    for outcome in run_batches(ReadShards(root), tasks, Pool(workers=workers)):
        name = outcome.item[0]
        found[name] = outcome.result or Found(name, {}, [f"{DATA}/{name} cannot be read: {outcome.error}"])
    yield from (found[name] for name, _ in tasks)


def read_shard(root: Path, name: str, told: Mapping[str, Any]) -> Found:
    """Read a shard completely; `told` is its manifest entry."""
    path = root / DATA / name
    where = f"{DATA}/{name}"
    found = Found(name, {}, [])
    try:
        content = hashlib.sha256()
        with path.open("rb") as stream:
            while block := stream.read(READ_BYTES):
                content.update(block)
        if path.stat().st_size != told["bytes"]:
            found.wrong.append(f"{where} has {path.stat().st_size} bytes, the manifest says {told['bytes']}")
        elif content.hexdigest() != told["sha256"]:
            found.wrong.append(f"{where} has another SHA-256 than the manifest says")
        for key, members in read_samples(path):
            found.wrong.extend(f"{where}, {key}: {what}" for what in check_sample(name, key, members, found.samples))
    except FileNotFoundError:
        return Found(name, {}, [f"{where} is missing"])
    except (tarfile.TarError, OSError) as error:
        found.wrong.append(f"{where} cannot be read to its end: {first_line(error)}")
    if len(found.samples) != told["samples"]:
        found.wrong.append(f"{where} holds {len(found.samples)} samples, the manifest says {told['samples']}")
    return found


def read_samples(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield (key, {extension: bytes}) for each run of members with one key."""
    key = ""
    members: dict[str, bytes] = {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            name, _, extension = member.name.partition(".")
            if members and name != key:
                yield key, members
                members = {}
            stream = tar.extractfile(member)
            key, members[extension] = name, stream.read() if stream else b""
            if len(members[extension]) != member.size:
                raise tarfile.ReadError(f"{member.name} ends too early")
    if members:
        yield key, members


def check_sample(shard: str, key: str, members: Mapping[str, bytes], samples: dict[str, str]) -> Iterator[str]:
    """Yield the faults of a sample, and add it to `samples`."""
    images = [extension for extension in members if extension in IMAGE_SUFFIXES]
    if len(images) != 1 or set(members) != {*images, "txt", "json"}:
        yield f"holds {', '.join(sorted(members))}, not one image, txt and json"
        return
    if key in samples:
        yield "is there twice"
    samples[key] = ""
    try:
        facts = json.loads(members["json"])
        samples[key] = str(facts["species"])
        told = {name: facts[name] for name in (KEY, "split", "sha256", "width", "height")}
    except (ValueError, KeyError, TypeError) as error:
        yield f"its json is damaged: {error!r}"
        return
    image = members[images[0]]
    is_so = {KEY: key, "split": shard.partition("-")[0], "sha256": hashlib.sha256(image).hexdigest()}
    try:
        seen = in_decoder(check_image, image)
        is_so |= {"width": seen.width, "height": seen.height}  # type: ignore[dict-item]
    except ImageError as error:
        yield f"its image does not decode: {error}"
    yield from (
        f"{name} is {value}, its json says {told[name]}" for name, value in is_so.items() if told[name] != value
    )


def check_files(root: Path, stats: Stats) -> Iterator[str]:
    """Yield shards that are not in the manifest, perhaps left over from another set."""
    for path in sorted((root / DATA).glob("*.tar")):
        if SHARD_NAME.fullmatch(path.name) and path.name not in stats.shards:
            yield f"{DATA}/{path.name} is not in the manifest"


def check_lists(root: Path, stats: Stats, found: list[Found]) -> Iterator[str]:
    """Yield the differences between the shards and the id lists and species tables of each split."""
    for split in SPLITS:
        name = f"{split}_ids.txt"
        text = read_ids(root, split)
        if describe_ids(text)["sha256"] != stats.id_lists[name]["sha256"]:
            yield f"{MANIFESTS}/{name} has other bytes than when the shards were packed"
        held = Counter(key for one in found if one.name.startswith(f"{split}-") for key in one.samples)
        listed = set(text.split())
        yield from (f"{key} is in {count} {split} shards" for key, count in sorted(held.items()) if count > 1)
        yield from (f"{key} is in a {split} shard and not in {name}" for key in sorted(held.keys() - listed))
        absent = listed - held.keys() - stats.left_out.keys()
        yield from (f"{key} is in {name} and in no {split} shard" for key in sorted(absent))
        if listed == held.keys():
            mine = [one for one in found if one.name.startswith(f"{split}-")]
            shown = Counter(
                name for one in mine for species in one.samples.values() for name in set(species.split(","))
            )
            yield from check_species(root / MANIFESTS / f"{split}_species.csv", shown)


def check_species(path: Path, counted: Counter[str]) -> Iterator[str]:
    """Yield the species whose count in a manifest differs from the shards; nothing if the manifest is missing."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    told = Counter({line.split(",")[0]: int(line.split(",")[1]) for line in lines})
    del counted[""]
    for name in sorted(told.keys() | counted.keys()):
        if told[name] != counted[name]:
            yield f"{MANIFESTS}/{path.name} counts {told[name]} of {name}, the shards hold {counted[name]}"
