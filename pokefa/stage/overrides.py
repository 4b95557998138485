"""`unflag_main`: the command with which a person overrules a model's flag, one image at a time.

What the model said stays in its own column; the person's word goes into an override column beside it, which outranks
the flag everywhere and which no automatic stage writes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pokefa.errors import InputError
from pokefa.ledger.columns import TAKEN_DOWN, is_true
from pokefa.ledger.table import KEY
from pokefa.stage.options import options_from, stage_parser
from pokefa.stage.rows import ANY_ROW, ORDER, STEPS, find_ids, name_some, stale_columns
from pokefa.stage.runner import StageRun, run_stage

UNFLAGGED = "unflagged"

log = logging.getLogger("pokefa")


@dataclass(frozen=True)
class Overrule:
    """What an unflag command changes.

    Args:
        flag: the model's column, True or False.
        override: the person's column.
        stale: later stages whose images.csv cells were made from what the flag led to, and must be made anew.
        again: the first stage to run again; the first stale one by default.
        stale_where: the images of which this is so; of the others nothing is made anew.
        verdict: what is set.
        undo: empty the override instead of setting it.
        note: kept in the journal with the images that were changed.
        ignore_unknown: go on without ids that the ledger does not hold.
    """

    flag: str
    override: str
    stale: tuple[str, ...] = ()
    again: str | None = None
    stale_where: pl.Expr = ANY_ROW
    verdict: str = UNFLAGGED
    undo: bool = False
    note: str | None = None
    ignore_unknown: bool = False


def unflag_main(
    doc: str | None,
    *,
    step: str,
    flag: str,
    override: str,
    stale: Sequence[str],
    again: str | None = None,
    again_undone: str | None = None,
    stale_where: pl.Expr = ANY_ROW,
    stale_where_undone: pl.Expr = ANY_ROW,
    upholding: tuple[str, str] | None = None,
    argv: Sequence[str] | None = None,
) -> int:
    """Run an unflag script and return its exit code.

    Args:
        doc: the script's docstring, the text of --help.
        step: name of the step in pokefa.stage.rows.STEPS, which owns `override`.
        flag, override, stale, again, stale_where: as in `Overrule`.
        again_undone, stale_where_undone: the same where the model's flag counts again.
        upholding: a verdict that the model is right, also the flag's name, and the flag's help.
        argv: the command line; sys.argv by default.
    """
    parser = stage_parser(doc, rows=False)
    parser.add_argument("--ids", nargs="+", metavar="ID", help="these images; the beginning of an id will do")
    parser.add_argument("--ids-file", type=Path, metavar="FILE", help="the images named in FILE, one a line")
    parser.add_argument("--undo", action="store_true", help="take the override back: the model's flag counts again")
    if upholding:
        parser.add_argument(f"--{upholding[0]}", action="store_true", dest="upheld", help=upholding[1])
    parser.add_argument("--note", metavar="TEXT", help="why; kept in the run's journal")
    parser.add_argument("--ignore-unknown", action="store_true", help="pass over ids that the ledger does not hold")
    args = parser.parse_args(argv)
    if args.ids is None and args.ids_file is None:
        parser.error("name the images with --ids or --ids-file")
    upheld = upholding[0] if upholding and args.upheld else None
    if upheld and args.undo:
        parser.error(f"--undo takes back either word: leave --{upheld} out")
    counts = args.undo or upheld is not None  # the model's flag
    order = Overrule(
        flag,
        override,
        tuple(stale),
        (again_undone or again) if counts else again,
        stale_where_undone if counts else stale_where,
        upheld or UNFLAGGED,
        args.undo,
        args.note,
        args.ignore_unknown,
    )
    return run_stage(
        step,
        lambda: options_from(args),
        lambda run: overrule(run, order),
        arguments=argv,
        keeps_away=stale,  # what they are about to record would be what is overruled here
    )


def overrule(run: StageRun, order: Overrule) -> None:
    """Set or empty the override of the images that the run's options name.

    Raises:
        InputError: an id is unknown or stands for several images; nothing has been changed.
    """
    table = run.table()
    verdicts = table.select(KEY, is_true(order.flag), order.override)
    flags = {image_id: (flagged, overruled) for image_id, flagged, overruled in verdicts.iter_rows()}
    wanted, unknown = find_ids(run.options.ids or (), list(flags))
    if unknown and not order.ignore_unknown:
        raise InputError(
            f"not in {run.ledger.images.schema.path}: {name_some(unknown)}; nothing was changed: correct the ids, or "
            "leave them out with --ignore-unknown"
        )
    if not wanted and not unknown:
        raise InputError("no image is named: give ids with --ids, or in the file of --ids-file")
    for image_id in unknown:
        run.counts["unknown"] += 1
        log.warning("%s: not in the ledger", image_id)
    run.seen = len(wanted)
    gone = set(table.filter(TAKEN_DOWN)[KEY])
    full = table.filter(pl.col(KEY).is_in(wanted) & order.stale_where).select(
        KEY, *stale_cells(order.stale, run.step.name)
    )
    cells = {row.pop(KEY): row for row in full.to_dicts()}
    changed = []
    for image_id in wanted:
        reason = _verdict(*flags[image_id], order)
        if image_id in gone:
            reason = "taken_down"
        if reason != ("undone" if order.undo else order.verdict):
            log.info("%s: %s", image_id, reason)
            run.counts[reason] += 1
            continue
        emptied = [name for name, text in cells.get(image_id, {}).items() if text is not None]
        log.info("%s: %s%s", image_id, reason, f", and emptied {', '.join(emptied)}" if emptied else "")
        run.record(image_id, {order.override: None if order.undo else order.verdict}, reason=reason)
        if order.stale and image_id in cells:
            run.clear(image_id, order.stale, reason=reason)
        changed.append(image_id)
    if changed and order.note is not None:
        run.note({"text": order.note, "image_ids": changed})
    run.extra["run_again"] = later_stages(run.step.name, order.stale, order.again) if cells.keys() & changed else []
    if changed and run.options.dry_run:
        log.info("dry run: nothing was changed")


def stale_cells(stages: Sequence[str], step: str) -> list[str]:
    """Return the columns of images.csv that hold nothing true once a decision of `step` was overturned."""
    return [name for stage in stages for name in stale_columns(stage, after=step)]


def later_stages(step: str, stale: Sequence[str], again: str | None = None) -> list[str]:
    """Return the stages to run again once an override of `step` has changed: from `again` on.

    Without it, from the first stale stage on. Without stale stages all that come after are meant: their cells of a
    flagged image are empty.
    """
    first = min((ORDER.index(stage) for stage in stale), default=ORDER.index(step) + 1)
    if again is not None:
        first = ORDER.index(again)
    by_hand = ("nsfw_unflag", "ocr_unflag", "takedown")
    return list(dict.fromkeys(STEPS[name].owner for name in ORDER[first:] if name not in by_hand))


def _verdict(flagged: bool, overruled: str | None, order: Overrule) -> str:
    """Return what is to be done with one image, or why nothing is, as a slug."""
    if order.undo:
        return "undone" if overruled else "not_unflagged"
    if overruled == order.verdict:
        return f"already_{overruled}"
    return order.verdict if flagged else "not_flagged"
