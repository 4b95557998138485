"""The perceptual hashes of pending images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pokefa.engine.work import Pool, Work, each
from pokefa.images.decoding import in_decoder, readable, use_limits
from pokefa.images.phash import Hashed, hash_file
from pokefa.ledger.cells import Value
from pokefa.stage.runner import Row, StageRun


@dataclass(frozen=True)
class HashRows:
    """The worker: hashes the files of a batch of rows."""

    data: Path
    with_variants: bool

    def __call__(self) -> Work[Row, Hashed]:
        return each(self.hash_row)

    def hash_row(self, row: Row) -> Hashed:
        source = readable(self.data / str(row["path_resized"]))
        return in_decoder(hash_file, source, with_variants=self.with_variants)


def hash_images(run: StageRun, *, with_variants: bool) -> None:
    """Hash every pending image; with variants, one that has none yet is pending."""
    step = replace(run.step, done="phash_variants") if with_variants else run.step
    rows = run.rows(["path_resized"], step)
    use_limits(run.options.decoding, run.options.workers)
    pool = Pool("thread", workers=run.options.workers, batch_size=8)
    for row, hashed in run.map(HashRows(run.data, with_variants), rows, pool):
        cells: dict[str, Value] = {
            "phash64": hashed.phash,
            "phash_contrast": hashed.contrast,
            "phash_variants": hashed.variants,
        }
        run.record(str(row["image_id"]), cells, reason="hashed")
