"""The data dictionary and the help texts."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pokefa.ledger.columns import data_dictionary

CHECKOUT = Path(__file__).resolve().parents[2]
SCRIPTS = ("status", "report", "review", "history", "verify", "takedown")


def test_dictionary_is_generated_from_the_columns() -> None:
    written = (CHECKOUT / "metadata/README.md").read_text(encoding="utf-8")
    assert written == data_dictionary(), "run: python -m pokefa.ledger.columns > metadata/README.md"


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_has_commands_and_explains_every_flag(run_script: Callable[..., Any], script: str) -> None:
    finished = run_script(f"metadata/{script}.py", "--help")
    assert finished.code == 0
    assert finished.stdout.count(f"\n    python metadata/{script}.py") >= 2
    for flag in re.findall(r"^  (-.*)$", finished.stdout, re.MULTILINE):
        words = re.split(r"\s{2,}", flag.strip())
        assert len(words) > 1 or f"{flag}\n      " in finished.stdout, f"{flag} has no help"
