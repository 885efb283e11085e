"""The pages as a browser shows them: what is seen first, on a phone, on paper, and what the console says."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from analysis import index, report
from tests.fabricated_run import small_run, write_run

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="no chromium, chromium-browser or google-chrome is installed"
)
# Opens every part, waits for the plane, sorts the first table by its second column; tells it all as the page's title.
PROBE = """<script>
addEventListener("load", async () => {
  const wider = () => document.documentElement.scrollWidth - innerWidth;
  const first = [...document.querySelectorAll("figure img")].find(image => image.offsetParent);
  const seen = { bottom: first?.getBoundingClientRect().bottom, wider: wider() };
  document.querySelectorAll("details").forEach(part => { part.open = true; });
  const plane = document.getElementById("plane");
  for (let i = 0; plane && !plane.dataset.drawn && i < 100; i++) await new Promise(done => setTimeout(done, 50));
  seen.plane = [...(plane?.querySelectorAll("path[aria-roledescription=point]") ?? [])].map(p => p.ariaLabel);
  seen.broken = [...document.images].filter(image => !image.complete || !image.naturalWidth).length;
  seen.images = document.images.length;
  seen.widerOpen = wider();
  const table = document.querySelector("table.sortable"), value = row => row.cells[1]?.dataset.sort;
  const column = () => [...table.tBodies].map(body => [...body.rows].map(value).filter(Boolean));
  const button = table.tHead.rows[0].cells[1].querySelector("button");
  button.click();
  seen.up = column();
  button.click();
  seen.down = column();
  document.title = JSON.stringify(seen);
});
</script></body>"""


def browse(page: Path, folder: Path, width: int, height: int, *options: str) -> tuple[str, str]:
    """(the page's text after its scripts ran, what the console said)."""
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-sync",
        "--disable-quic",
    ]
    command += [
        "--disable-background-networking",
        "--disable-component-update",
        f"--user-data-dir={folder / 'browser'}",
    ]
    command += [
        f"--window-size={width},{height}",
        "--hide-scrollbars",
        "--enable-logging=stderr",
        *options,
        page.as_uri(),
    ]
    environment = {**os.environ, "HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_CACHE_HOME": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def look(page: Path, folder: Path, width: int, height: int, *options: str) -> dict:
    """What the probe found; fails where the console said anything."""
    probed = folder / "probed" / page.name
    probed.parent.mkdir(exist_ok=True)
    probed.write_text(page.read_text(encoding="utf-8").replace("</body>", PROBE), encoding="utf-8")
    text, console = browse(probed, folder, width, height, "--virtual-time-budget=20000", "--dump-dom", *options)
    assert console == ""
    return json.loads(html.unescape(re.search(r"<title>(.*?)</title>", text, re.S)[1]))


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """A study of two tasks, and a sweep."""
    folder = tmp_path_factory.mktemp("pages")
    study = small_run(folder / "study", tasks=("BallCircle", "CarRun"))
    sweep = small_run(folder / "sweep", methods=("safemil", "bc-all"), settings=[{"bag_size": k} for k in (1, 8, 64)])
    return {run.name: report.build_report(run) for run in (study, sweep)}


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("name", ["study", "sweep"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_a_page_fits_its_screen(pages, tmp_path, name, width, height):
    seen = look(pages[name], tmp_path, width, height)
    assert seen["bottom"] <= height, "the first figure is on the first screen"
    assert seen["wider"] <= 0 and seen["widerOpen"] <= 0, "nothing is wider than the screen"
    assert seen["broken"] == 0 and seen["images"] > 5
    for up, down in zip(seen["up"], seen["down"], strict=True):
        assert up == sorted(up, key=float) and down == sorted(down, key=float, reverse=True)


@needs_browser
@pytest.mark.slow
def test_the_leaderboard_fits_a_phone_and_is_sorted(pages, tmp_path):
    seen = look(index.write_index(pages["study"].parents[2]), tmp_path, 390, 844)
    assert seen["wider"] <= 0
    for up, down in zip(seen["up"], seen["down"], strict=True):
        assert up == sorted(up, key=float) and down == sorted(down, key=float, reverse=True)


@needs_browser
@pytest.mark.slow
def test_the_plane_names_the_trials_of_the_chosen_task(pages, tmp_path):
    points = look(pages["study"], tmp_path, 1280, 900)["plane"]
    trials = [point for point in points if "trial:" in point]
    assert len(trials) == 9 and all("BallCircle-" in point for point in trials)
    assert len(points) == 9 + 3, "and the mean of each method"


@needs_browser
@pytest.mark.slow
def test_figures_follow_the_dark_mode(pages, tmp_path):
    seen = look(pages["sweep"], tmp_path, 1280, 900, "--blink-settings=preferredColorScheme=0")
    assert seen["broken"] == 0
    figure = (pages["sweep"].parent / "figures" / "forest.svg").read_text()
    assert "prefers-color-scheme:dark" in figure and "#333333" not in figure.split("</style>", 1)[1]


@needs_browser
@pytest.mark.slow
def test_paper_shows_every_part(pages, tmp_path):
    printed = tmp_path / "page.pdf"
    browse(pages["study"], tmp_path, 1280, 900, f"--print-to-pdf={printed}", "--no-pdf-header-footer")
    content = printed.read_bytes()
    n_pages = len(re.findall(rb"/Type\s*/Page\b", content))
    assert 4 <= n_pages <= 20 and re.search(rb"/MediaBox\s*\[\s*0 0 59[45][.\d]* 84[12]", content), "A4"


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_large_run_is_reported_in_half_a_minute(tmp_path):
    """240 trials: six tasks, eight methods, five seeds; seconds of one core, of which a busy one gives less."""
    folder = write_run(tmp_path / "large", tasks=("BallCircle", "BallRun", "CarCircle", "CarRun", "AntRun", "DroneRun"))
    started = time.process_time()
    page = report.build_report(folder).read_text()
    quiet = os.getloadavg()[0] <= (os.cpu_count() or 1)
    assert time.process_time() - started < (30 if quiet else 90)
    assert "240 trials in the tables" in page
