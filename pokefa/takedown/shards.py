"""Removes images from a packed set: rewrites the shards that hold them, and updates everything that describes the set.

The members of the other samples are copied unchanged, so a rewritten shard has the same bytes as if the packer had made
it from these samples. It is built in the packer's building folder and published in the same way, together with all
other changes: `publish` describes how that survives a kill.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pokefa.errors import InputError, first_line
from pokefa.files import replacing
from pokefa.shards.layout import (
    DATA,
    MANIFESTS,
    SHARD_NAME,
    SPLITS,
    STATS,
    TAR_BLOCK,
    TAR_RECORD,
    built_shard,
    read_stats,
    shard_paths,
    split_of,
)
from pokefa.shards.publish import clear_building, describe, make_stats, publish, read_ids
from pokefa.shards.urls import URLS, urls_without

COPY_BYTES = 2**20


@dataclass(frozen=True)
class Cut:
    """A shard that loses samples.

    Args:
        name: of the file.
        kept: (begin, end) in bytes of each remaining member, in order.
        gone: {image_id: the species in its facts} of the removed samples.
    """

    name: str
    kept: tuple[tuple[int, int], ...]
    gone: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Withdrawal:
    """The changes after which the set holds and names none of some images.

    Args:
        listed: the images to remove from each split's id list.
        urls: the new content of urls.parquet, if it names one.
        left_out: whether split_stats.json lists one as held by no shard.
    """

    gone: frozenset[str]
    cuts: tuple[Cut, ...]
    listed: Mapping[str, frozenset[str]]
    urls: bytes | None
    left_out: bool

    @property
    def paths(self) -> list[str]:
        """The files that hold or name one of the images, relative to the root."""
        lists = [f"{MANIFESTS}/{split}_ids.txt" for split in SPLITS if self.listed[split]]
        others = [path for path, names in ((URLS, self.urls is not None), (STATS, self.left_out)) if names]
        return [*(f"{DATA}/{cut.name}" for cut in self.cuts), *lists, *others]


def plan_withdrawal(root: Path, gone: Iterable[str]) -> Withdrawal:
    """Find the images in every shard, in the manifests, and in the set without images.

    Raises:
        InputError: a shard or a manifest is damaged.
    """
    gone = frozenset(gone)
    stats = read_stats(root)
    return Withdrawal(
        gone,
        tuple(cut for path in shard_paths(root) if (cut := read_cut(path, gone)) is not None),
        {split: gone.intersection(read_ids(root, split).split()) for split in SPLITS},
        urls_without(root, gone),
        stats is not None and not gone.isdisjoint(stats.left_out),
    )


def withdraw(root: Path, plan: Withdrawal, species: Mapping[str, tuple[str, ...]]) -> None:
    """Make the change completely or not at all.

    Args:
        species: those in base.csv, for listed images that are in no shard.

    Raises:
        InputError: a file to change is damaged.
        PokefaError: a file cannot be written; the set is unchanged, or the next call of `finish` completes the change.
    """
    clear_building(root)  # an interrupted packing may have left the images; the next one packs it anew
    if not plan.paths:
        return
    stats = json.loads((root / STATS).read_text(encoding="utf-8")) if (root / STATS).is_file() else None
    try:
        shards, facts = _cut_shards(root, plan, stats["shards"] if stats else {})
        lists, files = _cut_lists(root, plan, species)
        if stats is not None:
            left = [_without_left_out(each, plan.gone) for each in (stats, *stats["empty_shards"])]
            new = make_stats(facts, left[1:], left[0]["left_out"], stats["settings"], lists)
            files |= describe(root, stats | new)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{STATS} is damaged ({error!r}): run webdataset/webdataset.py again") from None
    publish(root, shards, files)


def _cut_shards(
    root: Path, plan: Withdrawal, known: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Path], dict[str, Mapping[str, Any]]]:
    """Build the shards that lose samples; return {name: path} and {name: manifest entry} of all."""
    cuts = {cut.name: cut for cut in plan.cuts}
    places, facts = {}, {}
    for name, new in _new_names(root, plan).items():
        places[new], told = root / DATA / name, known.get(name)
        if name in cuts:
            places[new], told = _cut_shard(root, cuts[name], told, plan.gone)
        if told is not None:
            facts[new] = told
    return places, facts


def _cut_shard(
    root: Path, cut: Cut, told: Mapping[str, Any] | None, gone: frozenset[str]
) -> tuple[Path, Mapping[str, Any] | None]:
    """Build a shard without the removed samples; return its path, and its manifest entry if there was one.

    Its plan is one that the packer never makes, so it cannot be mistaken for a shard of other samples.
    """
    was = cut.name if told is None else told["plan"]
    plan = hashlib.sha256(f"without {' '.join(sorted(cut.gone))} {was}".encode()).hexdigest()
    built = built_shard(root, plan)
    written = write_cut(root, cut, built)
    if told is None:
        return built, None
    samples = {"plan": plan, "images": plan, "samples": told["samples"] - len(cut.gone)}
    return built, {**_without_left_out(told, gone), **written, **samples}


def _new_names(root: Path, plan: Withdrawal) -> dict[str, str]:
    """Return {name: new name} of the shards that keep samples; later ones fill the gap of an emptied one."""
    empty = {cut.name for cut in plan.cuts if not cut.kept}
    names, numbers = {}, Counter[str]()
    for path in sorted(shard_paths(root), key=lambda path: (len(path.name), path.name)):
        names[path.name] = path.name
        if path.name in empty and SHARD_NAME.fullmatch(path.name):
            del names[path.name]
        elif SHARD_NAME.fullmatch(path.name):
            split = split_of(path)
            names[path.name] = f"{split}-{numbers[split]:05d}.tar"
            numbers[split] += 1
    return names


def _cut_lists(
    root: Path, plan: Withdrawal, species: Mapping[str, tuple[str, ...]]
) -> tuple[dict[str, str], dict[str, bytes]]:
    """Return the text of each split's id list, and {path: content} of the changed lists and species tables."""
    shown = dict(species) | {image_id: names for cut in plan.cuts for image_id, names in cut.gone.items()}
    lists, files = {}, {} if plan.urls is None else {URLS: plan.urls}
    for split, leaving in plan.listed.items():
        lists[split] = read_ids(root, split)
        if not leaving:
            continue
        left = [image_id for image_id in lists[split].split() if image_id not in leaving]
        lists[split] = "".join(f"{image_id}\n" for image_id in left)
        files[f"{MANIFESTS}/{split}_ids.txt"] = lists[split].encode()
        table = f"{MANIFESTS}/{split}_species.csv"
        if (root / table).is_file():
            lost = Counter(name for image_id in leaving for name in shown.get(image_id, ()))
            try:
                files[table] = _without_species((root / table).read_text(encoding="utf-8"), lost, len(left)).encode()
            except ValueError:
                raise InputError(f"{table} is damaged: run webdataset/split.py again") from None
    return lists, files


