"""What the system allows: little address space, few open files, paths that it does not take."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pokefa.errors import InputError
from pokefa.machine import FILES_OF_ITS_OWN, LEAST_BYTES, check_path, most_at_once, open_files
from tests.conftest import CHECKOUT

CHECK = "from pokefa.machine import check_address_space; check_address_space()"


def run_limited(*words: str, limit: int) -> subprocess.CompletedProcess[str]:
    """Run Python with so many bytes of address space."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        capture_output=True,
        text=True,
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux limits address space")
def test_too_little_address_space_is_one_line_that_says_how_much_is_needed(dataset: Any) -> None:
    dataset.write_images([{"image_id": "a" * 32}])
    script = ["preprocess/filter/filter.py", "--root", str(dataset.root)]
    done = run_limited(*script, limit=LEAST_BYTES * 3 // 4)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: this process needs ") and "its limit is 1.1 GB: raise" in line
    assert done.stdout == ""
    enough = run_limited("-c", CHECK, limit=10 * LEAST_BYTES + 2**30 * (os.cpu_count() or 1))
    assert (enough.returncode, enough.stderr) == (0, "")


def test_few_open_files_let_fewer_things_be_done_at_once() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(FILES_OF_ITS_OWN, open_files())
    assert 0 < open_files() < soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 11, hard))
        assert most_at_once(64, 2) == 5
        assert most_at_once(3, 2) == 3
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1, hard))
        assert most_at_once(64, 2) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert most_at_once(7, 2) == 7


def test_a_path_that_the_system_does_not_take_is_wrong_input(tmp_path: Path) -> None:
    check_path("--root", tmp_path)
    check_path("--root", tmp_path / "absent" / "too")
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (tmp_path / ("x" * 300), tmp_path / "file" / "x", tmp_path / "loop", Path("a\0b")):
        with pytest.raises(InputError) as caught:
            check_path("--root", path)
        assert str(caught.value).startswith(f"--root {path} cannot be used (")
        assert str(caught.value).endswith("): name another path")


def test_a_root_whose_name_is_too_long_is_wrong_input(run_script: Any) -> None:
    done = run_script("preprocess/filter/filter.py", "--root", "x" * 300)
    assert done.code == 2
    assert done.stderr.startswith(f"error: --root {'x' * 300} cannot be used (")
