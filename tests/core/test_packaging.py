"""What `pip wheel .` takes with it, read from pyproject.toml."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatchcase

from tests.conftest import CHECKOUT


def test_a_wheel_holds_every_package_of_the_library_and_the_files_beside_their_modules() -> None:
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["setuptools"]
    data = settings["package-data"]["*"]
    for path in (CHECKOUT / "pokefa").rglob("*.*"):
        if path.is_file() and path.parent.name != "__pycache__":
            package = ".".join(path.relative_to(CHECKOUT).parent.parts)
            assert any(fnmatchcase(package, pattern) for pattern in settings["packages"]["find"]["include"]), package
            assert any(fnmatchcase(path.name, pattern) for pattern in ["*.py", *data]), path
