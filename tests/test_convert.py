"""Conversions: the same three episodes in every format come out the same, and what is missing is said."""

from __future__ import annotations

import csv
import re

import h5py
import numpy as np
import pytest

from safemil import datasets
from safemil.config.errors import UserError
from safemil.data import provenance
from safemil.data.convert import convert
from safemil.data.hdf5 import load, read_layout
from safemil.data.tasks import find_task

LENGTHS = (3, 5, 2)
OFFSETS = np.concatenate([[0], np.cumsum(LENGTHS)])


@pytest.fixture
def log(rng) -> dict[str, np.ndarray]:
    """Flat arrays of three episodes: the first two were cut, the third ended by itself."""
    n = OFFSETS[-1]
    ends = np.zeros((2, n), dtype=bool)
    ends[0, 9], ends[1, [2, 7]] = True, True
    return {
        "observations": rng.normal(size=(n, 8)).astype(np.float32),
        "next_observations": rng.normal(size=(n, 8)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (n, 2)).astype(np.float32),
        "rewards": rng.random(n).astype(np.float32),
        "costs": rng.integers(0, 2, n).astype(np.float32),
        "terminals": ends[0],
        "timeouts": ends[1],
    }


def npz(folder, log):
    np.savez(folder / "log.npz", **log)
    return folder / "log.npz"


def hdf5(folder, log):
    with h5py.File(folder / "log.h5", "w") as file:
        for name, values in log.items():
            file["infos/cost" if name == "costs" else name] = values
    return folder / "log.h5"


def minari(folder, log):
    (folder / "pen" / "data").mkdir(parents=True)
    with h5py.File(folder / "pen" / "data" / "main_data.hdf5", "w") as file:
        for index, (start, end) in enumerate(zip(OFFSETS[:-1], OFFSETS[1:], strict=True)):
            group = file.create_group(f"episode_{index}")
            group["observations"] = np.concatenate(
                [log["observations"][start:end], log["next_observations"][end - 1 : end]]
            )
            group["infos/cost"] = np.concatenate([[9.0], log["costs"][start:end]])  # the reset's comes first
            for name, theirs in (("actions", "actions"), ("rewards", "rewards"), ("terminals", "terminations"),
                                 ("timeouts", "truncations")):  # fmt: skip
                group[theirs] = log[name][start:end]
    return folder / "pen"


