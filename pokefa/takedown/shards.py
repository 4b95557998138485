"""Taking images out of a packed set: the shards that hold them are cut, and all that speaks of the set follows.

The members of the samples that stay are copied as they are, so a cut shard has the bytes that the packer gives a shard
of these samples. What changes is built in a folder of its own, and then a list is written of what takes whose place.
Before the list is on disk nothing has changed; after that, `finish` brings every file to its place, as often as it is
called, so that a run which was killed in the middle is finished by the next one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from pokefa.errors import InputError, first_line
from pokefa.files import replacing, sha256_of, sync_folder, write_text
from pokefa.ledger.table import KEY
from pokefa.shards.card import CARD, update_card
from pokefa.shards.croissant import CROISSANT, distribution
from pokefa.shards.layout import BUILDING, DATA, MANIFESTS, SHARD_NAME, SPLITS, STATS, read_stats
from pokefa.shards.publish import clear_building, describe_ids, read_ids
from pokefa.shards.urls import URLS
from pokefa.takedown.cut_tar import COPY_BYTES, Cut, read_cut, write_cut

WITHDRAWING = f"{DATA}/.withdrawing"
MOVES = f"{WITHDRAWING}/moves.json"

# How the card and the Croissant document tell the size of the set.
COUNTS_TOLD = (
    "{train} images to train on and {val} to validate with",
    "{train} images to train on, {val} to validate with",
)


@dataclass(frozen=True)
class Withdrawal:
    """What has to change so that the set holds and names none of some images.

    Args:
        listed: the images that leave the id list of each split.
        in_urls: whether urls.parquet names one.
        left_out: whether split_stats.json names one among those that no shard holds.
    """

    gone: frozenset[str]
    cuts: tuple[Cut, ...]
    listed: Mapping[str, frozenset[str]]
    in_urls: bool
    left_out: bool

    @property
    def is_needed(self) -> bool:
        return bool(self.cuts or self.in_urls or self.left_out or any(self.listed.values()))

    @property
    def paths(self) -> list[str]:
        """The files that hold or name one of the images, relative to the root."""
        lists = [f"{MANIFESTS}/{split}_ids.txt" for split in SPLITS if self.listed[split]]
        others = [path for path, names in ((URLS, self.in_urls), (STATS, self.left_out)) if names]
        return [*(f"{DATA}/{cut.name}" for cut in self.cuts), *lists, *others]


def plan_withdrawal(root: Path, gone: Iterable[str]) -> Withdrawal:
    """Look for images in every shard, in the manifests, and in the set without images.

    Raises:
        InputError: a shard or a manifest is damaged.
    """
    gone = frozenset(gone)
    stats = read_stats(root)
    cuts = [cut for path in sorted((root / DATA).glob("*.tar")) if (cut := read_cut(path, gone)) is not None]
    listed = {split: gone.intersection(read_ids(root, split).split()) for split in SPLITS}
    in_urls = not gone.isdisjoint(_urls(root)[KEY]) if (root / URLS).is_file() else False
    left_out = stats is not None and not gone.isdisjoint(stats.left_out)
    return Withdrawal(gone, tuple(cuts), listed, in_urls, left_out)


def withdraw(root: Path, plan: Withdrawal, species: Mapping[str, tuple[str, ...]]) -> None:
    """Make the change, whole or not at all.

    Args:
        species: those that base.csv names, for images that are listed and in no shard.

    Raises:
        InputError: a file that has to change is damaged.
        PokefaError: a file cannot be written; the set is as it was, or the next call of `finish` completes it.
    """
    clear(root)
    if (root / BUILDING).is_dir():  # what a broken-off packing left may hold the images; the next one packs it anew
        clear_building(root, set())
    if plan.is_needed:
        _stage(root, plan, species)
        finish(root)


def finish(root: Path) -> bool:
    """Complete a change that has been decided; return whether there was one.

    A change that no longer fits what lies there, because the set has been packed anew since, is forgotten.
    """
    try:
        decided = json.loads((root / MOVES).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        decided = None
    if decided is None or not _fits(root, decided):
        clear(root)
        return False
    moves = [Path(path) for path in decided["moves"]]
    if (root / WITHDRAWING / Path(STATS).name).exists():
        (root / STATS).unlink(missing_ok=True)  # while it is missing, the set is not whole
    for path in sorted(moves, key=lambda path: path.as_posix() == STATS):
        staged = root / WITHDRAWING / path.name
        if path.as_posix() == STATS:
            for stale in decided["remove"]:
                (root / stale).unlink(missing_ok=True)
            for folder in {(root / moved).parent for moved in moves}:
                sync_folder(folder)
        if staged.exists():
            staged.replace(root / path)
            sync_folder((root / path).parent)
    for stale in decided["remove"]:
        (root / stale).unlink(missing_ok=True)
    clear(root)
    return True


def clear(root: Path) -> None:
    """Remove the folder in which a change is built: first the list, without which the rest means nothing."""
    (root / MOVES).unlink(missing_ok=True)
    if (root / WITHDRAWING).is_dir():
        shutil.rmtree(root / WITHDRAWING)


def _fits(root: Path, decided: Mapping[str, Any]) -> bool:
    """Tell whether each file is what it was when the change was decided, or what it is to be."""
    for path, sums in decided["moves"].items():
        there = sha256_of(root / path) if (root / path).is_file() else None
        staged = (root / WITHDRAWING / Path(path).name).exists()
        may_be = {sums["after"], *([sums["before"]] if staged else [])}
        if there not in may_be and not (staged and path == STATS and there is None):
            return False
    return True


# -- building what is to take whose place -----------------------------------------------------------------------------


def _stage(root: Path, plan: Withdrawal, species: Mapping[str, tuple[str, ...]]) -> None:
    """Build every file that changes, and then the list of them."""
    stats = json.loads((root / STATS).read_text(encoding="utf-8")) if (root / STATS).is_file() else None
    cuts = {cut.name: cut for cut in plan.cuts}
    names = _new_names(root, plan)
    facts: dict[str, dict[str, Any]] = {}
    for name, new in names.items():
        staged = root / WITHDRAWING / new
        old = (stats or {"shards": {}})["shards"].get(name, {})
        if name in cuts:
            facts[new] = old | write_cut(root, cuts[name], staged) | _told_of_cut(old, cuts[name], plan.gone)
            continue
        facts[new] = old
        if name != new:
            _link(root / DATA / name, staged)
    remove = [f"{DATA}/{name}" for name in _shards(root) if name not in names.values()]
    id_lists = _stage_lists(root, plan, species)
    if plan.in_urls:
        with replacing(root / WITHDRAWING / Path(URLS).name) as stream:
            _urls(root).filter(~pl.col(KEY).is_in(sorted(plan.gone))).write_parquet(stream)
    if stats is not None:
        new_stats = _new_stats(stats, facts, id_lists, plan.gone)
        write_text(root / WITHDRAWING / Path(STATS).name, json.dumps(new_stats, **_LIKE_STATS) + "\n")
        _stage_descriptions(root, stats, new_stats)
    folders = {path.name: path for path in map(Path, (STATS, CARD, CROISSANT, URLS))}
    moves = {}
    for staged in sorted((root / WITHDRAWING).iterdir()):
        folder = DATA if staged.suffix == ".tar" else MANIFESTS
        path = folders.get(staged.name, Path(folder) / staged.name).as_posix()
        before = sha256_of(root / path) if (root / path).is_file() else None
        moves[path] = {"before": before, "after": sha256_of(staged)}
    write_text(root / MOVES, json.dumps({"moves": moves, "remove": remove}, indent=1) + "\n")


_LIKE_STATS: dict[str, Any] = {"ensure_ascii": False, "indent": 1, "sort_keys": True}


def _new_names(root: Path, plan: Withdrawal) -> dict[str, str]:
    """Return {name: new name} of the shards that keep samples; where one goes, the later ones close the gap."""
    empty = {cut.name for cut in plan.cuts if not cut.kept}
    names = {name: name for name in _shards(root) if name not in empty}
    for split in {name.rpartition("-")[0] for name in empty if SHARD_NAME.fullmatch(name)}:
        numbered = [name for name in names if SHARD_NAME.fullmatch(name) and name.startswith(f"{split}-")]
        names |= {name: f"{split}-{number:05d}.tar" for number, name in enumerate(numbered)}
    return names


def _told_of_cut(old: Mapping[str, Any], cut: Cut, gone: frozenset[str]) -> dict[str, Any]:
    """Return what else the manifest says of a cut shard.

    Its plan is one that the packer never makes: a shard of other samples must not be taken for it.
    """
    if not old:
        return {}
    mark = hashlib.sha256(f"without {' '.join(sorted(cut.gone))} {old.get('plan')}".encode()).hexdigest()
    left_out = {image_id: why for image_id, why in old.get("left_out", {}).items() if image_id not in gone}
    return {"plan": mark, "images": mark, "samples": old["samples"] - len(cut.gone), "left_out": left_out}


def _stage_lists(root: Path, plan: Withdrawal, species: Mapping[str, tuple[str, ...]]) -> dict[str, dict[str, Any]]:
    """Build the id lists and species tables that change; return what the manifest says of the lists."""
    shown = dict(species) | {image_id: names for cut in plan.cuts for image_id, names in cut.gone.items()}
    described = {}
    for split in SPLITS:
        name = f"{split}_ids.txt"
        ids = read_ids(root, split).split()
        left = [image_id for image_id in ids if image_id not in plan.gone]
        text = "".join(f"{image_id}\n" for image_id in left)
        described[name] = describe_ids(text)
        if len(left) == len(ids):
            described[name] = describe_ids(read_ids(root, split))
            continue
        write_text(root / WITHDRAWING / name, text)
        table = root / MANIFESTS / f"{split}_species.csv"
        if table.is_file():
            leaving = Counter(name for image_id in plan.listed[split] for name in shown.get(image_id, ()))
            text = _without_species(table.read_text(encoding="utf-8"), leaving, len(left))
            write_text(root / WITHDRAWING / table.name, text)
    return described


def _without_species(text: str, leaving: Mapping[str, int], images: int) -> str:
    """Return a species table of split.py without the species of images that leave; `images` stay."""
    head, *lines = text.splitlines()
    counts = {name: int(count) for name, count, *_ in (line.split(",") for line in lines)}
    left = {name: count - leaving.get(name, 0) for name, count in counts.items()}
    ranked = sorted(((name, count) for name, count in left.items() if count > 0), key=lambda item: (-item[1], item[0]))
    return f"{head}\n" + "".join(f"{name},{count},{count / images:.6f}\n" for name, count in ranked)


def _new_stats(
    stats: Mapping[str, Any],
    facts: Mapping[str, Mapping[str, Any]],
    id_lists: Mapping[str, Any],
    gone: frozenset[str],
) -> dict[str, Any]:
    left_out = {image_id: why for image_id, why in stats["left_out"].items() if image_id not in gone}
    shards = {
        name: told for name, told in sorted(facts.items()) if "samples" in told
    }  # the manifest knew the others not
    samples = {
        split: sum(told["samples"] for name, told in shards.items() if name.startswith(f"{split}-")) for split in SPLITS
    }
    empty = [
        told | {"left_out": {image_id: why for image_id, why in told["left_out"].items() if image_id not in gone}}
        for told in stats.get("empty_shards", [])
    ]
    new = {"empty_shards": empty, "id_lists": dict(id_lists), "left_out": left_out, "samples": samples}
    return dict(stats) | new | {"shards": shards}


def _stage_descriptions(root: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Build the card and the Croissant document, where there are any, with the new sizes, sums and counts."""
    if (root / CARD).is_file():
        staged = root / WITHDRAWING / Path(CARD).name
        update_card(root, new, staged)
        write_text(staged, _recounted(staged.read_text(encoding="utf-8"), old, new))
    if (root / CROISSANT).is_file():
        try:
            document = json.loads((root / CROISSANT).read_text(encoding="utf-8"))
            document["description"] = _recounted(document["description"], old, new)
            document["distribution"] = list(distribution(new["shards"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{CROISSANT} is damaged ({error!r}): run webdataset/card.py again") from None
        if not new["shards"]:
            document["recordSet"] = []
        text = json.dumps(document, **_LIKE_STATS) + "\n"
        write_text(root / WITHDRAWING / Path(CROISSANT).name, text)


def _recounted(text: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    for told in COUNTS_TOLD:
        text = text.replace(told.format(**old["samples"]), told.format(**new["samples"]))
    return text


# -- small things -----------------------------------------------------------------------------------------------------


def _shards(root: Path) -> list[str]:
    return sorted(path.name for path in (root / DATA).glob("*.tar"))


def _urls(root: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(root / URLS)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(
            f"{URLS} cannot be read ({first_line(error)}): run webdataset/webdataset.py --urls-only again"
        ) from None


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system knows no such thing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        with replacing(target) as stream, source.open("rb") as content:
            shutil.copyfileobj(content, stream, COPY_BYTES)
