"""The modules' imports, lazy ones included, as text: no circles, and packages that build on each other one way."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"safemil": set(), "baselines": {"safemil"}, "tune": {"safemil", "baselines", "analysis"}}
ROOMS = (
    "config",
    "data",
    "nn",
    "training",
    "algorithm",
    "evaluation",
    "simulation",
    "collection",
)  # each on those before
DOORS = {
    "__init__.py",
    "api.py",
    "train.py",
    "collect.py",
    "evaluate.py",
    "datasets.py",
    "py.typed",
}  # beside the rooms
PACKAGES["analysis"] = {"safemil", "baselines"}


def modules() -> dict[str, Path]:
    """Dotted name -> file."""
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def imports(path: Path) -> set[str]:
    """All that a file imports, anywhere in it: ``from a import b`` counts as a and as a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_no_module_imports_itself_by_way_of_others():
    files = modules()
    assert len(files) > 100
    graph = {name: (imports(path) & files.keys()) - set(PACKAGES) for name, path in files.items()}
    assert graph["safemil.algorithm.safemil"] >= {"safemil.algorithm.cost_model", "safemil.algorithm.cloning"}
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_build_on_each_other_one_way(package):
    used = {name.split(".")[0] for path in (ROOT / package).rglob("*.py") for name in imports(path)}
    assert used & PACKAGES.keys() <= PACKAGES[package] | {package}


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_build_on_each_other_one_way(room):
    below = {f"safemil.{other}" for other in ROOMS[: ROOMS.index(room) + 1]}
    used = {name for path in (ROOT / "safemil" / room).rglob("*.py") for name in imports(path)}
    ours = {".".join(name.split(".")[:2]) for name in used if name.startswith("safemil.")}
    assert ours <= below


def test_the_house_stays_small():
    """Modules that can be read at a sitting, rooms that can be taken in at a glance."""
    assert {path.name for path in (ROOT / "safemil").iterdir() if path.is_file()} == DOORS
    long = {path: len(path.read_text().splitlines()) for path in (*modules().values(), *ROOT.glob("benchmarks/*.py"))}
    assert not {path for path, n_lines in long.items() if n_lines > 250}
    for room in ROOMS:
        folder = ROOT / "safemil" / room
        assert len(list(folder.glob("*.py"))) <= 14 and (folder / "__init__.py").read_text().startswith('"""')