def csvs(folder, log):
    (folder / "csv").mkdir()
    names = [
        f"{one}_{column}"
        for one, n in (("observation", 8), ("next_observation", 8), ("action", 2))
        for column in range(n)
    ]
    for index, (start, end) in enumerate(zip(OFFSETS[:-1], OFFSETS[1:], strict=True)):
        with (folder / "csv" / f"{index:02d}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*names, "reward", "cost", "terminal", "timeout"])
            for row in range(start, end):
                vectors = [log[name][row] for name in ("observations", "next_observations", "actions")]
                rest = [float(log[name][row]) for name in ("rewards", "costs", "terminals", "timeouts")]
                writer.writerow([*map(float, np.concatenate(vectors)), *rest])
    return folder / "csv"


@pytest.mark.parametrize("write", [npz, hdf5, minari, csvs])
def test_round_trip(write, log, tmp_path):
    output = tmp_path / "out.hdf5"
    report = convert(write(tmp_path, log), output, find_task("BallCircle"))
    assert len(report) == 1 and report[0].endswith("3 trajectories, 10 steps, observations 8, actions 2")
    trajectories, outcomes = load(output)
    np.testing.assert_array_equal(trajectories.offsets, OFFSETS)
    np.testing.assert_array_equal(trajectories.observations, log["observations"])
    np.testing.assert_array_equal(trajectories.actions, log["actions"])
    for name in ("rewards", "costs", "terminals"):
        np.testing.assert_array_equal(getattr(outcomes, name), log[name])
    with h5py.File(output) as file:
        following, timeouts = file["next_observations"][:], file["timeouts"][:]
    np.testing.assert_array_equal(timeouts, log["timeouts"])
    last = OFFSETS[1:] - 1
    np.testing.assert_array_equal(following[last], log["next_observations"][last])


def test_says_what_was_missing(log, tmp_path, capsys):
    del log["costs"], log["next_observations"], log["terminals"], log["timeouts"]
    source, output = npz(tmp_path, log | {"lengths": np.array(LENGTHS)}), tmp_path / "out.hdf5"
    assert datasets.main(["convert", str(source), "--output", str(output)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(";")[0] for line in lines[1:-1]] == [
        "missing: costs",
        "missing: terminals",
        "missing: timeouts",
        "missing: next_observations",
    ]
    assert "neither rewards nor costs are written" in lines[1]
    trajectories, outcomes = load(output)
    assert outcomes is None and trajectories.lengths.tolist() == list(LENGTHS)
    assert read_layout(output).attributes["missing"] == "costs terminals timeouts next_observations"
    assert provenance.origin_of(output, read_layout(output).attributes) == "converted (npz log.npz)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": None}, "no actions; looked for actions, action, acts"),
        ({"terminals": None, "timeouts": None}, "no terminals or timeouts say where episodes end"),
        ({"rewards": np.zeros(4)}, "rewards has 4 rows, but observations 10"),
        ({"observations": np.zeros((10, 4, 4))}, "images are uint8 .n_steps, height, width, channels"),
        (
            {"actions": np.full((10, 2), 30.0)},
            r"10 of 10 rows reach outside \[-1, 1\], from 30 to 30; divide them by their bounds",
        ),
        ({"observations": np.zeros((10, 5))}, "is this the file of another task"),
    ],
)
def test_what_cannot_be_converted(change, message, log, tmp_path):
    changed = {name: values for name, values in (log | change).items() if values is not None}
    if "observations" in change:
        del changed["next_observations"]
    output = tmp_path / "out.hdf5"
    with pytest.raises(UserError, match=message):
        convert(npz(tmp_path, changed), output, find_task("BallCircle"))
    assert not output.exists()


