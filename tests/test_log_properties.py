"""Reading logs, on thousands of drawn cases: what is written is what is read, and damage is not believed.

The cases are the same on every run (derandomized). A format without checksums cannot tell a damaged digit from another
number: there, what is read differs in the row that was damaged at most (csv), or is at least whole and finite (HDF5).
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from safemil.config.errors import UserError
from safemil.data.convert import convert
from safemil.data.hdf5 import load
from safemil.data.logs.reading import read_trajectories
from safemil.nn import checkpoints
from safemil.nn.policies import Policy
from safemil.nn.streams import make_generators
from tests.log_files import describe

DTYPES = ("<f2", "<f4", ">f4", "<f8", ">f8", "i1", "<i2", ">i4", "<i8", "u1", "<u4", "?")
FLAGS = ("terminals", "timeouts", "both", "dones", "column")
COUNTS = ("lengths", "offsets", "episode_starts", "float lengths")


def cases(number: int):
    return settings(
        max_examples=number, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )


@st.composite
def logs(draw) -> tuple[dict[str, np.ndarray], np.ndarray, str]:
    """Arrays of some episodes, their offsets, and how their ends are told."""
    ends = draw(st.sampled_from(FLAGS + COUNTS))
    lengths = draw(st.lists(st.integers(2 if ends in FLAGS else 1, 6), min_size=1, max_size=5))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, width = offsets[-1], draw(st.integers(1, 12))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    observations = rng.normal(size=(n, width)) * 10.0 ** draw(st.integers(-6, 2))
    if dtype.kind in "iu":
        observations = rng.integers(0 if dtype.kind == "u" else -100, 100, (n, width))
    log = {"observations": observations.astype(dtype), "actions": rng.uniform(-1, 1, (n, draw(st.integers(1, 3))))}
    log["actions"] = log["actions"].astype(draw(st.sampled_from(("<f4", ">f8"))))
    log["rewards"], log["costs"] = rng.normal(size=n).astype("<f4"), rng.integers(0, 3, n)
    return log, offsets, ends


def with_ends(log, offsets, ends):
    """The flat arrays with the ends told in one of the ways; and which of the ends are the task's own."""
    last = np.isin(np.arange(offsets[-1]), offsets[1:] - 1)
    terminals = {"terminals": last, "both": last & (np.arange(len(last)) % 2 == 0), "dones": last, "column": last}
    terminal = terminals.get(ends, np.zeros(len(last), dtype=bool))
    told = {
        "terminals": {"terminals": last},
        "timeouts": {"timeouts": last.astype(np.float32)},
        "both": {"terminals": terminal, "timeouts": last & ~terminal},
        "dones": {"done": last.astype(np.uint8)},
        "column": {"terminated": last.reshape(-1, 1)},
        "lengths": {"lengths": np.diff(offsets)},
        "float lengths": {"lengths": np.diff(offsets).astype(float)},
        "offsets": {"offsets": offsets},
        "episode_starts": {"episode_starts": np.isin(np.arange(offsets[-1]), offsets[:-1])},
    }[ends]
    return log | told, terminal


def write_npz(path: Path, arrays, offsets, compressed=False):
    (np.savez_compressed if compressed else np.savez)(path.with_suffix(".npz"), **arrays)
    return path.with_suffix(".npz")