def _without_species(text: str, lost: Mapping[str, int], images: int) -> str:
    """Return a species table of split.py without the species of removed images; `images` remain."""
    head, *lines = text.splitlines()
    counts = {name: int(count) - lost.get(name, 0) for name, count, *_ in (line.split(",") for line in lines)}
    ranked = sorted(((-count, name) for name, count in counts.items() if count > 0))
    return f"{head}\n" + "".join(f"{name},{-count},{-count / max(1, images):.6f}\n" for count, name in ranked)


def _without_left_out(told: Mapping[str, Any], gone: frozenset[str]) -> dict[str, Any]:
    """Return a manifest entry without these images in its list of images that no shard holds."""
    return {**told, "left_out": {image_id: why for image_id, why in told["left_out"].items() if image_id not in gone}}


# -- the tar files ----------------------------------------------------------------------------------------------------


def read_cut(path: Path, gone: frozenset[str]) -> Cut | None:
    """Return the cut of a shard, or None if it holds none of the images.

    Raises:
        InputError: it is not a complete tar.
    """
    kept: list[tuple[int, int]] = []
    species: dict[str, tuple[str, ...]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                end = member.offset_data + -(-member.size // TAR_BLOCK) * TAR_BLOCK
                if key not in gone:
                    kept.append((member.offset, end))
                    continue
                species.setdefault(key, ())
                stream = tar.extractfile(member) if extension == "json" else None
                if stream is not None:
                    species[key] = _species_in(stream.read())
    except (tarfile.TarError, OSError) as error:
        raise InputError(
            f"{DATA}/{path.name} is not a complete tar ({first_line(error)}): run webdataset/webdataset.py again"
        ) from None
    return Cut(path.name, tuple(kept), species) if species else None


def write_cut(root: Path, cut: Cut, staged: Path) -> dict[str, Any]:
    """Write the remaining members of a shard; return its SHA-256 and bytes."""
    digest, written = hashlib.sha256(), 0
    with replacing(staged) as stream, (root / DATA / cut.name).open("rb") as source:
        for block in _blocks(source, cut.kept):
            digest.update(block)
            written += stream.write(block)
        filled = -(-(written + 2 * TAR_BLOCK) // TAR_RECORD) * TAR_RECORD  # tarfile's padding
        end = bytes(filled - written)
        digest.update(end)
        written += stream.write(end)
    return {"sha256": digest.hexdigest(), "bytes": written}


def _species_in(facts: bytes) -> tuple[str, ...]:
    """Return the species in a sample's facts, each once."""
    try:
        named = str(json.loads(facts)["species"])
    except (ValueError, KeyError, TypeError):
        return ()
    return tuple(dict.fromkeys(name for name in named.split(",") if name))


def _blocks(source: IO[bytes], ranges: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    for begin, end in ranges:
        source.seek(begin)
        while begin < end and (block := source.read(min(COPY_BYTES, end - begin))):
            begin += len(block)
            yield block