def test_unknown_formats_and_files_in_the_way(log, tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        convert(tmp_path / "nothing", tmp_path / "out.hdf5")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(
        UserError, match="expected .npz, .hdf5, .h5, .csv, .parquet, or a folder of csv, parquet, Minari or LeRobot"
    ):
        convert(tmp_path / "notes.txt", tmp_path / "out.hdf5")
    (tmp_path / "out.hdf5").touch()
    with pytest.raises(UserError, match="exists; remove it, or name another file"):
        convert(npz(tmp_path, log), tmp_path / "out.hdf5")


def refusal(source, tmp_path) -> str:
    """What is said when ``source`` is refused: one line, and nothing is written."""
    with pytest.raises(UserError) as raised:
        convert(source, tmp_path / "out.hdf5")
    assert not (tmp_path / "out.hdf5").exists() and "\n" not in str(raised.value)
    assert str(raised.value).startswith(str(source)) and len(str(raised.value)) < 400 + len(str(source))
    return str(raised.value).removeprefix(str(source))


def frames(log) -> list:
    """The episodes as tables of pandas, next observations left out."""
    pd = pytest.importorskip("pandas")
    columns = {f"observation_{i}": log["observations"][:, i] for i in range(log["observations"].shape[1])}
    columns |= {f"action_{i}": log["actions"][:, i] for i in range(2)}
    columns |= {"reward": log["rewards"], "cost": log["costs"], "terminal": log["terminals"]}
    table = pd.DataFrame(columns)
    return [table[start:end] for start, end in zip(OFFSETS[:-1], OFFSETS[1:], strict=True)]


def write_frames(folder, tables, **options):
    (folder / "csv").mkdir()
    for index, table in enumerate(tables):
        table.to_csv(folder / "csv" / f"{index}.csv", **{"index": False, **options})
    return folder / "csv"


def same_as(log, output):
    trajectories, outcomes = load(output)
    np.testing.assert_array_equal(trajectories.offsets, OFFSETS)
    for name in ("observations", "actions"):
        np.testing.assert_array_equal(getattr(trajectories, name), log[name])
    for name in ("rewards", "costs", "terminals"):
        np.testing.assert_array_equal(getattr(outcomes, name), log[name])


class TestCsv:
    """Spreadsheets and pandas write one and the same table in many ways."""

    @pytest.fixture
    def log(self, log, rng):
        return log | {"observations": rng.normal(size=(10, 12)).astype(np.float32)}  # so that 10 sorts before 2

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"index": True},
            {"encoding": "utf-8-sig"},
            {"sep": ";"},
            {"sep": "\t", "lineterminator": "\r\n"},
            {"quoting": csv.QUOTE_ALL},
            {"float_format": "%.17e"},
        ],
    )
    def test_ways_of_writing(self, options, log, tmp_path):
        convert(write_frames(tmp_path, frames(log), **options), tmp_path / "out.hdf5")
        same_as(log, tmp_path / "out.hdf5")

    @pytest.mark.parametrize("order", ["alphabetical", "reversed", "another in one episode", "from 1 on"])
    def test_columns_go_by_their_numbers(self, order, log, tmp_path):
        tables = frames(log)
        if order == "alphabetical":
            tables = [table[sorted(table)] for table in tables]
        elif order == "reversed":
            tables = [table[list(table)[::-1]] for table in tables]
        elif order == "from 1 on":
            tables = [table.rename(columns=lambda name: re.sub(r"\d+$", lambda n: str(int(n[0]) + 1), name))
                      for table in tables]  # fmt: skip
        else:
            tables[1] = tables[1][list(tables[1])[::-1]]
        convert(write_frames(tmp_path, tables), tmp_path / "out.hdf5")
        same_as(log, tmp_path / "out.hdf5")

    def test_comments_blank_lines_and_hidden_files(self, log, tmp_path):
        folder = write_frames(tmp_path, frames(log))
        text = (folder / "0.csv").read_text()
        (folder / "0.csv").write_text("# recorded on a Monday\n\n" + text.replace("\n", "\n\n") + "\n")
        (folder / "._0.csv").write_bytes(b"\x00\x05\x16\x07")  # as macOS leaves them
        convert(folder, tmp_path / "out.hdf5")
        same_as(log, tmp_path / "out.hdf5")

    def test_episodes_go_by_the_numbers_of_their_files(self, log, tmp_path):
        folder = write_frames(tmp_path, frames(log))
        for old, new in (("2", "11"), ("1", "10"), ("0", "9")):
            (folder / f"{old}.csv").rename(folder / f"episode{new}.csv")
        convert(folder, tmp_path / "out.hdf5")
        same_as(log, tmp_path / "out.hdf5")

    def test_an_episode_of_one_row(self, log, tmp_path):
        tables = frames(log)
        convert(write_frames(tmp_path, [tables[0], tables[1][:1], tables[2]]), tmp_path / "out.hdf5")
        assert load(tmp_path / "out.hdf5")[0].lengths.tolist() == [3, 1, 2]

    def test_what_is_not_used_is_told(self, log, tmp_path):
        tables = [table.assign(battery=0.5, note="calm") for table in frames(log)]
        report = convert(write_frames(tmp_path, tables), tmp_path / "out.hdf5")
        assert "not used: battery, note" in report

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                lambda t: t.drop(columns="observation_3"),
                "columns of observation numbered 0, 1, 2, 4, 5, 6, 7, 8 and 3 mo",
            ),
            (lambda t: t.assign(observation_011=0.0), "columns of observation numbered 0, 1"),
            (lambda t: t.assign(action=0.0), "columns of action numbered not, 0, 1; expected action_0, action_1, .."),
            (
                lambda t: t.assign(obs_0=0.0),
                "observations and obs|observation and obs differ and would both be observatio",
            ),
            (lambda t: t.assign(cost_0=1.0), "2 columns of cost; one number a step is expected, add them up first"),
            (lambda t: t.assign(costs=9.0), "costs and cost differ and would both be costs; keep one"),
            (lambda t: t.assign(cost="much"), "cost: row 0 is 'much', expected a number"),
            (lambda t: t.assign(cost=np.nan), "cost: row 0 is '', expected a number"),
            (lambda t: t.assign(terminal=True), "terminal is 1 in row 0 of 3, inside the episode"),
            (lambda t: t.assign(terminal=2), "terminal: row 0 is 2.0, expected 0 or 1"),
            (lambda t: t[:0], "expected a header and at least one row under it"),
            (lambda t: t.drop(columns=["action_0", "action_1"]), "no actions; looked for actions, action, acts"),
        ],
    )
    def test_tables_with_two_meanings(self, change, message, log, tmp_path):
        tables = frames(log)
        tables[0] = change(tables[0])
        if "inside" in message:
            message = message.replace("terminal is", "terminals is")
        found = refusal(write_frames(tmp_path, tables), tmp_path)
        assert re.search(message, found) and "0.csv" in found, found

    def test_episodes_with_different_columns(self, log, tmp_path):
        tables = frames(log)
        tables[2] = tables[2].drop(columns="cost")
        assert "2.csv has actions 2, observations 12, rewards 1, terminals 1, but 0.csv has" in refusal(
            write_frames(tmp_path, tables), tmp_path
        )

    def test_a_row_cut_short_and_bytes_that_are_no_text(self, log, tmp_path):
        folder = write_frames(tmp_path, frames(log))
        text = (folder / "1.csv").read_text()
        (folder / "1.csv").write_text(text[:-20])
        assert "1.csv: row 4 has" in refusal(folder, tmp_path)
        (folder / "1.csv").write_text(text, encoding="utf-16")
        assert "1.csv: " in refusal(folder, tmp_path)