def write_hdf5(path: Path, arrays, offsets, **options):
    with h5py.File(path.with_suffix(".hdf5"), "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, **options)
    return path.with_suffix(".hdf5")


def write_groups(path: Path, arrays, offsets):
    with h5py.File(path.with_suffix(".hdf5"), "w") as file:
        for number in reversed(range(len(offsets) - 1)):
            for name, values in arrays.items():
                if len(values) == offsets[-1] and name not in ("lengths", "offsets", "episode_starts"):
                    file[f"episode_{number}/{name}"] = values[offsets[number] : offsets[number + 1]]
    return path.with_suffix(".hdf5")


def write_csv(path: Path, arrays, offsets):
    """A folder with a file for each episode."""
    path.mkdir()
    columns = {}
    for name, values in arrays.items():
        if len(values) == offsets[-1] and name not in ("lengths", "offsets", "episode_starts"):
            values = values.reshape(len(values), -1)
            numbered = name in ("observations", "actions")
            columns |= {f"{name}_{i}" if numbered else name: values[:, i] for i in range(values.shape[1])}
    for number in range(len(offsets) - 1):
        with (path / f"{number}.csv").open("w", newline="") as file:
            writer = csv.writer(file, delimiter=",;\t"[number % 3])
            writer.writerow(columns)
            for row in range(offsets[number], offsets[number + 1]):
                writer.writerow([values[row].item() for values in columns.values()])
    return path


WRITERS = {
    "npz": write_npz,
    "npz, compressed": lambda *case: write_npz(*case, compressed=True),
    "hdf5": write_hdf5,
    "hdf5, compressed": lambda *case: write_hdf5(*case, compression="gzip", shuffle=True, chunks=True),
    "hdf5, groups": write_groups,
    "csv": write_csv,
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_written_is_what_is_read(name, tmp_path):
    number = iter(range(10_000))

    @cases(75)
    @given(logs())
    def check(case):
        log, offsets, ends = case
        folder = tmp_path / str(next(number))
        folder.mkdir()
        arrays, terminals = with_ends(log, offsets, ends)
        source = WRITERS[name](folder / "log", arrays, offsets)
        convert(source, folder / "out.hdf5")
        trajectories, outcomes = load(folder / "out.hdf5")
        assert trajectories.offsets.tolist() == offsets.tolist()
        np.testing.assert_array_equal(trajectories.observations, log["observations"].astype(np.float32))
        np.testing.assert_array_equal(trajectories.actions, log["actions"].astype(np.float32))
        np.testing.assert_array_equal(outcomes.rewards, log["rewards"])
        np.testing.assert_array_equal(outcomes.costs, log["costs"])
        np.testing.assert_array_equal(outcomes.terminals, terminals)
        shutil.rmtree(folder)

    check()


def base(rng) -> tuple[dict[str, np.ndarray], np.ndarray]:
    offsets = np.array([0, 4, 7, 12])
    log = {"observations": rng.normal(size=(12, 3)).astype(np.float32), "actions": rng.uniform(-1, 1, (12, 2))}
    return log | {"rewards": rng.normal(size=12), "costs": rng.integers(0, 2, 12)}, offsets


damage = st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255))


def damaged(content: bytes, where: float, byte: int) -> bytes:
    at = int(where * len(content))
    return content[:at] + bytes([byte]) + content[at + 1 :]


def read_or_refused(read, path: Path):
    """What is read; None when it is refused in one line that begins with the path."""
    try:
        return read(path)
    except UserError as error:
        said = str(error)
        assert said.startswith(str(path)) and said.isprintable() and len(said) <= 300 + len(str(path)), said
        return None


@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_byte_of_an_npz(compressed, rng, tmp_path):
    log, offsets = base(rng)
    arrays, _ = with_ends(log, offsets, "dones")
    path = write_npz(tmp_path / "log", arrays, offsets, compressed)
    whole, refused = path.read_bytes(), []

    @cases(220)
    @given(damage)
    def check(where):
        path.write_bytes(damaged(whole, *where))
        read = read_or_refused(read_trajectories, path)
        refused.append(read is None)
        if read is not None:  # the archive's checksums leave no third way
            np.testing.assert_array_equal(read[0].observations, log["observations"])
            np.testing.assert_array_equal(read[0].actions, log["actions"].astype(np.float32))
            assert read[0].offsets.tolist() == offsets.tolist()

    check()
    assert 0.3 < np.mean(refused) < 1


def test_a_damaged_byte_of_a_csv(rng, tmp_path):
    log, offsets = base(rng)
    folder = write_csv(tmp_path / "log", log, offsets)
    path = folder / "1.csv"
    whole, refused = path.read_bytes(), []

    @cases(300)
    @given(damage)
    def check(where):
        path.write_bytes(damaged(whole, *where))
        read = read_or_refused(read_trajectories, folder)
        refused.append(read is None)
        if read is not None:
            assert read[0].offsets.tolist() == offsets.tolist()
            differs = (read[0].observations != log["observations"]).any(axis=1)
            differs |= (read[0].actions != log["actions"].astype(np.float32)).any(axis=1)
            assert differs.sum() <= 1 and not differs[:4].any() and not differs[7:].any()

    check()
    assert 0.3 < np.mean(refused) < 1


