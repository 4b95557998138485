"""Stage 4: resize every image for training, or keep it unchanged.

The source is the inpainted PNG if text was inpainted, else the raw file. An image with a shorter side under --min-side
is enlarged to it. One with a shorter side over --max-short or a longer side over --max-long is reduced to the largest
size within both. If a long strip cannot satisfy both --min-side and --max-long, --max-long wins. An image that needs no
change is hard-linked, not encoded again. Metadata is removed without changing the pixels. GIF, BMP and TIFF become PNG,
AVIF becomes WebP.

Reads   images.csv: path_raw, has_ocr, ocr_override, ocr_inpainted_path
Writes  images.csv: path_resized, resized_*, resize_*
        data_stage/resized/<band>/<rank>_<name>/<image_id>.<ext>: upright, sRGB, 8 bits per channel

    python preprocess/resize/resize.py
    python preprocess/resize/resize.py --root my-dataset --workers 4
    python preprocess/resize/resize.py --max-short 1536 --max-long 3072 --redo
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pokefa.engine.work import Pool, Work
from pokefa.errors import PokefaError, RunError
from pokefa.images.decoding import in_decoder, readable, use_limits
from pokefa.images.files import MAX_BYTES, MAX_PIXELS
from pokefa.images.formats import KEPT_FORMATS, SUFFIXES
from pokefa.images.storage import copy_file, is_remote, write_file
from pokefa.ledger.cells import Value
from pokefa.stage.options import (
    add_cluster_options,
    add_data_option,
    add_decoding_options,
    positive_int,
    stage_parser,
)
from pokefa.stage.overrides import UNFLAGGED
from pokefa.stage.runner import Row, StageRun, run_stage
from preprocess.resize.convert import make_file
from preprocess.resize.policy import Bounds, Target

FOLDER = "data_stage/resized"

# An inpainted PNG is our own and lossless, so it may be larger than the cap for untrusted files.
MAX_INPAINTED_BYTES = 4 * MAX_PIXELS + MAX_BYTES

ACTIONS = {"kept": "keep", "stripped": "strip", "up": "up", "down": "down"}  # any other slug is a reason to convert


@dataclass(frozen=True)
class Resized:
    """The result for one image: its new file and size, the action, and the reason slug."""

    path: str
    width: int
    height: int
    target: Target
    source: str
    action: str
    note: str | None
    reason: str


@dataclass(frozen=True)
class ResizeRows:
    """The worker: writes the resized files of a batch of rows.

    Args:
        data: the folder that image paths are relative to.
    """

    data: Path
    bounds: Bounds

    def __call__(self) -> Work[Row, Resized]:
        return self.resize_batch

    def resize_batch(self, rows: Sequence[Row]) -> list[Resized]:
        with ThreadPoolExecutor(1) as disk:  # writes a file while the next image is processed
            results, written = zip(*(self.resize_row(row, disk) for row in rows), strict=True)
            for one in written:
                one.result()
        return list(results)

    def resize_row(self, row: Row, disk: Executor) -> tuple[Resized, Future[None]]:
        inpainted = (
            row["has_ocr"] is True and row["ocr_override"] != UNFLAGGED and row["ocr_inpainted_path"] is not None
        )
        raw = PurePosixPath(str(row["path_raw"]))
        source = self.data / (str(row["ocr_inpainted_path"]) if inpainted else raw)
        max_bytes = MAX_INPAINTED_BYTES if inpainted else MAX_BYTES
        data, form, target, done = in_decoder(make_file, readable(source, max_bytes), max_bytes, self.bounds)
        name = f"{row['image_id']}.{SUFFIXES[form]}"
        path = str(PurePosixPath(FOLDER, raw.parent.parent.name, raw.parent.name, name))
        written = disk.submit(write_result, self.data / path, data, source)
        action = ACTIONS.get(done, "convert")
        notes = [*([done] if action in ("strip", "convert") else []), *(["long_side_bound"] if target.strip else [])]
        reason = "long_side_bound" if target.strip else done
        origin = "inpainted" if inpainted else "raw"
        return Resized(path, *target.size, target, origin, action, ",".join(notes) or None, reason), written


def write_result(path: Path, data: bytes | None, source: Path) -> None:
    """Write `data` to `path`, or link the source if it is None.

    Raises:
        RunError: the disk is full or not writable.
    """
    try:
        if data is None:
            copy_file(source, path)
        else:
            write_file(path, data)
    except (PokefaError, OSError) as error:
        raise RunError(str(error)) from None


def resize_images(run: StageRun, bounds: Bounds) -> None:
    """Resize every pending image."""
    rows = run.rows(["path_raw", "has_ocr", "ocr_override", "ocr_inpainted_path", "path_resized"])
    use_limits(run.options.decoding, run.options.workers)
    pool = Pool("thread", workers=run.options.workers, batch_size=4)
    for row, resized in run.map(ResizeRows(run.data, bounds), rows, pool):
        run.record(
            str(row["image_id"]),
            {
                "path_resized": resized.path,
                "resized_w": resized.width,
                "resized_h": resized.height,
                "resize_scale": float(resized.target.factor),
                "resize_kernel": resized.target.kernel,
                "resize_action": resized.action,
                "resize_note": resized.note,
                "resize_source": resized.source,
            },
            reason=resized.reason,
        )
        remove_others(run.data / resized.path, row["path_resized"])


def remove_others(path: Path, before: Value) -> None:
    """Remove the image's file of an earlier run with another extension, for example after a JPEG became a PNG.

    Args:
        before: the row's earlier path. On object storage only this file is removed, because a search would cost
            requests for every image; the old file of an unflagged image, which has no earlier path, stays.
    """
    others = {path.with_suffix(f".{suffix}") for suffix in (SUFFIXES[form] for form in KEPT_FORMATS)} - {path}
    if is_remote(path):
        others = {other for other in others if before is not None and other.name == PurePosixPath(str(before)).name}
    for other in others:
        other.unlink(missing_ok=True)


def build_parser() -> argparse.ArgumentParser:
    parser = stage_parser(__doc__, workers=True)
    default = Bounds()
    for flag, pixels, meaning in (
        ("--min-side", default.min_side, "enlarge images whose shorter side is under this"),
        ("--max-short", default.max_short, "largest shorter side"),
        ("--max-long", default.max_long, "largest longer side"),
    ):
        parser.add_argument(flag, type=positive_int, default=pixels, metavar="PIXELS", help=meaning)
    add_data_option(parser)
    add_decoding_options(parser)
    add_cluster_options(parser, "resize", batches=True)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return run_stage(
        "resize",
        args,
        lambda run: resize_images(run, Bounds(args.min_side, args.max_short, args.max_long)),
    )


if __name__ == "__main__":
    raise SystemExit(main())
