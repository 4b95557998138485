"""Check a step's flags and requirements without running it: `python -m pokefa.stage.check_step SCRIPT FLAG …`.

The script's parser reads the flags, and its READY_CHECKS, if any, report what is missing, such as a model file or a
server. The last line of stdout is a JSON list of one-line problems. Wrong flags exit with code 2.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from pokefa.errors import PokefaError
from pokefa.ledger.columns import IMAGES
from pokefa.ledger.table import Table, with_missing
from pokefa.setup.steps import STEPS
from pokefa.stage.rows import pending_rows


def load_script(path: Path) -> ModuleType:
    """Load a script as a module by its path, because the folder webdataset/ has the name of a library."""
    name = "checked_" + "_".join(path.with_suffix("").parts)
    spec = importlib.util.spec_from_file_location(name, path.absolute())
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def has_finished(root: Path, *steps: str) -> bool:
    """Tell whether a dataset has images, and these steps of images.csv have none left to do."""
    try:
        images = with_missing(Table(root, IMAGES).read_keyed(), IMAGES.names)
    except PokefaError:
        return False
    return len(images) > 0 and all(pending_rows(images, STEPS[step]).is_empty() for step in steps)


def main(argv: Sequence[str] | None = None) -> int:
    script, *flags = sys.argv[1:] if argv is None else argv
    logging.disable(logging.CRITICAL)  # a run would log it again
    module = load_script(Path(script))
    parser = module.build_parser()
    parser.prog = Path(script).name
    args = parser.parse_args(flags)
    problems = []
    for check in getattr(module, "READY_CHECKS", ()):
        try:
            check(args)
        except PokefaError as error:
            problems.append(str(error))
    print(json.dumps(problems))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