def with_ends(log, **ends):
    """The flat log with other ends; None leaves one out."""
    return {name: values for name, values in (log | ends).items() if values is not None}


class TestFlat:
    """Flat arrays: only what says clearly where episodes end is taken."""

    @pytest.mark.parametrize("write", [npz, hdf5])
    @pytest.mark.parametrize(
        ("ends", "message"),
        [
            ({"terminals": np.r_[np.zeros(9), np.nan]}, "terminals: row 9 is nan, expected 0 or 1"),
            ({"terminals": np.arange(10)}, "terminals: row 2 is 2, expected 0 or 1"),
            ({"terminals": np.ones(10), "timeouts": None}, "10 episodes of one step, the first in row 0"),
            ({"terminals": np.r_[0, 0, 1, 1, 1, 0, 0, 0, 0, 1]}, "2 episodes of one step, the first in row 3"),
            ({"terminals": 1 - np.r_[0, 0, 0, 0, 0, 0, 0, 0, 0, 1], "timeouts": None}, "episodes of one step"),
            (
                {"terminals": np.zeros(10), "timeouts": None},
                "no episode ends: terminals and timeouts are 0 in every row",
            ),
            ({"terminals": np.zeros((10, 2))}, r"terminals: shape \(10, 2\); one number a step"),
            ({"dones": np.ones(10)}, "dones is neither terminals nor terminals or timeouts; keep those two alone"),
            ({"dones": np.ones(9)}, "dones has 9 rows, terminals 10, timeouts 10"),
            ({"lengths": np.array(LENGTHS), "offsets": np.array([0, 8, 10])}, "are of different episodes; keep one"),
            ({"lengths": np.array([3, 5])}, "lengths: the last episode ends at row 8, but there are 10 rows"),
            ({"lengths": np.array([3, 5, 3])}, "lengths: the last episode ends at row 11, but there are 10 rows"),
            ({"lengths": np.array([2.5, 5, 2.5])}, "lengths: 2.5, 5.0, 2.5; .*in whole numbers"),
            ({"lengths": np.array([3, 0, 5, 2])}, "lengths: 3, 0, 5, 2; .*at least one row"),
            ({"lengths": np.array([3.0, np.nan])}, "lengths: 3.0, nan; .*in whole numbers"),
            ({"offsets": np.array([0, 3, 8])}, "offsets: the last episode ends at row 8, but there are 10 rows"),
            ({"offsets": np.array([3, 8, 10])}, "offsets: 3, 8, 10; expected 0 and the end of each episode"),
            ({"offsets": np.array([0, 8, 3, 10])}, "offsets: 0, 8, 3, 10; expected 0 and"),
            ({"offsets": np.array([0, 4, 10])}, "trajectory 0: timeouts is 1 in row 2 of 4, inside the episode"),
            ({"costs": np.zeros((10, 2))}, r"cost.*: shape \(10, 2\); one number a step is expected, add them up"),
            ({"cost": np.full(10, 7.0)}, "differ and would both be costs; keep one"),
            ({"rewards": np.zeros(11)}, "rewards has 11 rows, but observations 10"),
            ({"rewards": np.float64(3)}, r"rewards: expected an array of numbers, found float64 of shape \(\)"),
        ],
    )
    def test_unclear_episodes(self, write, ends, message, log, tmp_path):
        found = refusal(write(tmp_path, with_ends(log, **ends)), tmp_path)
        assert re.search(message, found), found

    @pytest.mark.parametrize(
        "ends",
        [
            {"lengths": np.array(LENGTHS)},
            {"lengths": np.array(LENGTHS, dtype=float), "terminals": None, "timeouts": None},
            {"offsets": OFFSETS},
            {"terminals": np.r_[np.zeros(9), 1.0].reshape(10, 1)},
            {"offsets": OFFSETS, "lengths": np.array(LENGTHS)},
            {"dones": np.r_[0, 0, 1, 0, 0, 0, 0, 1, 0, 1]},
            {"dones": np.r_[np.zeros(9), 1]},
            {"dones": np.r_[np.zeros(9), 1], "terminals": None},
            {"dones": np.r_[0, 0, 1, 0, 0, 0, 0, 1, 0, 1], "terminals": None},
        ],
    )
    def test_clear_episodes(self, ends, log, tmp_path):
        convert(npz(tmp_path, with_ends(log, **ends)), tmp_path / "out.hdf5")
        terminals = log["terminals"] if "terminals" not in ends or ends["terminals"] is not None else np.zeros(10, bool)
        same_as(log | {"terminals": terminals | (np.arange(10) == 9) * ("dones" in ends)}, tmp_path / "out.hdf5")

    @pytest.mark.parametrize(
        "ends", [{"lengths": np.array([10])}, {"offsets": np.array([0, 10])}, {"timeouts": np.arange(10) == 9}]
    )
    def test_a_single_episode(self, ends, log, tmp_path):
        convert(npz(tmp_path, with_ends(log, **{"terminals": None, "timeouts": None, **ends})), tmp_path / "out.hdf5")
        assert load(tmp_path / "out.hdf5")[0].offsets.tolist() == [0, 10]

    def test_one_step_episodes_where_lengths_say_so(self, log, tmp_path):
        ends = {"terminals": None, "timeouts": None, "lengths": np.r_[1, 1, 8]}
        convert(npz(tmp_path, with_ends(log, **ends)), tmp_path / "out.hdf5")
        assert load(tmp_path / "out.hdf5")[0].lengths.tolist() == [1, 1, 8]

    def test_an_unfinished_tail_is_told(self, log, tmp_path):
        report = convert(npz(tmp_path, with_ends(log, terminals=np.zeros(10))), tmp_path / "out.hdf5")
        assert report[0].endswith("2 trajectories, 8 steps, observations 8, actions 2")
        assert "dropped: the last 2 of 10 rows, an episode without an end" in report
        assert load(tmp_path / "out.hdf5")[0].lengths.tolist() == [3, 5]

    @pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:100] + bytes(900)])
    @pytest.mark.parametrize("write", [npz, hdf5])
    def test_damaged(self, write, damage, log, tmp_path):
        path = write(tmp_path, log)
        path.write_bytes(damage(path.read_bytes()))
        assert re.search("cannot be read|damaged|not an HDF5 file|is empty", refusal(path, tmp_path))