@pytest.mark.parametrize("layout", ["plain", "compressed", "groups", "checksums"])
def test_a_damaged_byte_of_an_hdf5_file(layout, rng, tmp_path):
    log, offsets = base(rng)
    arrays, _ = with_ends(log, offsets, "both")
    path = tmp_path / "log.hdf5"
    if layout == "groups":
        write_groups(tmp_path / "log", arrays, offsets)
    elif layout == "checksums":
        with h5py.File(path, "w", libver=("v110", "v110")) as file:
            for name, values in arrays.items():
                file.create_dataset(name, data=values, fletcher32=True)
    else:
        write_hdf5(tmp_path / "log", arrays, offsets, **({"compression": "gzip"} if layout == "compressed" else {}))
    whole, refused = path.read_bytes(), []
    used = len(whole.rstrip(b"\0")) / len(whole)

    @cases(85)
    @example((1993 / len(whole), 255))
    @given(damage)
    def check(where):
        path.write_bytes(damaged(whole, where[0] * used, where[1]))
        read = read_or_refused(read_trajectories, path)
        refused.append(read is None)
        if read is not None:
            assert np.isfinite(read[0].observations).all() and np.abs(read[0].actions).max(initial=0) <= 1
            if layout == "checksums":
                np.testing.assert_array_equal(read[0].observations, log["observations"])
                np.testing.assert_array_equal(read[0].actions, log["actions"].astype(np.float32))

    check()
    assert 0 < np.mean(refused) < 1


@pytest.mark.parametrize("write", [write_npz, write_hdf5, write_groups])
@pytest.mark.parametrize("ends", ["lengths", "dones", "timeouts"])
def test_a_dropped_or_misspelt_key(write, ends, rng, tmp_path):
    log, offsets = base(rng)
    arrays, _ = with_ends(log, offsets, ends)
    for key in arrays:
        for name in (None, key[:-1] + "?", key.upper()):
            changed = {(name if other == key else other): values for other, values in arrays.items()}
            changed.pop(None, None)
            read = read_or_refused(read_trajectories, write(tmp_path / "log", changed, offsets))
            assert (read is None) == (
                key in ("observations", "actions") or (key not in log and write is not write_groups)
            )
            if read is not None:
                np.testing.assert_array_equal(read[0].observations, log["observations"])
                assert read[0].offsets.tolist() == offsets.tolist()


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> tuple[Path, dict[str, bytes], np.ndarray]:
    folder = tmp_path_factory.mktemp("policy")
    network = Policy(make_generators([0], "policy"), 3, 2, (8,))
    checkpoints.save(folder, network, scorer=None, seed=0, task="BallCircle", config={"steps": 3})
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return folder, files, checkpoints.load_policy(folder).act(np.ones((4, 3)))


@pytest.mark.parametrize("name", ["policy.json", "policy.safetensors"])
def test_a_damaged_byte_of_a_checkpoint(name, policy):
    folder, files, acted = policy
    refused = []

    @cases(250)
    @given(damage)
    def check(where):
        (folder / name).write_bytes(damaged(files[name], *where))
        read = read_or_refused(checkpoints.load_policy, folder)
        refused.append(read is None)
        if read is not None:
            np.testing.assert_array_equal(read.act(np.ones((4, 3))), acted)

    try:
        check()
    finally:
        (folder / name).write_bytes(files[name])
    assert 0.1 < np.mean(refused) <= 1


def test_a_dropped_key_of_a_checkpoint(policy):
    folder, files, acted = policy
    described = json.loads(files["policy.json"])

    def paths(value, path=()):
        inner = [found for key in value for found in paths(value[key], (*path, key))] if isinstance(value, dict) else []
        return [path, *inner] if path else inner

    for path in paths(described):
        changed = json.loads(files["policy.json"])
        place = changed
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]
        (folder / "policy.json").write_text(json.dumps(changed))
        if (read := read_or_refused(checkpoints.load_policy, folder)) is not None:
            np.testing.assert_array_equal(read.act(np.ones((4, 3))), acted)
        else:
            assert path[0] == "policy"
    (folder / "policy.json").write_bytes(files["policy.json"])


def test_a_damaged_byte_of_the_json_beside_a_dataset(rng, tmp_path):
    log, offsets = base(rng)
    (tmp_path / "data").mkdir()
    write_groups(tmp_path / "data" / "main_data", log, offsets)
    path = tmp_path / "data" / "metadata.json"
    describe(path, total_episodes=3, total_steps=12, data_format="hdf5", dataset_id="own/x-v0")
    whole = path.read_bytes()

    @cases(200)
    @given(damage)
    def check(where):
        path.write_bytes(damaged(whole, *where))
        if (read := read_or_refused(read_trajectories, tmp_path)) is not None:
            np.testing.assert_array_equal(read[0].observations, log["observations"])
            assert read[0].offsets.tolist() == offsets.tolist()

    check()
