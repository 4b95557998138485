"""The stage runner, which every script uses.

A script's `main` parses its arguments and calls `run_stage` with a body. The body gets rows from the `StageRun`, maps
them and records each result. The runner opens the ledger, handles signals, merges regularly, prints the summary and
turns errors into one line and an exit code.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import FrameType
from typing import Any, TypeVar

import polars as pl
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from pokefa.console import print_json
from pokefa.engine.local import run_batches
from pokefa.engine.work import Pool, Work
from pokefa.errors import EXIT_DONE, EXIT_FAILED, InputError, Interrupted
from pokefa.files import BadPathError, locate
from pokefa.images.decoding import end_decoders, use_limits
from pokefa.images.storage import data_folder
from pokefa.ledger.cells import Value
from pokefa.ledger.columns import SCHEMAS
from pokefa.ledger.journal import Journal, new_run_id, utc_now
from pokefa.ledger.table import KEY, with_missing
from pokefa.ledger.tables import Ledger
from pokefa.secrets import RedactingFormatter, redact
from pokefa.setup.steps import STEPS, Step
from pokefa.stage.locks import holding
from pokefa.stage.options import CommandLine, Options, command_line, options_from
from pokefa.stage.provenance import run_header
from pokefa.stage.reader import Reading, exit_code_of
from pokefa.stage.rows import choose_ids, find_ids, name_some, pending_rows, require_columns, stale_columns

Row = dict[str, Value]
Result = TypeVar("Result")

# A merge reads and writes the complete table, so merging is limited to this share of the time.
MERGE_EVERY_S = 30.0
MERGE_SHARE = 0.05

log = logging.getLogger("pokefa")


class StageRun(Reading):
    """One run of one step: its rows, its journal, its counts.

    `settings` are those of the journal's first line; a body may add more before its first result.
    """

    run_id: str

    def __init__(self, step: Step, options: Options, ledger: Ledger, line: CommandLine | None = None) -> None:
        super().__init__(step.name, options.root, ledger)
        self.step = step
        self.options = options
        # The folder that image paths are relative to.
        self.data = data_folder(options.data_root, options.root)
        self.run_id = new_run_id(step.owner)
        self.counts: Counter[str] = Counter()
        header = run_header(step.owner, self.run_id, line or CommandLine())
        self.settings: dict[str, Any] = header["settings"]
        self._journal = Journal(self.root, self.run_id, header)
        self._next_merge = self._started + MERGE_EVERY_S
        self._stop_asked = False
        self._bar: tqdm[Any] | None = None

    # -- choosing rows ------------------------------------------------------------------------------------------

    def table(self, step: Step | None = None, *, require: bool = True) -> pl.DataFrame:
        """Return the table of `step` as cell texts, with the images.csv columns that selection needs.

        Args:
            require: the columns that the step reads must be in the file; else missing ones are empty.

        Raises:
            InputError: the table, or a required column, is missing.
        """
        step = step or self.step
        images = self.ledger.images.read_keyed()
        if step.table == "images" and require:
            require_columns(images, step)
        images = with_missing(images, SCHEMAS["images"].names)
        if step.table == "images":
            return images
        if not self.ledger.base.exists():
            raise InputError(f"no {self.ledger.base.path}: run {STEPS['filter'].script} first")
        frame = self.ledger.base.read_keyed()
        require_columns(frame, step)
        from_images = [KEY, "drop_reason", *([step.error] if step.error else [])]
        return frame.join(images.select(from_images), on=KEY, how="left", maintain_order="left")

    def rows(self, columns: Sequence[str], step: Step | None = None, *, require: bool = True) -> list[Row]:
        """Return the rows to work on, as typed values of `columns` and the key.

        With --dry-run they are only counted and logged, and none is returned. `require` is that of `table`.

        Raises:
            InputError: a column is missing, a cell is invalid, or an id is unknown.
        """
        step = step or self.step
        table = self.table(step, require=require)
        ids = self.named_ids(table)
        frame = pending_rows(table, step, redo=self.options.redo, retry_errors=self.options.retry_errors)
        frame = choose_ids(frame, ids, None)
        if ids is not None and len(frame) < len(ids):
            idle = len(ids) - len(frame)
            log.info("%s has nothing to do for %d of the %d images named", step.name, idle, len(ids))
        frame = choose_ids(frame, None, self.options.limit)
        self.seen += len(frame)
        if self.options.dry_run:
            some = ", ".join(frame[KEY].head(5))
            log.info("dry run: %s would work on %d images%s", step.name, len(frame), f" ({some}, …)" if some else "")
            return []
        return [row for row in decode_rows(frame, columns, step) if self._has_good_paths(row)]

    def _has_good_paths(self, row: Row) -> bool:
        """Tell whether all files of a row are in the data folder; if not, record the row as failed."""
        try:
            for name in SCHEMAS[self.step.table].path_names:
                if row.get(name) is not None:
                    locate(self.data, row[name])
        except BadPathError as error:
            self.fail(str(row[KEY]), str(error))
            return False
        return True

    def named_ids(self, table: pl.DataFrame) -> list[str] | None:
        """Return the ids given by --ids and --ids-file, or None if neither was given.

        Raises:
            InputError: one is not in the table, or is a prefix of several ids.
        """
        if self.options.ids is None:
            return None
        found, unknown = find_ids(self.options.ids, table[KEY].to_list())
        if unknown:
            path = SCHEMAS[self.step.table].path
            raise InputError(f"not in {path}: {name_some(unknown)}; nothing was done: correct the ids")
        return found

    # -- recording ----------------------------------------------------------------------------------------------

    def record(
        self,
        image_id: str,
        values: Mapping[str, Value],
        *,
        reason: str | None = None,
        drop: str | None = None,
        detail: str | None = None,
        table: str | None = None,
        durable: bool = False,
        usage: Mapping[str, Any] | None = None,
    ) -> None:
        """Journal one finished result; the next merge writes it to the tables.

        Args:
            values: the stage's own columns; None empties a cell.
            reason: slug counted in the summary and kept in the journal.
            drop: reason slug of a row for drops.csv, with `detail`.
            table: `images` or `base`; the step's own by default.
            durable: write the result to disk before returning, because it was paid for.
            usage: the cost of the result, kept in the journal.

        Raises:
            ValueError: a column belongs to another stage.
            InputError: a value does not fit its column.
        """
        values = dict(values)
        table = table or self.step.table
        if table == "images" and self.step.run_id and not self.step.adds_rows:
            values.setdefault(self.step.run_id, self.run_id)
        if table == "images" and self.step.error and (self.options.redo or self.options.retry_errors):
            values.setdefault(self.step.error, None)
        entry: dict[str, Any] = {
            "table": table,
            KEY: image_id,
            "set": SCHEMAS[table].encode_cells(self.step.owner, values),
            "ts": utc_now(),
        }
        if reason or drop:
            entry["reason"] = reason or drop
            self.counts[entry["reason"]] += 1
        if drop:
            entry["drop"] = {"reason": drop, "detail": detail}
        if usage:
            entry["usage"] = dict(usage)
        self._append(entry, durable=durable)
        self.done += 1

    def set_cells(self, table: str, image_id: str, values: Mapping[str, Value]) -> None:
        """Journal cells of another table that belong to the same result; `record` counts it."""
        encoded = SCHEMAS[table].encode_cells(self.step.owner, values)
        self._append({"table": table, KEY: image_id, "set": encoded, "ts": utc_now()})

    def record_row(self, values: Mapping[str, Value], *, reason: str) -> None:
        """Journal a new row of images.csv; `values` includes its image_id."""
        cells = SCHEMAS["images"].encode_cells(self.step.owner, values)
        entry = {"table": "images", KEY: cells[KEY], "add": True, "set": cells, "reason": reason, "ts": utc_now()}
        self.counts[reason] += 1
        self._append(entry)
        self.done += 1

    def replace_rows(self, table: str, rows: Sequence[Mapping[str, Value]]) -> None:
        """Journal the new rows of a table, in order; rows that remain keep the columns of later stages.

        A stage that owns none of the columns gives the keys of the rows to keep unchanged.
        """
        schema = SCHEMAS[table]
        owned = schema.owned_by(self.step.owner)
        encoded = [schema.encode_cells(self.step.owner, row) for row in rows] if owned else [dict(row) for row in rows]
        self._append({"table": table, "rows": encoded, "columns": owned or [KEY], "ts": utc_now()})

    def fail(self, image_id: str, message: str, *, usage: Mapping[str, Any] | None = None) -> None:
        """Record that an image failed: its error column says why, and the run continues.

        Args:
            usage: the cost of the failure, kept in the journal and written to disk before returning.
        """
        message = redact(" ".join(message.split()).replace("\0", ""))
        log.warning("%s: %s", image_id, message)
        self.errors += 1
        error = self.step.error
        if not error:
            self.counts["failed"] += 1
            return
        cells = {error: message} | ({self.step.run_id: self.run_id} if self.step.run_id else {})
        encoded = SCHEMAS["images"].encode_cells(self.step.owner, cells)
        entry = {"table": "images", KEY: image_id, "set": encoded, "reason": "error", "ts": utc_now()}
        self._append(entry | ({"usage": dict(usage)} if usage else {}), durable=bool(usage))

    def clear(self, image_id: str, stages: Sequence[str], *, reason: str) -> None:
        """Empty the images.csv cells of later stages that a manual decision makes stale; they become pending."""
        cells = {name: None for stage in stages for name in stale_columns(stage, after=self.step.name)}
        self._append({"table": "images", KEY: image_id, "set": cells, "reason": reason, "ts": utc_now()})

    def note(self, entry: Mapping[str, Any], *, durable: bool = False) -> None:
        """Keep a remark in the journal, such as the --note of a manual decision; `durable` as in `record`."""
        self._append({"note": dict(entry), "ts": utc_now()}, durable=durable)

    def save(self) -> None:
        """Merge the journal into the tables."""
        self._journal.sync()
        began = time.monotonic()
        if self._journal.started:
            self.ledger.merge()
        now = time.monotonic()
        self._next_merge = now + max(MERGE_EVERY_S, (now - began) / MERGE_SHARE)

    def _append(self, entry: Mapping[str, Any], *, durable: bool = False) -> None:
        if self.options.dry_run:
            return
        if not self._journal.started:
            self.ledger.begin()
        self._journal.append(entry, durable=durable)
        if time.monotonic() >= self._next_merge:
            self.save()

    # -- working ------------------------------------------------------------------------------------------------

    def map(
        self, make_work: Callable[[], Work[Row, Result]], rows: Sequence[Row], pool: Pool
    ) -> Iterator[tuple[Row, Result]]:
        """Yield (row, result) as workers finish; a row that fails is recorded as an error and not yielded.

        Raises:
            Interrupted: a signal asked to stop; all finished results have been yielded.
        """
        with self.progress(len(rows)) as advance:
            for outcome in run_batches(make_work, rows, self.spread(pool), self.stop_asked):
                advance()
                if outcome.error is not None:
                    self.fail(str(outcome.item[KEY]), outcome.error)
                else:
                    yield outcome.item, outcome.result  # type: ignore[misc]
        self.check_stop()

    def spread(self, pool: Pool) -> Pool:
        """Return a stage's pool with --engine and --batch-size applied."""
        cluster = self.options.cluster
        return replace(
            pool,
            cluster=cluster,
            workers=self.options.workers if cluster else pool.workers,
            batch_size=self.options.batch_size or pool.batch_size,
        )

    @contextmanager
    def progress(self, total: int) -> Iterator[Callable[[], object]]:
        """Show a progress bar on a terminal; yields the function that advances it by one."""
        hidden = self.options.quiet or not sys.stderr.isatty()
        with logging_redirect_tqdm(), tqdm(total=total, desc=self.step.name, unit="img", disable=hidden) as bar:
            self._bar = bar
            yield bar.update
            self._bar = None

    def show(self, **figures: object) -> None:
        """Show figures, such as the running cost, beside the progress bar."""
        if self._bar is not None:
            self._bar.set_postfix({name: str(figure) for name, figure in figures.items()}, refresh=False)

    def stop_asked(self) -> bool:
        return self._stop_asked

    def check_stop(self) -> None:
        """Raise Interrupted if a signal has asked the run to stop; call it between units of work."""
        if self._stop_asked:
            way_on = "; run the same command again to continue"
            if self.options.redo:
                way_on = "; the same command would start over, because --redo includes finished images"
            raise Interrupted(f"interrupted: finished work is saved{way_on}")

    @contextmanager
    def handling_signals(self) -> Iterator[None]:
        """The first Ctrl-C or SIGTERM asks the run to stop at the next safe point, the second stops it at once."""

        def on_signal(number: int, frame: FrameType | None) -> None:
            if self._stop_asked:
                raise KeyboardInterrupt
            self._stop_asked = True
            log.warning("%s: stopping; finished work will be saved", signal.Signals(number).name)

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # -- ending -------------------------------------------------------------------------------------------------

    def summary(self, **more: Any) -> dict[str, Any]:
        signs = {"dry_run": self.options.dry_run, "interrupted": self._stop_asked}
        more |= {name: True for name, shown in signs.items() if shown}
        return super().summary(**more, counts=dict(sorted(self.counts.items())))

    def finish(self) -> None:
        """Journal the summary, merge, and close the journal; a run that recorded nothing leaves no file."""
        if self._journal.started:
            self._journal.append({"summary": self.summary(), "ts": utc_now()})
            self.save()
        self._journal.close()


