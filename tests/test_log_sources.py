"""Logs of other libraries: one log, written in the layout of each, is read as the same by every command."""

from __future__ import annotations

import subprocess
import sys

import h5py
import numpy as np
import pytest

from safemil.api import SafeMIL, Trajectories
from safemil.config.errors import UserError
from safemil.data.convert import convert
from safemil.data.hdf5 import load
from safemil.data.logs.reading import read_trajectories
from safemil.train import main as train
from tests import log_files
from tests.conftest import ENVIRONMENT, run_python
from tests.log_files import LENGTHS, OFFSETS, make_log

KEYS = {"robomimic": ("robot0_eef_pos", "object")}
WITHOUT = {  # what a format does not hold
    "robomimic": ("terminals",), "imitation": ("next_observations",), "lerobot": ("next_observations",),
    "lerobot_2": ("next_observations",), "baselines_expert": ("next_observations", "terminals"),
}  # fmt: skip
FULL_NEXT = ("npz", "hdf5", "csvs", "robomimic", "baselines_3_buffer", "table", "tables", "one_csv")
ARROW = ("minari_arrow", "minari_parquet", "lerobot", "lerobot_2", "imitation", "table", "tables", "one_csv")
SOURCES = (
    "npz", "hdf5", "csvs", "minari", "robomimic", "maniskill", "baselines_expert", "baselines_3_buffer",
    *(pytest.param(name, marks=pytest.mark.study) for name in ARROW),
)  # fmt: skip


@pytest.fixture
def log(rng):
    return make_log(rng)


def write(name, folder, log):
    return getattr(log_files, name)(folder, log)


@pytest.mark.parametrize("name", SOURCES)
def test_the_same_log_from_every_library(name, log, tmp_path):
    source, output = write(name, tmp_path, log), tmp_path / "out.hdf5"
    report = convert(source, output, observation_keys=KEYS.get(name, ()))
    assert report[0].endswith("3 trajectories, 10 steps, observations 8, actions 2"), report
    trajectories, outcomes = load(output)
    np.testing.assert_array_equal(trajectories.offsets, OFFSETS)
    for key in ("observations", "actions"):
        np.testing.assert_array_equal(getattr(trajectories, key), log[key])
    for key in ("rewards", "costs", "terminals"):
        expected = np.zeros(10) if key in WITHOUT.get(name, ()) else log[key]
        if key == "terminals" and name.startswith("lerobot"):
            expected = log["terminals"] | log["timeouts"]  # next.done holds both
        np.testing.assert_array_equal(getattr(outcomes, key), expected)
    with h5py.File(output) as file:
        following, last = file["next_observations"][:], OFFSETS[1:] - 1
    if name in FULL_NEXT:
        np.testing.assert_array_equal(following, log["next_observations"])
    elif "next_observations" not in WITHOUT.get(name, ()):
        np.testing.assert_array_equal(following[last], log["next_observations"][last])


@pytest.mark.parametrize("name", SOURCES)
def test_training_reads_what_convert_reads_and_no_outcomes(name, log, tmp_path):
    source = write(name, tmp_path, log | {"rewards": np.full(10, np.nan), "costs": np.full(10, np.nan)})
    read = Trajectories.from_file(source, KEYS.get(name, ()))
    np.testing.assert_array_equal(read.observations, log["observations"])
    np.testing.assert_array_equal(read.actions, log["actions"])
    np.testing.assert_array_equal(read.offsets, OFFSETS)
    _, seen = read_trajectories(source, KEYS.get(name, ()))
    assert not {"rewards", "costs", "next_observations"} & seen.columns.keys()