class TestValues:
    @pytest.mark.parametrize(
        ("actions", "message"),
        [
            (np.arange(10) % 4, "whole numbers from 0 to 3 in one column are discrete choices"),
            (np.arange(10).reshape(10, 1) % 2, "whole numbers from 0 to 1 in one column"),
            (np.arange(10.0) % 2, "whole numbers from 0 to 1 in one column"),
            (np.arange(10) % 2 == 0, "discrete choices; vectors of real numbers"),
            (np.linspace(-2, 2, 20).reshape(10, 2), r"6 of 10 rows reach outside \[-1, 1\], from -2 to 2"),
            (np.full((10, 2), 1.001), "10 of 10 rows reach outside"),
            (
                np.linspace(0, 255, 20).reshape(10, 2),
                "from 0 to 255; divide them by their bounds .--action-bounds., or clip them",
            ),
            (np.full((10, 2), np.nan), "actions: row 0 holds NaN or infinity"),
            (np.full((10, 2), np.inf), "10 of 10 rows reach outside"),
            (np.full((10, 2), 1j), "actions: expected an array of numbers, found complex128"),
        ],
    )
    def test_actions(self, actions, message, log, tmp_path):
        found = refusal(npz(tmp_path, log | {"actions": actions}), tmp_path)
        assert re.search(message, found), found

    def test_rounding_beyond_one_and_whole_numbers_in_several_columns(self, log, tmp_path):
        actions = np.tile([1 + 1e-6, -1.0], (10, 1))
        convert(npz(tmp_path, log | {"actions": actions}), tmp_path / "out.hdf5")
        assert load(tmp_path / "out.hdf5")[0].actions.tolist() == [[1, -1]] * 10

    @pytest.mark.parametrize("name", ["observations", "next_observations", "rewards"])
    @pytest.mark.parametrize("values", [1.7e9 + np.arange(10), 2**40 + np.arange(10), 5e6 + np.linspace(0, 1, 10)])
    def test_large_numbers_that_float32_would_make_equal(self, name, values, log, tmp_path):
        changed = values if name == "rewards" else np.column_stack([np.zeros((10, 7)), values])
        found = refusal(npz(tmp_path, log | {name: changed}), tmp_path)
        column = 0 if name == "rewards" else 7
        assert f"{name}: column {column} runs from" in found and "subtract an offset" in found
        path = tmp_path / "mine.hdf5"
        with h5py.File(path, "w") as file:
            for key, array in (log | {name: changed}).items():
                file[key] = array
        if name != "next_observations":  # which are not read
            with pytest.raises(UserError, match=f"mine.hdf5: '{name}': column {column} runs from"):
                load(path)

    def test_large_numbers_that_float32_keeps(self, log, tmp_path):
        observations = np.column_stack([np.arange(10) * 1e9, np.full(10, 1.7e9), np.arange(10, dtype=float)])
        del log["next_observations"]
        convert(npz(tmp_path, log | {"observations": observations}), tmp_path / "out.hdf5")
        np.testing.assert_allclose(load(tmp_path / "out.hdf5")[0].observations, observations, rtol=1e-7)


class TestMinari:
    @pytest.mark.parametrize(
        ("key", "values", "message"),
        [
            ("terminations", np.r_[False, True, False, False, False], "episode_1: terminals is 1 in row 1 of 5"),
            ("rewards", np.zeros(4), "episode_1: rewards has 4 rows, but actions 5"),
            ("observations", np.zeros((7, 8)), "episode_1: observations has 7 rows, but actions 5"),
            ("infos/cost", None, "episode_1 has .*, but episode_0 has .*costs"),
            ("actions", None, "episode_1: no actions; looked for"),
            ("actions", np.zeros((5, 3)), "episode_1 has actions 3, .*but episode_0 has actions 2"),
        ],
    )
    def test_an_episode_that_does_not_fit(self, key, values, message, log, tmp_path):
        folder = minari(tmp_path, log)
        with h5py.File(folder / "data" / "main_data.hdf5", "r+") as file:
            del file[f"episode_1/{key}"]
            if values is not None:
                file[f"episode_1/{key}"] = values
        found = refusal(folder, tmp_path)
        assert re.search(message, found), found
