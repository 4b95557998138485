"""A stage for the crash tests: hashes rows as fast as it can and says on stdout which results it counts as done.

python tests/core/crashing_stage.py --root DIR --merge-every 7
"""

import argparse
import hashlib
import os
from pathlib import Path

from pokefa.stage.options import Options
from pokefa.stage.runner import StageRun, run_stage


def value_of(image_id: str) -> str:
    """Return the value that the stage records for an image."""
    return hashlib.sha256(image_id.encode()).hexdigest()[:16]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--merge-every", type=int, required=True)
    args = parser.parse_args()

    def body(run: StageRun) -> None:
        for number, row in enumerate(run.rows(["path_resized"])):
            run.record(str(row["image_id"]), {"phash64": value_of(str(row["image_id"]))}, reason="hashed")
            os.write(1, f"{row['image_id']}\n".encode())
            if number % args.merge_every == 0:
                run.save()
            run.check_stop()

    return run_stage("phash", Options(root=args.root), body)


if __name__ == "__main__":
    raise SystemExit(main())
