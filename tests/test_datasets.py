"""Finding and fetching dataset files, against a local server that misbehaves in every way a real one does."""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import h5py
import numpy as np
import pytest

from safemil import datasets
from safemil.config.errors import UserError
from safemil.data import download, locate, provenance
from safemil.data.hdf5 import save
from safemil.data.tasks import find_task
from safemil.data.trajectories import Outcomes, Trajectories

TASK = find_task("BallCircle")
NAME = TASK.file_name
HTML = b"<!DOCTYPE html><html><body>Sign in</body></html>"


@dataclass
class Server:
    """What the local server sends, and what it was asked."""

    content: bytes
    status: int = 200
    etag: str | None = '"one"'
    content_type: str = "application/octet-stream"
    ranges: bool = True  # False: answers a Range request with the whole file
    announced: int | None = None  # a wrong Content-Length
    break_after: list[int] = field(default_factory=list)  # bytes after which the next answers stop
    redirect: str | None = None  # another server's address
    delay: float = 0.0  # seconds in the middle of an answer
    asked: list[str | None] = field(default_factory=list)  # the Range header of each request
    paths: list[str] = field(default_factory=list)
    whole: int = 0  # answers that held the whole file
    address: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        self.asked.append(wanted)
        self.paths.append(handler.path)
        if self.redirect:
            handler.send_response(302)
            handler.send_header("Location", f"{self.redirect}/{NAME}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        if self.status != 200:
            handler.send_error(self.status)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if start and start >= len(self.content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(self.content)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        body = self.content[start:]
        handler.send_response(206 if start else 200)
        if start:
            last = len(self.content) - 1
            handler.send_header("Content-Range", f"bytes {start}-{last}/{len(self.content)}")
        if self.etag:
            handler.send_header("ETag", self.etag)
        handler.send_header("Content-Type", self.content_type)
        handler.send_header("Content-Length", str(len(body) if self.announced is None else self.announced))
        handler.end_headers()
        if self.break_after:
            handler.wfile.write(body[: self.break_after.pop(0)])
            handler.close_connection = True
            return
        handler.wfile.write(body[: len(body) // 2])
        time.sleep(self.delay)
        handler.wfile.write(body[len(body) // 2 :])
        self.whole += start == 0


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> bytes:
    """A whole dataset file of about 400 kB."""
    rng = np.random.default_rng(0)
    n, offsets = 5000, np.arange(0, 5001, 200)
    path = tmp_path_factory.mktemp("made") / "data.hdf5"
    trajectories = Trajectories(rng.normal(size=(n, 8)), rng.uniform(-1, 1, (n, 2)), offsets)
    save(path, trajectories, Outcomes(np.ones(n), np.zeros(n), np.zeros(n, bool), offsets), {})
    return path.read_bytes()


@pytest.fixture
def start_server():
    """A function that starts a server in a thread."""
    running = []

    def start(content: bytes, **behavior) -> Server:
        server = Server(content, **behavior)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def log_message(self, *_):
                pass

        http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        running.append(http)
        server.address = f"http://127.0.0.1:{http.server_port}/data"
        return server

    yield start
    for http in running:
        http.shutdown()
        http.server_close()


@pytest.fixture
def dead_address() -> str:
    """An address where nobody answers."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    http.server_close()
    return f"http://127.0.0.1:{http.server_port}"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty dataset folder, no pauses between attempts, no proxy."""
    monkeypatch.setenv("DSRL_DATASET_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("DSRL_SOURCES", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "PAUSE", 0.0)
    return tmp_path / "data"


def fetch(*servers: Server):
    return locate.fetch(TASK, sources=[server.address for server in servers], progress=False)


def visible(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


class TestDownload:
    def test_whole_file_under_its_name(self, folder, content, start_server):
        server = start_server(content)
        path = fetch(server)
        assert path == folder / NAME and path.read_bytes() == content
        assert server.paths == [f"/data/{NAME}"] and server.asked == [None]
        assert visible(folder) == [NAME, f"{NAME}.sha256"]

    def test_broken_connections_are_resumed(self, content, start_server):
        server = start_server(content, break_after=[150_000, 100_000])
        assert fetch(server).read_bytes() == content
        first, second, third = server.asked
        starts = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in (second, third)]
        assert first is None and 0 < starts[0] <= 150_000 and starts[0] < starts[1] <= 250_000
        assert server.whole == 0

    def test_a_later_process_goes_on_where_an_earlier_one_stopped(self, folder, content, start_server, caplog):
        server = start_server(content, break_after=[200_000] + [0] * download.FRUITLESS_ATTEMPTS)
        with pytest.raises(UserError, match=r"in a row"):
            fetch(server)
        arrived = (folder / f"{NAME}.part").stat().st_size
        assert arrived > 100_000
        assert fetch(server).read_bytes() == content
        assert server.asked[-1] == f"bytes={arrived}-" and server.whole == 0

    def test_a_dead_source_does_not_cost_what_another_has_sent(self, folder, content, start_server, dead_address):
        server = start_server(content, break_after=[200_000] + [0] * download.FRUITLESS_ATTEMPTS)
        with pytest.raises(UserError):
            locate.fetch(TASK, sources=[server.address, dead_address], progress=False)
        fetch(server)
        assert server.asked[-1] is not None

    def test_server_without_ranges_starts_over(self, content, start_server):
        server = start_server(content, ranges=False, break_after=[150_000])
        assert fetch(server).read_bytes() == content
        assert server.asked[1] is not None and server.whole == 1

    @pytest.mark.parametrize("etag", ['"one"', None])
    def test_a_file_that_changed_meanwhile_is_fetched_anew(self, folder, content, start_server, etag):
        server = start_server(content, etag=etag, break_after=[200_000] + [0] * download.FRUITLESS_ATTEMPTS)
        with pytest.raises(UserError):
            fetch(server)
        with_attribute = folder.parent / "other.hdf5"
        with_attribute.write_bytes(content)
        with h5py.File(with_attribute, "r+") as file:
            file["costs"][:] = 1
            if etag is None:  # then only the size can tell
                file["extra"] = np.zeros(1000)
        server.content = with_attribute.read_bytes()
        server.etag = etag and '"two"'
        assert fetch(server).read_bytes() == server.content

    def test_a_redirect_as_hugging_face_sends_it(self, content, start_server):
        storage = start_server(content, break_after=[200_000])
        front = start_server(b"", redirect=storage.address)
        assert fetch(front).read_bytes() == content
        assert len(front.asked) == 2 and storage.whole == 0
        assert storage.asked[0] is None and storage.asked[1].startswith("bytes=")

    def test_last_byte_had_arrived(self, folder, content, start_server):
        server = start_server(content)
        part = folder / f"{NAME}.part"
        folder.mkdir()
        part.write_bytes(content)
        note = {"url": f"{server.address}/{NAME}", "etag": '"one"', "size": len(content)}
        part.with_name(part.name + ".json").write_text(json.dumps(note))
        assert fetch(server).read_bytes() == content
        assert server.asked == [f"bytes={len(content)}-"] and server.whole == 0

    def test_file_became_shorter(self, folder, content, start_server):
        server = start_server(content)
        part = folder / f"{NAME}.part"
        folder.mkdir()
        part.write_bytes(content + bytes(100))
        note = {"url": f"{server.address}/{NAME}", "etag": '"one"', "size": len(content) + 200}
        part.with_name(part.name + ".json").write_text(json.dumps(note))
        assert fetch(server).read_bytes() == content
        assert server.asked == [f"bytes={len(content) + 100}-", None]

    def test_a_part_of_unknown_origin_is_not_built_upon(self, folder, content, start_server):
        folder.mkdir()
        (folder / f"{NAME}.part").write_bytes(b"?" * 1000)
        server = start_server(content)
        assert fetch(server).read_bytes() == content
        assert server.asked == [None]


class TestBadSources:
    @pytest.mark.parametrize(
        ("behavior", "message"),
        [
            ({"status": 404}, "the server answers 404 Not Found"),
            ({"status": 403}, "the server answers 403 Forbidden"),
            ({"status": 503}, "the server answers 503 Service Unavailable .4 times in a row"),
            ({"content": HTML, "content_type": "text/html; charset=utf-8"}, r"a web page \(HTML\) instead of an HDF5"),
            ({"content": HTML}, r"a web page \(HTML\) instead of an HDF5 file"),
            ({"content": b"version https://git-lfs.github.com/spec/v1"}, "sent something else .b'version https://"),
            ({"content": b""}, "sent something else"),
        ],
    )
    def test_second_source_steps_in(self, content, start_server, caplog, behavior, message):
        caplog.set_level(logging.INFO)
        bad, good = start_server(**{"content": content, **behavior}), start_server(content)
        assert fetch(bad, good).read_bytes() == content
        assert len(good.asked) == 1
        assert len(bad.asked) == (download.FRUITLESS_ATTEMPTS if bad.status in download.BUSY else 1)
        assert re.search(message, caplog.text)
        assert not (locate.dataset_folder() / f"{NAME}.part").exists()

    def test_less_than_announced(self, folder, content, start_server):
        with pytest.raises(UserError, match=r"the connection broke \(.*IncompleteRead.*in a row"):
            fetch(start_server(content, announced=len(content) + 5000, etag=None, ranges=False))
        assert not (folder / NAME).exists()

    def test_truncated_hdf5(self, folder, content, start_server):
        with pytest.raises(UserError, match="what came is not the dataset: .*truncated or damaged HDF5 file"):
            fetch(start_server(content[:200_000]))
        with pytest.raises(UserError, match="what came is not the dataset: .*truncated or damaged HDF5 file"):
            fetch(start_server(content, announced=200_000))  # more in the file than the server says
        assert visible(folder) == []

    def test_file_of_another_task(self, folder, content, start_server):
        with pytest.raises(UserError, match=r"'observations' has shape \(5000, 8\), expected \(5000, 7\)"):
            locate.fetch(find_task("BallRun"), sources=[start_server(content).address], progress=False)
        assert visible(folder) == []

    def test_nobody_answers(self, folder, dead_address):
        before = time.monotonic()
        with pytest.raises(UserError) as raised:
            locate.fetch(TASK, sources=[dead_address, "not-an-address"], progress=False)
        assert time.monotonic() - before < 5
        message = str(raised.value)
        assert f"no dataset for BallCircle: {NAME} is not in {folder}, and no source gave it" in message
        assert f"{dead_address}/{NAME}: no connection (ConnectionRefusedError" in message
        for way_out in (
            "put the file there yourself",
            "DSRL_SOURCES",
            "HF_ENDPOINT",
            "safemil.collect --task BallCircle",
        ):
            assert way_out in message

    def test_a_task_without_recipe_is_told_where_to_look(self, dead_address):
        with pytest.raises(UserError, match="collect data: .*--task CarPush2 .--list shows the tasks"):
            locate.fetch(find_task("CarPush2"), sources=[dead_address], progress=False)

    def test_full_disk(self, content, start_server, monkeypatch):
        free = type("Usage", (), {"free": 1000})
        monkeypatch.setattr(download.shutil, "disk_usage", lambda _: free)
        with pytest.raises(UserError, match=f"the download needs {len(content)} bytes, 1000 are free"):
            fetch(start_server(content))

    def test_a_disk_that_fills_up_meanwhile(self, folder, content, start_server):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # writing beyond fails as on a full disk
        try:
            with pytest.raises(UserError, match=rf"{NAME}.part: cannot be written \(.*File too large"):
                fetch(start_server(content))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        server = start_server(content)
        note = folder / f"{NAME}.part.json"
        note.write_text(json.dumps(json.loads(note.read_text()) | {"url": f"{server.address}/{NAME}"}))
        assert fetch(server).read_bytes() == content
        assert server.asked == ["bytes=100000-"]


def test_two_processes_download_once(folder, content, start_server):
    server = start_server(content, delay=1.0)
    environment = os.environ | {"DSRL_SOURCES": server.address, "HF_ENDPOINT": server.address}
    command = [sys.executable, "-m", "safemil.datasets", "fetch", "BallCircle"]
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in processes:
        out, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert out.strip() == str(folder / NAME)
    assert server.whole == 1 and len(server.asked) == 1


class TestSources:
    def test_order(self, monkeypatch):
        assert locate.source_addresses() == [
            "https://huggingface.co/datasets/YYY-45/DSRL/resolve/main",
            "http://data.offline-saferl.org/download",
        ]
        monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
        monkeypatch.setenv("DSRL_SOURCES", "http://a/x, http://b")
        assert locate.source_addresses()[:3] == [
            "http://a/x",
            "http://b",
            "https://mirror.example/datasets/YYY-45/DSRL/resolve/main",
        ]

    def test_sources_of_the_environment_are_asked_first(self, content, start_server, monkeypatch):
        server = start_server(content)
        monkeypatch.setenv("DSRL_SOURCES", server.address)
        assert locate.fetch(TASK, progress=False).read_bytes() == content

    def test_default_folder(self, monkeypatch):
        monkeypatch.delenv("DSRL_DATASET_DIR")
        monkeypatch.setenv("HOME", "/home/someone")
        assert str(locate.dataset_folder()) == "/home/someone/.dsrl/datasets"


class TestOnDisk:
    def test_a_file_that_lies_there_is_used_as_it_is(self, folder, content, start_server):
        server = start_server(content)
        folder.mkdir()
        (folder / NAME).write_bytes(b"not even HDF5")
        assert fetch(server) == folder / NAME
        assert server.asked == [] and visible(folder) == [NAME]

    def test_official_file_first_then_the_most_trajectories(self, folder, content, start_server, caplog):
        server = start_server(content)
        folder.mkdir()
        names = [
            "SafetyBallCircle-v0-99-120.hdf5",
            "SafetyBallCircle-v0-113-700.hdf5",
            "SafetyBallCircle-v1-1-9000.hdf5",
        ]
        for name in [*names, "SafetyBallRun-v0-80-940.hdf5", "SafetyBallCircle-v0-backup.hdf5"]:
            (folder / name).touch()
        caplog.set_level(logging.INFO)
        assert fetch(server).name == names[1]
        assert f"using the collected {folder / names[1]} (also there: {names[0]})" in caplog.text
        (folder / NAME).touch()
        assert fetch(server).name == NAME
        assert server.asked == []

    def test_sha256_is_kept_until_the_file_changes(self, tmp_path):
        path = tmp_path / "x.hdf5"
        path.write_bytes(b"abc")
        known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        assert provenance.sha256(path) == known
        note = path.with_name("x.hdf5.sha256")
        note.write_text(note.read_text().replace(known, "kept"))
        assert provenance.sha256(path) == "kept"
        path.write_bytes(b"abc")
        os.utime(path, ns=(0, 0))
        assert provenance.sha256(path) == known
        note.write_text("damaged")
        assert provenance.sha256(path) == known

    def test_sha256_in_a_folder_that_may_only_be_read(self, tmp_path, monkeypatch):
        path = tmp_path / "x.hdf5"
        path.write_bytes(b"abc")
        (tmp_path / "x.hdf5.sha256").mkdir()  # root may write everywhere, but not over a folder
        assert provenance.sha256(path).startswith("ba7816bf")
        assert visible(tmp_path) == ["x.hdf5", "x.hdf5.sha256"]


class TestCommand:
    def test_list(self, folder, content, start_server, capsys):
        assert datasets.main(["list"]) == 0
        assert capsys.readouterr().out == f"no dataset in {folder}\n"
        server = start_server(content)
        fetch(server)
        (folder / "SafetyBallRun-v0-80-940.hdf5").write_bytes(HTML)
        (folder / "SafetyAntRun-v0-150-1816.hdf5.part").write_bytes(b"12")
        collected = folder / "SafetyBallCircle-v0-3-25.hdf5"
        collected.write_bytes(content)
        with h5py.File(collected, "r+") as file:
            file.attrs.update({"collected_by": "safemil.collect", "recipe": "scripted", "seed": 3})
        assert datasets.main(["list"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[1].split() == ["task", "file", "size", "trajectories", "from"]
        assert lines[2].split(maxsplit=5)[0::5] == ["BallCircle", "collected (recipe scripted, seed 3)"]
        assert lines[3].split()[:5] == ["BallCircle", NAME, f"{len(content) / 1e6:.1f}", "MB", "25"]
        assert lines[3].endswith(f"{server.address}/{NAME}")
        assert "BallRun" in lines[4] and "cannot be used: a web page (HTML)" in lines[4]
        assert lines[5].endswith("unfinished download; fetch goes on")

    def test_mistakes_end_in_one_line_and_code_2(self, capsys):
        assert datasets.main(["fetch", "BalCircle"]) == 2
        assert capsys.readouterr().err.startswith("error: unknown task 'BalCircle': did you mean BallCircle")
        with pytest.raises(SystemExit, match="2"):
            datasets.main([])
