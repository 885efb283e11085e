"""The documentation: every snippet runs as it is written, every command is one that works, and the site builds."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from baselines.registry import METHODS

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NO_MKDOCS_2_WARNING": "1"}


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of every fenced block of a page, in order."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.S | re.M)


def commands(text: str) -> list[list[str]]:
    return [shlex.split(line) for line in text.splitlines() if line.strip()]


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def test_every_block_has_a_language_that_is_run():
    assert {language for page in PAGES for language, _ in blocks(page)} == {"python", "bash"}
    assert sum(len(blocks(page)) for page in PAGES) > 10


@pytest.mark.slow
def test_a_newcomer_gets_from_the_page_to_a_policy(tmp_path):
    """docs/own-data.md, typed as written, but for the installation."""
    snippets = []
    for language, text in blocks(ROOT / "docs" / "own-data.md"):
        if language == "python":
            snippets.append(text)
            continue
        for command in commands(text):
            if command[:2] == ["pip", "install"]:
                continue
            run([sys.executable, "-c", "\n".join(snippets)], tmp_path)
            run([sys.executable, *command[1:]], tmp_path)
    run([sys.executable, "-c", "\n".join(snippets)], tmp_path)
    assert (tmp_path / "policies" / "seed-0" / "predicted_costs.csv").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "own-data.md" and blocks(page)], ids=lambda page: page.stem
)
def test_every_command_works(page, tmp_path):
    """Studies are planned, not run; reports are made of a copy."""
    for name in ("tune", "analysis"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("demo", "paper"):
        (tmp_path / "results" / "reference" / name).mkdir(parents=True)
        for file in ("trials.csv", "run.json"):
            shutil.copy(ROOT / "results" / "reference" / name / file, tmp_path / "results" / "reference" / name)
    for language, text in blocks(page):
        for command in commands(text) if language == "bash" else ():
            if command[0] == "make":
                run(["make", "-n", "-C", str(ROOT), *command[1:]], tmp_path)
                continue
            assert command[0] == "python", command
            if command[1] == "tune/run.py" and "--list" not in command:
                command = [*command, "--dry-run"]
            run([sys.executable, *command[1:]], tmp_path)


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_asks_no_network(tmp_path):
    pytest.importorskip("material", reason="mkdocs-material is not installed")
    run([sys.executable, "-m", "mkdocs", "build", "-q", "--strict", "-d", str(tmp_path)], ROOT)
    for name, method in METHODS.items():
        page = (tmp_path / "methods" / name / "index.html").read_text()
        assert method.label in page and "policy." in page, "what it minimizes, and its settings"
    assert "bag_size" in (tmp_path / "methods" / "safemil" / "index.html").read_text()
    assert (tmp_path / "figures" / "paper.svg").is_file() and "Learner" in (tmp_path / "api" / "index.html").read_text()
    fetched = re.compile(r"""<(?:script|img|link)[^>]*(?:src|href)=["']?(?:https?:)?//""")
    assert not [path for path in tmp_path.rglob("*.html") if fetched.search(path.read_text())]
