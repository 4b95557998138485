"""Publishes a set of shards with its manifests and its card, completely or not at all.

All changes are built in a separate folder. Then a list of the replacements is written. Before the list is on disk,
nothing has changed. After that, `finish` moves every file into place and may be called repeatedly, so the next run
completes a killed one. Meanwhile the manifest is missing, which marks the set as incomplete.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from pokefa.errors import PokefaError
from pokefa.files import place_file, replacing, sha256_of, sync_folder, write_text
from pokefa.shards.card import CARD, refresh_card
from pokefa.shards.croissant import CROISSANT, refresh_croissant
from pokefa.shards.layout import BUILDING, DATA, MANIFESTS, SHARD_NAME, SPLITS, STATS, built_shard, json_text
from pokefa.shards.pack import Known, Packed

MOVES = f"{BUILDING}/moves.json"


def read_known(root: Path) -> dict[str, Known]:
    """Return {plan: shard} of the last set, and of what an interrupted run has built."""
    known: dict[str, Known] = {}
    try:
        stats = json.loads((root / STATS).read_text(encoding="utf-8"))
        for facts in stats["empty_shards"]:
            known[facts["plan"]] = Known(Packed(**facts))
        for name in filter(SHARD_NAME.fullmatch, stats["shards"]):
            facts = stats["shards"][name]
            known[facts["plan"]] = Known(Packed(**facts), root / DATA / name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        known.clear()  # no manifest, or a damaged one: pack every shard anew
    for path in (root / BUILDING).glob("*.json"):
        try:
            packed = Packed(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            continue
        known[packed.plan] = Known(packed, path.with_suffix(".tar"))
    return known


def place_of(root: Path, plan: str, known: Mapping[str, Known]) -> Path:
    """Return the path of a shard: in the building folder, or else in the last set."""
    built, last = built_shard(root, plan), known[plan].path if plan in known else None
    return built if last is None or built.exists() else last


def clear_building(root: Path, plans: Collection[str] = ()) -> None:
    """Empty the building folder, except for the shards of these plans; first remove the list of a pending change."""
    (root / MOVES).unlink(missing_ok=True)
    for path in (root / BUILDING).glob("*"):
        if path.stem not in plans:
            path.unlink()
    if not plans and (root / BUILDING).is_dir():
        (root / BUILDING).rmdir()


def publish(root: Path, shards: Mapping[str, Path], files: Mapping[str, bytes]) -> None:
    """Replace the last set, completely or not at all.

    Args:
        shards: {name: path of the shard}, in the building folder or, perhaps under another name, in the set.
        files: {path relative to the root: content} of manifests, card and so on; unchanged files are not written.

    Raises:
        PokefaError: a file cannot be written; the set is unchanged, or the next call of `finish` completes the change.
    """
    building, staged = root / BUILDING, {}
    for name, path in shards.items():
        if path == root / DATA / name:
            continue
        if path.parent != building:  # it also keeps its old name until another shard takes that
            building.mkdir(exist_ok=True)
            place_file(path, building / path.name)
        staged[f"{DATA}/{name}"] = building / path.name
    for target, content in files.items():
        if not (root / target).is_file() or (root / target).read_bytes() != content:
            staged[target] = building / Path(target).name
            with replacing(staged[target]) as stream:
                stream.write(content)
    tars = (path.name for path in (root / DATA).glob("*.tar"))
    stale = [name for name in tars if SHARD_NAME.fullmatch(name) and name not in shards]
    if not staged and not stale:
        clear_building(root)
        return
    moves = {
        target: {"from": path.name, "before": _state(root / target), "after": _state(path)}
        for target, path in staged.items()
    }
    write_text(root / MOVES, json_text({"moves": moves, "stale": stale}))
    finish(root)


def finish(root: Path) -> None:
    """Complete a pending change, if there is one.

    If somebody has changed one of the files since, the change no longer fits and is discarded.
    """
    try:
        decided = json.loads((root / MOVES).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except ValueError:
        decided = None
    if decided is None or not all(_fits(root, target, move) for target, move in decided["moves"].items()):
        (root / MOVES).unlink()
        return
    built = {root / target: root / BUILDING / move["from"] for target, move in decided["moves"].items()}
    stats = built.pop(root / STATS, None)
    if stats is not None and stats.exists():  # otherwise the new one is in place already
        (root / STATS).unlink(missing_ok=True)
    for target, path in built.items():
        _bring(path, target)
    for name in decided["stale"]:
        (root / DATA / name).unlink(missing_ok=True)
    for folder in {root / DATA, *(target.resolve().parent for target in built)}:
        sync_folder(folder)
    if stats is not None:
        _bring(stats, root / STATS)
        sync_folder((root / STATS).resolve().parent)
    clear_building(root)


def _fits(root: Path, target: str, move: Mapping[str, str | None]) -> bool:
    """Tell whether a file is unchanged since the change was planned, or has its new content already."""
    now = _state(root / target)
    is_old = now == move["before"] or (now is None and target == STATS)
    return now == move["after"] or (is_old and _state(root / BUILDING / str(move["from"])) == move["after"])


def _state(path: Path) -> str | None:
    """Return what identifies the content of a file: for a shard, which is large, its length and time."""
    if not path.is_file():
        return None
    facts = path.stat()
    return f"{facts.st_size} bytes, {facts.st_mtime_ns} ns" if path.suffix == ".tar" else sha256_of(path)


def _bring(path: Path, target: Path) -> None:
    """Move a built file into place unless it is there already; the place may be a link to another device."""
    if not path.exists():
        return
    place = target.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.replace(place)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise PokefaError(f"cannot write {place}: {error.strerror}; run this again") from None
        place_file(path, place)


# -- what is published with the shards --------------------------------------------------------------------------------


def make_stats(
    shards: Mapping[str, Mapping[str, Any]],
    empty: Iterable[Mapping[str, Any]],
    left_out: Mapping[str, str],
    settings: Mapping[str, Any],
    id_lists: Mapping[str, str],
) -> dict[str, Any]:
    """Return the content of split_stats.json, without time and run id: the same set gives the same text.

    Args:
        shards: the entry of each shard, as in `Packed`, by file name.
        empty: the same for shards without samples, which have no file.
        id_lists: the text of each split's list.
    """
    return {
        "empty_shards": list(empty),
        "id_lists": {f"{split}_ids.txt": describe_ids(text) for split, text in id_lists.items()},
        "left_out": dict(left_out),
        "samples": {
            split: sum(facts["samples"] for name, facts in shards.items() if name.startswith(f"{split}-"))
            for split in SPLITS
        },
        "settings": dict(settings),
        "shards": dict(shards),
    }


def describe(root: Path, stats: Mapping[str, Any]) -> dict[str, bytes]:
    """Return {path: content} of the manifest, the card, and the Croissant document if there is one.

    Raises:
        InputError: the Croissant document is damaged.
    """
    files = {STATS: json_text(stats), CARD: refresh_card(root, stats)}
    if (root / CROISSANT).is_file():
        files[CROISSANT] = json_text(refresh_croissant(root, stats))
    return {path: text.encode() for path, text in files.items()}


def read_ids(root: Path, split: str) -> str:
    """Return the text of an id list, empty if the file is missing."""
    try:
        return (root / MANIFESTS / f"{split}_ids.txt").read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def describe_ids(text: str) -> dict[str, int | str]:
    """Return the manifest entry of an id list."""
    data = text.encode()
    return {"bytes": len(data), "samples": len(text.split()), "sha256": hashlib.sha256(data).hexdigest()}
