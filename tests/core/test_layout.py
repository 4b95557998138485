"""Imports run downwards: from scripts to the library, and inside it from floor to floor, without circles."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter

from tests.conftest import CHECKOUT

BASE = ("errors", "text", "console", "files", "csv_files", "machine", "outside", "secrets", "setup")
STAGE_FOLDERS = ("quotas", "scraping", "preprocess", "caption", "webdataset", "metadata")
FLOORS = (
    ("pokefa", *(f"pokefa.{name}" for name in BASE)),
    ("pokefa.ledger",),
    ("pokefa.images",),
    ("pokefa.engine",),
    ("pokefa.stage", "pokefa.species", "pokefa.duplicates"),
    ("pokefa.llm",),
    ("pokefa.shards",),
    ("pokefa.takedown",),
    ("pokefa.reporting",),
    STAGE_FOLDERS,
    ("pipeline", "demo", "benchmarks", "tests"),
)


def module_files() -> dict[str, ast.Module]:
    """Return every module of the project but its tests, parsed, by its dotted name."""
    found = {}
    for folder in ("pokefa", *STAGE_FOLDERS, "demo", "benchmarks"):
        for path in sorted((CHECKOUT / folder).rglob("*.py")):
            name = ".".join(path.relative_to(CHECKOUT).with_suffix("").parts).removesuffix(".__init__")
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    found["pipeline"] = ast.parse((CHECKOUT / "pipeline.py").read_text(encoding="utf-8"))
    return found


def imports_of(tree: ast.Module, modules: dict[str, ast.Module]) -> Iterator[str]:
    """Yield the modules of the project that a module imports, also inside functions; not those for types alone."""
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names} & modules.keys()
            yield from names or ({node.module} & modules.keys())


def floor_of(module: str) -> int:
    # The longest name that fits: `pokefa` itself is the ground floor of what has no other.
    fits = [(len(name), floor) for floor, names in enumerate(FLOORS) for name in names if is_in(module, name)]
    return max(fits)[1]


def is_in(module: str, package: str) -> bool:
    return module == package or (package != "pokefa" and module.startswith(f"{package}."))


def test_imports_run_downwards_without_circles():
    modules = module_files()
    graph = {name: set(imports_of(tree, modules)) for name, tree in modules.items()}
    assert len(graph) > 100 and "pokefa.ledger.table" in graph["pokefa.stage.runner"]
    upward = [f"{name} imports {other}" for name, others in graph.items() for other in others
              if floor_of(other) > floor_of(name)]  # fmt: skip
    assert upward == []
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_no_stage_imports_another():
    modules = module_files()

    def stage_of(module: str) -> str:
        """Return the folder of a stage: preprocess/ has one for each."""
        parts = module.split(".")
        return ".".join(parts[: 2 if parts[0] == "preprocess" else 1])

    foreign = [
        f"{name} imports {other}"
        for name, tree in modules.items()
        if name.split(".")[0] in STAGE_FOLDERS
        for other in imports_of(tree, modules)
        if other.split(".")[0] in STAGE_FOLDERS and stage_of(other) != stage_of(name)
    ]
    assert foreign == []
