"""The modules' imports, lazy ones included, as text: no circles, and packages that build on each other one way."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"safemil": set(), "baselines": {"safemil"}, "tune": {"safemil", "baselines", "analysis"}}
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
