"""`unflag_main`: the command with which a person overrides a model's flag, one image at a time.

The model's flag stays in its column. The decision goes into an override column, which takes precedence over the flag
and which no automatic stage writes.
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
from pokefa.setup.steps import STEPS
from pokefa.stage.options import stage_parser
from pokefa.stage.rows import ANY_ROW, find_ids, name_some, stale_columns
from pokefa.stage.runner import StageRun, run_stage

UNFLAGGED = "unflagged"

log = logging.getLogger("pokefa")


@dataclass(frozen=True)
class Overrule:
    """The changes of an unflag command.

    Args:
        step: the name of its step, which owns `override`.
        flag: the model's column, True or False.
        override: the person's column.
        stale: later stages whose images.csv cells depend on the flag, and must be recomputed.
        again: the first stage to rerun; the first stale one by default.
        stale_where: the images whose cells are stale; nothing is recomputed for others.
        again_restored: the first stage to rerun where the model's flag applies again; `again` by default.
        stale_where_restored: the images whose cells are stale then.
        upholding: another verdict, that the model is right: its name, also of its flag, and the flag's help.
    """

    step: str
    flag: str
    override: str
    stale: tuple[str, ...]
    again: str | None = None
    stale_where: pl.Expr = ANY_ROW
    again_restored: str | None = None
    stale_where_restored: pl.Expr = ANY_ROW
    upholding: tuple[str, str] | None = None


def unflag_main(doc: str | None, order: Overrule, argv: Sequence[str] | None = None) -> int:
    """Run an unflag script and return its exit code.

    Args:
        doc: the script's docstring, the text of --help.
        argv: the command line; sys.argv by default.
    """
    parser = stage_parser(doc, rows=False)
    parser.add_argument("--ids", nargs="+", metavar="ID", help="these images; id prefixes are enough")
    parser.add_argument("--ids-file", type=Path, metavar="FILE", help="the images listed in FILE, one id per line")
    parser.add_argument("--undo", action="store_true", help="remove the override: the model's flag applies again")
    upheld, text = order.upholding or (UNFLAGGED, "")
    if order.upholding:
        parser.add_argument(f"--{upheld}", action="store_true", help=text)
    parser.add_argument("--note", metavar="TEXT", help="reason, kept in the run's journal")
    parser.add_argument("--ignore-unknown", action="store_true", help="skip ids that are not in the ledger")
    args = parser.parse_args(argv)
    if args.ids is None and args.ids_file is None:
        parser.error("name the images with --ids or --ids-file")
    verdict = upheld if order.upholding and vars(args)[upheld] else None if args.undo else UNFLAGGED
    if args.undo and verdict is not None:
        parser.error(f"--undo removes either override: leave out --{verdict}")
    return run_stage(
        order.step,
        args,
        lambda run: overrule(run, order, verdict, note=args.note, ignore_unknown=args.ignore_unknown),
        keeps_away=order.stale,  # they would record results that depend on the old flag
    )


def overrule(run: StageRun, order: Overrule, verdict: str | None, *, note: str | None, ignore_unknown: bool) -> None:
    """Set or empty the override of the images named in the run's options.

    Args:
        verdict: set in the override; None empties it.
        note: kept in the journal with the changed images.
        ignore_unknown: skip ids that are not in the ledger.

    Raises:
        InputError: an id is unknown or ambiguous; nothing was changed.
    """
    table = run.table()
    verdicts = table.select(KEY, is_true(order.flag), order.override)
    flags = {image_id: (flagged, overruled) for image_id, flagged, overruled in verdicts.iter_rows()}
    wanted, unknown = find_ids(run.options.ids or (), list(flags))
    if unknown and not ignore_unknown:
        raise InputError(
            f"not in {run.ledger.images.schema.path}: {name_some(unknown)}; nothing was changed: correct the ids, or "
            "skip them with --ignore-unknown"
        )
    if not wanted and not unknown:
        raise InputError("no image is named: give ids with --ids, or in the file of --ids-file")
    for image_id in unknown:
        run.counts["unknown"] += 1
        log.warning("%s: not in the ledger", image_id)
    run.seen = len(wanted)
    gone = set(table.filter(TAKEN_DOWN)[KEY])
    restored = verdict != UNFLAGGED  # the model's flag applies again
    stale = order.stale_where_restored if restored else order.stale_where
    full = table.filter(pl.col(KEY).is_in(wanted) & stale).select(KEY, *stale_cells(order.stale, run.step.name))
    cells = {row.pop(KEY): row for row in full.to_dicts()}
    changed = []
    for image_id in wanted:
        reason = _change(*flags[image_id], verdict)
        if image_id in gone:
            reason = "taken_down"
        if reason != (verdict or "undone"):
            log.info("%s: %s", image_id, reason)
            run.counts[reason] += 1
            continue
        emptied = [name for name, text in cells.get(image_id, {}).items() if text is not None]
        log.info("%s: %s%s", image_id, reason, f", and emptied {', '.join(emptied)}" if emptied else "")
        run.record(image_id, {order.override: verdict}, reason=reason)
        if order.stale and image_id in cells:
            run.clear(image_id, order.stale, reason=reason)
        changed.append(image_id)
    if changed and note is not None:
        run.note({"text": note, "image_ids": changed})
    again = (order.again_restored if restored else None) or order.again
    run.extra["run_again"] = later_stages(run.step.name, order.stale, again) if cells.keys() & changed else []
    if changed and run.options.dry_run:
        log.info("dry run: nothing was changed")


def stale_cells(stages: Sequence[str], step: str) -> list[str]:
    """Return the columns of images.csv that are outdated once a decision of `step` is overridden."""
    return [name for stage in stages for name in stale_columns(stage, after=step)]


def later_stages(step: str, stale: Sequence[str], again: str | None = None) -> list[str]:
    """Return the stages to rerun after a changed override of `step`: from `again` on.

    Without it, from the first stale stage on. Without stale stages, all later stages: their cells of a flagged image
    are empty.
    """
    names = list(STEPS)
    first = names.index(again) if again else min(map(names.index, stale), default=names.index(step) + 1)
    later = (STEPS[name] for name in names[first:])
    return list(dict.fromkeys(each.owner for each in later if each.table and not each.manual))


def _change(flagged: bool, overruled: str | None, verdict: str | None) -> str:
    """Return the change to make to one image, or why there is none, as a slug."""
    if verdict is None:
        return "undone" if overruled else "not_unflagged"
    if overruled == verdict:
        return f"already_{overruled}"
    return verdict if flagged else "not_flagged"