def test_the_command_trains_on_two_formats_at_once(log, tmp_path, rng):
    many = {"observations": rng.normal(size=(120, 8)), "actions": rng.uniform(-1, 1, (120, 2))}
    np.savez(tmp_path / "logs.npz", **many, lengths=np.full(12, 10))
    with h5py.File(tmp_path / "bad.hdf5", "w") as file:
        for number in range(6):
            demo = file.create_group(f"data/demo_{number}")
            demo["obs/a"], demo["obs/b"] = rng.normal(size=(10, 5)), rng.normal(size=(10, 3))
            demo["actions"] = rng.uniform(-1, 1, (10, 2))
    steps = ["--set", "cost_model.steps=2", "policy.steps=2", "cost_model.bag_size=2", "cost_model.segment_length=3"]
    files = ["--non-preferred", str(tmp_path / "bad.hdf5"), "--unlabeled", str(tmp_path / "logs.npz")]
    assert train([*files, "--out", str(tmp_path / "no"), *steps]) == 2  # several keys and none chosen
    keyed = {"a": many["observations"][:, :5], "b": many["observations"][:, 5:], "actions": many["actions"]}
    np.savez(tmp_path / "logs.npz", **keyed, lengths=np.full(12, 10))
    assert train([*files, "--observation-keys", "a", "b", "--out", str(tmp_path / "out"), *steps]) == 0
    assert SafeMIL.load(tmp_path / "out" / "seed-0").predict(np.zeros((1, 8))).shape == (1, 2)


@pytest.mark.study
def test_a_pandas_frame(log):
    whole = log_files.frame(log)
    read = Trajectories.from_file(whole)
    np.testing.assert_array_equal(read.observations, log["observations"])
    np.testing.assert_array_equal(read.offsets, OFFSETS)
    vectors = whole[["episode"]].assign(observation=list(log["observations"]), action=list(log["actions"]))
    np.testing.assert_array_equal(Trajectories.from_file(vectors).actions, log["actions"])
    with pytest.raises(UserError, match="the frame: no actions"):
        Trajectories.from_file(vectors.drop(columns="action"))


class TestObservationKeys:
    def keyed(self, folder, log):
        with h5py.File(folder / "log.h5", "w") as file:
            for name in ("actions", "terminals", "timeouts"):
                file[name] = log[name]
            file["observations/arm/position"], file["observations/goal"] = log["observations"][:, :6], np.arange(10)
            file["observations/camera"] = np.zeros((10, 2, 2, 3), dtype=np.uint8)
            file["observations/task"] = h5py.Empty("f")
        return folder / "log.h5"

    def test_side_by_side_in_the_order_given(self, log, tmp_path):
        path = self.keyed(tmp_path, log)
        read = Trajectories.from_file(path, ("goal", "arm/position"))
        np.testing.assert_array_equal(read.observations, np.column_stack([np.arange(10), log["observations"][:, :6]]))
        np.testing.assert_array_equal(Trajectories.from_file(path, ["goal"]).observations[:, 0], np.arange(10))

    @pytest.mark.parametrize(
        ("keys", "message"),
        [
            ((), r"observations are 3 arrays, arm/position \(6\), camera \(2x2x3\), goal \(1\); choose with --obs"),
            (("gaol",), r"no observation key 'gaol'; there are arm/position \(6\), camera \(2x2x3\), goal \(1\)"),
            (("goal", "camera"), r"camera: shape \(10, 2, 2, 3\); only vectors go side by side; an image is alone"),
        ],
    )
    def test_a_choice_is_needed(self, keys, message, log, tmp_path):
        with pytest.raises(UserError, match=message) as raised:
            Trajectories.from_file(self.keyed(tmp_path, log), keys)
        assert "\n" not in str(raised.value)

    def test_a_single_key_needs_none_and_other_arrays_can_be_chosen(self, log, tmp_path):
        with h5py.File(tmp_path / "log.h5", "w") as file:
            for name in ("actions", "terminals", "timeouts"):
                file[name] = log[name]
            file["obs/state"], file["infos/qpos"] = log["observations"], np.arange(10.0)
        np.testing.assert_array_equal(Trajectories.from_file(tmp_path / "log.h5").observations, log["observations"])
        both = Trajectories.from_file(tmp_path / "log.h5", ["infos/qpos", "state"]).observations
        np.testing.assert_array_equal(both, np.column_stack([np.arange(10), log["observations"]]))

    def test_minari_dictionaries_with_the_observation_after_the_last(self, log, tmp_path):
        folder = log_files.minari(tmp_path, log)
        with h5py.File(folder / "data" / "main_data.hdf5", "r+") as file:
            for group in file.values():
                values = group["observations"][:]
                del group["observations"]
                group["observations/observation"], group["observations/desired_goal"] = values[:, :5], values[:, 5:]
        output = tmp_path / "out.hdf5"
        convert(folder, output, observation_keys=("desired_goal", "observation"))
        order = [5, 6, 7, 0, 1, 2, 3, 4]
        np.testing.assert_array_equal(load(output)[0].observations, log["observations"][:, order])
        with h5py.File(output) as file:
            last = OFFSETS[1:] - 1
            np.testing.assert_array_equal(file["next_observations"][:][last], log["next_observations"][last][:, order])


