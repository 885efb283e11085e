"""Hooks of the documentation site: pages that are made of the registry and of files that are there anyway.

A page for each method (what its file says of itself, its settings with their ranges), the results with the first figure
of every reference run, and CONTRIBUTING, CHANGELOG and cluster/README as they are.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # mkdocs runs from a folder of its own choosing

from baselines.registry import METHODS, Method  # noqa: E402
from tune.grids import GRIDS  # noqa: E402

# file of the repository -> page
PAGES = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "cluster/README.md": "cluster.md",
    "results/README.md": "results.md",
    "README.md": "index.md",
}
ROLES = {"ours": "the method of this suite", "label-limited": "label-limited", "oracle": "an oracle"}
REFERENCE = ROOT / "results" / "reference"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the methods' part of the navigation."""
    (part,) = [entry for entry in config.nav if isinstance(entry, dict) and "Methods" in entry]
    part["Methods"] = ["methods/index.md", *[{m.label: f"methods/{name}.md"} for name, m in METHODS.items()]]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here."""
    pages = {page: _linked((ROOT / path).read_text(encoding="utf-8"), path) for path, page in PAGES.items()}
    del pages["index.md"]
    pages["results.md"] += _figures(files, config)
    pages |= {f"methods/{name}.md": method_page(name, method) for name, method in METHODS.items()}
    for page, content in pages.items():
        files.append(File.generated(config, page, content=content))
    return files


def method_page(name: str, method: Method) -> str:
    """What a method minimizes and how it differs from its source, as its file says, and its settings."""
    module, fit = method.fit.split(":")
    path = Path(importlib.import_module(module).__file__ or "")
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    rows = "\n".join(f"| `{setting}` | `{value}` | {doc} |" for setting, value, doc in _settings(method.config()))
    return f"""# {method.label}

`{name}`, {ROLES[method.role]}: {method.summary}. It sees {method.sees}. In `{path.relative_to(ROOT)}`, `{fit}`.

{said}

## Settings

`--set NAME=VALUE` on the command line, or keyword arguments of the class.

| setting | default | meaning |
|:--|:--|:--|
{rows}
"""


def _settings(config: Any, prefix: str = "") -> Iterator[tuple[str, object, str]]:
    """(dotted name, default, meaning with its range) of every setting."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _settings(value, f"{prefix}{field.name}.")
            continue
        ends = (("at least", field.metadata.get("low")), ("at most", field.metadata.get("high")))
        limits = ", ".join(f"{words} {end:g}" for words, end in ends if end is not None)
        said = field.metadata.get("doc", "") + (f" ({limits})" if limits else "")
        yield f"{prefix}{field.name}", value, said.replace("|", "\\|")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in the tables that are made of the registries."""
    methods = [
        f"| [{method.label}]({name}.md) | `{name}` | {method.sees} | {ROLES[method.role]} | {method.summary} |"
        for name, method in METHODS.items()
    ]
    grids = [f"| `{name}` | {grid.summary} |" for name, grid in GRIDS.items()]
    for mark, header, rows in (
        ("methods", "| method | name | sees | role | what it does |", methods),
        ("grids", "| grid | question |", grids),
    ):
        table = "\n".join([header, "|:--" * (header.count("|") - 1) + "|", *rows])
        markdown = markdown.replace(f"<!-- {mark} -->", table)
    return markdown


def _figures(files: Files, config: MkDocsConfig) -> str:
    """The first figure of every reference run and the commands that made it."""
    parts = ["\n\n## Every reference run\n"]
    for figure in sorted(REFERENCE.glob("*/report/figures/forest.svg")):
        run = figure.parents[2]
        files.append(File.generated(config, f"figures/{run.name}.svg", content=figure.read_text(encoding="utf-8")))
        _, _, said = (run / "README.md").read_text(encoding="utf-8").partition("\n")
        parts.append(f"### {run.name}\n\n![Cost and return by task]({f'figures/{run.name}.svg'})\n{said}")
    return "\n".join(parts)


def _linked(text: str, path: str) -> str:
    """Links to files of the repository lead to their page, or become the file's name where they have none."""

    def link(found: re.Match) -> str:
        words, target = found[1], found[2]
        if re.match(r"https?:|#", target):
            return found[0]
        inside = (ROOT / path).parent.joinpath(target.split("#")[0]).resolve()
        name = inside.relative_to(ROOT).as_posix() if inside.is_relative_to(ROOT) else target
        return (
            f"[{words}]({PAGES[name]})"
            if name in PAGES
            else words
            if words.strip("`") == name
            else f"{words} (`{name}`)"
        )

    return re.sub(r"\[([^\]]+)\]\(([^)\s]+)\)", link, text)