def run_stage(
    name: str,
    args: argparse.Namespace | Options,
    body: Callable[[StageRun], None],
    *,
    create: bool = False,
    reads_only: bool = False,
    keeps_away: Sequence[str] = (),
) -> int:
    """Run `body` as the step `name` and return the process's exit code.

    Args:
        args: the parsed command line, or the shared options if there is none.
        create: create a missing ledger.
        reads_only: the body changes nothing, as with --dry-run, so it needs no lock.
        keeps_away: other steps that must not run at the same time.
    """
    started: list[StageRun] = []

    def work() -> int:
        options = args if isinstance(args, Options) else options_from(args)
        set_up_logging(options)
        use_limits(options.decoding)
        if create:
            options.root.mkdir(parents=True, exist_ok=True)
        ledger = Ledger.open(options.root, create=create)
        with nullcontext() if reads_only or options.dry_run else holding(options.root, name, *keeps_away):
            line = None if isinstance(args, Options) else command_line(args)
            run = StageRun(STEPS[name], options, ledger, line)
            started.append(run)
            with run.handling_signals():
                try:
                    body(run)
                finally:
                    end_decoders()
                    run.finish()
        return EXIT_FAILED if options.strict and run.errors else EXIT_DONE

    code = exit_code_of(work)
    for run in started:
        print_json(run.summary())
    return code


def decode_rows(frame: pl.DataFrame, columns: Iterable[str], step: Step) -> list[Row]:
    """Return the rows of a frame of cell texts as typed values of `columns` and the key."""
    schema = SCHEMAS[step.table]
    wanted = list(dict.fromkeys([KEY, *columns]))
    for name in wanted:
        if name not in frame.columns:
            raise InputError(f"{schema.path} has no column {name}: run the stage that writes it first")
    typed = [(name, schema.column(name)) for name in wanted]
    rows: list[Row] = []
    for texts in frame.select(wanted).iter_rows(named=True):
        try:
            rows.append({name: column.decode(texts[name]) if column else texts[name] for name, column in typed})
        except InputError as error:
            raise InputError(f"{schema.path}, image {texts[KEY]}, {error}") from None
    return rows


def set_up_logging(options: Options) -> None:
    """Log to stderr, with secrets redacted."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RedactingFormatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    log.handlers = [handler]
    log.propagate = False
    log.setLevel("WARNING" if options.quiet else options.log_level)