class TestActionBounds:
    @pytest.mark.parametrize(("bounds", "divisors"), [((50,), [50, 50]), ((50, 2), [50, 2])])
    def test_actions_are_divided_and_it_is_said(self, bounds, divisors, log, tmp_path):
        actions = log["actions"].astype(np.float64) * divisors
        source, output = write("npz", tmp_path, log | {"actions": actions}), tmp_path / "out.hdf5"
        report = convert(source, output, action_bounds=bounds)
        np.testing.assert_allclose(load(output)[0].actions, log["actions"], atol=1e-7)
        assert f"actions were divided by {' '.join(map(str, bounds))}" in report
        with h5py.File(output) as file:
            assert file.attrs["actions_divided_by"] == " ".join(map(str, bounds))

    @pytest.mark.parametrize(
        ("bounds", "message"),
        [
            ((), r"rows reach outside \[-1, 1\].*divide them by their bounds \(--action-bounds\)"),
            ((2.0,), r"rows reach outside \[-1, 1\].*give wider bounds"),
            ((50, 50, 50), "3 action bounds for 2 actions; expected one, or one for each action"),
            ((-50,), "action bounds -50: expected numbers above 0"),
            ((np.inf,), "action bounds inf: expected numbers above 0"),
        ],
    )
    def test_bounds_that_do_not_fit(self, bounds, message, log, tmp_path):
        source = write("npz", tmp_path, log | {"actions": log["actions"] * 50})
        with pytest.raises(UserError, match=message):
            Trajectories.from_file(source, (), bounds)


@pytest.mark.study
class TestLeRobot:
    def spoil(self, folder, change):
        import pyarrow
        import pyarrow.parquet

        path = sorted(folder.rglob("*.parquet"))[0]
        pyarrow.parquet.write_table(pyarrow.table(change(pyarrow.parquet.read_table(path).to_pydict())), path)

    @pytest.mark.parametrize(
        ("column", "value", "message"),
        [
            ("frame_index", [0, 1, 3, 0, 1, 2, 3, 4], "frame_index goes from 1 to 3 in row 2; rows in order, none"),
            ("frame_index", [0, 1, 1, 0, 1, 2, 3, 4], "frame_index goes from 1 to 1 in row 2"),
            ("next.done", [True] * 8, "terminals is 1 in row 0 of 3, inside the episode"),
            ("episode_index", [0, 0, 0, 1, 1, 1, 1, 2], "episode_index 2 is in another file as well"),
            ("action", [[0.0, 0.0]] * 7 + [[0.0]], "action: expected an array of numbers, found object"),
            ("episode_index", [0.5] * 8, "episode_index: expected a whole number in each row"),
        ],
    )
    def test_rows_that_do_not_fit(self, column, value, message, log, tmp_path):
        folder = log_files.lerobot(tmp_path, log)
        drop = () if column == "next.done" else ("next.done",)
        self.spoil(folder, lambda table: {**{k: v for k, v in table.items() if k not in drop}, column: value})
        for path in sorted(folder.rglob("*.parquet"))[1:]:
            if drop:
                import pyarrow.parquet

                pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).drop_columns(list(drop)), path)
        with pytest.raises(UserError, match=message):
            Trajectories.from_file(folder)

    def test_a_file_that_was_not_fetched(self, log, tmp_path):
        folder = log_files.lerobot_2(tmp_path, log)
        sorted(folder.rglob("*.parquet"))[1].unlink()
        with pytest.raises(UserError, match="2 episodes found, but meta/info.json says 3; is a file missing?"):
            Trajectories.from_file(folder)
        for path in folder.rglob("*.parquet"):
            path.unlink()
        with pytest.raises(UserError, match="no data/./..parquet; the dataset was fetched without its data"):
            Trajectories.from_file(folder)

    def test_episodes_in_turns(self, log, tmp_path):
        """Rows of several episodes in turns, as parallel environments log them."""
        order = np.argsort(np.concatenate([np.arange(n) for n in LENGTHS]), kind="stable")
        log_files.frame(log).iloc[order].to_parquet(tmp_path / "turns.parquet")
        read = Trajectories.from_file(tmp_path / "turns.parquet")
        np.testing.assert_array_equal(read.observations, log["observations"])


@pytest.mark.study
@pytest.mark.parametrize("name", ["minari_arrow", "minari_parquet"])
def test_a_minari_episode_that_was_not_fetched(name, log, tmp_path):
    folder = write(name, tmp_path, log)
    next((folder / "data" / "1").glob("part-0*")).unlink()
    with pytest.raises(UserError, match="1: 0 files; expected one part-0 in each episode's folder"):
        Trajectories.from_file(folder)
    (folder / "data" / "1" / "metadata.json").unlink()
    (folder / "data" / "1").rmdir()
    with pytest.raises(UserError, match="2 episodes found, but metadata.json says 3"):
        Trajectories.from_file(folder)


def test_a_minari_group_that_is_missing(log, tmp_path):
    folder = write("minari", tmp_path, log)
    with h5py.File(folder / "data" / "main_data.hdf5", "r+") as file:
        del file["episode_1"]
    with pytest.raises(UserError, match="2 episodes, but metadata.json says 3"):
        Trajectories.from_file(folder)


def test_demos_go_by_their_numbers_and_dones_are_not_their_ends(log, tmp_path):
    report = convert(write("robomimic", tmp_path, log), tmp_path / "out.hdf5", observation_keys=KEYS["robomimic"])
    assert any(line.startswith("not used: ") and line.endswith("states") for line in report), report
    assert "not used: dones, which mark success, the end or both" in report
    np.testing.assert_array_equal(load(tmp_path / "out.hdf5")[0].lengths, LENGTHS)


class TestBuffers:
    """Arrays of several environments at once."""

    def test_an_unfinished_rest_is_told(self, log, tmp_path, caplog):
        Trajectories.from_file(write("baselines_3_buffer", tmp_path, log))
        assert "environment 1: dropped: the last 6 of 8 rows, an episode without an end" in caplog.text

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"dones": None, "timeouts": None}, r"of shape \(8, 2, 8\): for episodes of equal length, make it two"),
            ({"rewards": np.zeros(8)}, "expected the same of all"),
            ({"dones": np.zeros((8, 2)), "timeouts": np.zeros((8, 2))}, "environment 0: no episode ends"),
            ({"dones": np.tile([0, 1], (8, 1)), "timeouts": None}, "environment 0: no episode ends"),
        ],
    )
    def test_unclear(self, change, message, log, tmp_path):
        path = write("baselines_3_buffer", tmp_path, log)
        with np.load(path) as arrays:
            changed = {**arrays, **change}
        np.savez(path, **{name: values for name, values in changed.items() if values is not None})
        with pytest.raises(UserError, match=message):
            convert(path, tmp_path / "out.hdf5")

    @pytest.mark.parametrize("starts", [np.zeros(10), np.r_[0, np.ones(9)], np.full(10, 2), np.ones(9)])
    def test_starts_that_are_none(self, starts, log, tmp_path):
        path = write("baselines_expert", tmp_path, log)
        with np.load(path) as arrays:
            np.savez(path, **{**arrays, "episode_starts": starts})
        with pytest.raises(UserError, match="episode_starts: "):
            Trajectories.from_file(path)


@pytest.mark.parametrize("indices", [[8, 3], [0, 3], [3, 10], [3, 11], [3], [3, 8, 9]])
def test_imitations_indices(indices, log, tmp_path):
    path = log_files.imitation_npz(tmp_path, {**log})
    np.testing.assert_array_equal(Trajectories.from_file(path).observations, log["observations"])
    with np.load(path, allow_pickle=True) as arrays:
        np.savez(path, **{**arrays, "indices": np.array(indices)})
    with pytest.raises(UserError, match="indices: expected|expected one observation more"):
        Trajectories.from_file(path)


class TestTables:
    def test_episodes_by_any_column_and_words(self, log, tmp_path):
        pd = pytest.importorskip("pandas")
        whole = log_files.frame(log).rename(columns={"episode": "traj_id"})
        whole["traj_id"] = "run" + pd.Series(np.repeat([9, 10, 11], LENGTHS)).astype(str)
        whole.to_csv(tmp_path / "all.csv", index=False)
        read = Trajectories.from_file(tmp_path / "all.csv")
        np.testing.assert_array_equal(read.offsets, OFFSETS)
        np.testing.assert_array_equal(read.observations, log["observations"])

    def test_flags_of_ends_without_a_column_of_episodes(self, log, tmp_path):
        pytest.importorskip("pandas")
        log_files.frame(log).drop(columns="episode").to_csv(tmp_path / "all.csv", index=False)
        assert Trajectories.from_file(tmp_path / "all.csv").offsets.tolist() == OFFSETS.tolist()

    def test_keys_in_columns(self, log, tmp_path):
        pytest.importorskip("pandas")
        renamed = (
            log_files.frame(log)
            .filter(regex="^(?!next)")
            .rename(columns=lambda name: name.replace("obs_", "obs.joint_"))
        )
        renamed.assign(**{"obs.goal": 1.0}).to_csv(tmp_path / "all.csv", index=False)
        read = Trajectories.from_file(tmp_path / "all.csv", ["joint", "goal"])
        np.testing.assert_array_equal(read.observations, np.column_stack([log["observations"], np.ones(10)]))

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("a,a\n1,2", "two columns are called 'a'; keep one"),
            ("action_0,obs_0,done\n1_0,2,1", "action_0: row 0 is '1_0', expected a number"),
            ("action_0,obs_0,done\n\uff11,2,1", "action_0: row 0 is '\uff11', expected a number"),
            ("action_0,obs_0,done\n.1,2,0\n#.1,2,0\n.1,3,1", "row 1 is '#.1', expected a number"),
            ("obs_0,done\n.1,1", "no actions; looked for"),
            ("r,l,t\n1,200,3.5", "no observations; looked for .* .found r, l, t"),
        ],
    )
    def test_unclear(self, line, message, tmp_path):
        (tmp_path / "x.csv").write_text(line + "\n", encoding="utf-8")
        with pytest.raises(UserError, match=message):
            Trajectories.from_file(tmp_path / "x.csv")


@pytest.mark.parametrize("name", ["x.pkl", "x.pt", "x.npy", "x.joblib"])
def test_pickles_are_not_opened(name, tmp_path):
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(UserError, match="may hold a pickle, which runs code as it is read, and is not opened"):
        Trajectories.from_file(tmp_path / name)


def test_without_pyarrow_it_is_one_line(log, tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    (tmp_path / "meta").mkdir()
    script = """
import sys
sys.modules["pyarrow"] = sys.modules["pandas"] = None
from safemil.train import main
sys.exit(main(["--non-preferred", "x.parquet", "--unlabeled", "x.parquet", "--out", "o"]))
"""
    shown = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert (
        shown.returncode == 2 and "reading Parquet and Arrow files needs pyarrow: pip install pyarrow" in shown.stderr
    )
    assert shown.stderr.count("\n") == 1


def test_reading_hdf5_and_npz_imports_neither_pandas_nor_pyarrow(log, tmp_path):
    paths = [str(write(name, tmp_path, log)) for name in ("npz", "hdf5", "csvs")]
    script = f"""
import sys
from safemil.data.logs.reading import read_trajectories
for path in {paths}:
    read_trajectories(path)
assert not {{"pyarrow", "pandas", "torch"}} & set(sys.modules)
"""
    assert run_python("-c", script).returncode == 0


def test_json_beside_the_data_that_is_damaged(log, tmp_path):
    folder = write("minari", tmp_path, log)
    for content in ("{", "[]", "\xff", '{"total_episodes": ' + "[" * 100_000):
        (folder / "data" / "metadata.json").write_text(content, encoding="latin-1")
        with pytest.raises(UserError, match="metadata.json: (not json|expected an object)") as raised:
            Trajectories.from_file(folder)
        assert len(str(raised.value)) < 300 + len(str(folder))
