"""SafeMIL and the baselines as objects: from arrays to a policy, a cost, a ranking, and back from disk."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import baselines
from baselines.registry import LABEL_LIMITED, METHODS
from safemil import SafeMIL, Trajectories, load_policy
from safemil.api import fit_packed
from safemil.config.errors import UserError
from safemil.data.hdf5 import save
from tests.conftest import SAFE_ACTION, UNSAFE_ACTION, toy_dataset

QUICK = {"steps": 150, "hidden": (32,), "learning_rate": 0.01}
BAGS = {"bag_size": 16, "segment_length": 5}


def episodes(unsafe: bool, n: int, first: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Toy trajectories of one kind."""
    data, _ = toy_dataset(2 * (n + first))
    chosen = np.arange(int(unsafe), len(data), 2)[first : first + n]
    return [(data.observations[data.rows([i])], data.actions[data.rows([i])]) for i in chosen]


@pytest.fixture(scope="module")
def sets():
    return episodes(True, 20), episodes(True, 20, first=20) + episodes(False, 40)


@pytest.fixture(scope="module")
def model(sets):
    return SafeMIL(**BAGS, **QUICK).fit(*sets)


def test_the_policy_is_safe_and_the_ranking_true(model, sets):
    observations = sets[1][0][0]
    assert model.predict(observations)[:, 0].mean() < SAFE_ACTION + 0.2
    ranking = model.rank(sets[1])
    assert sorted(ranking.indices) == list(range(60)) and set(ranking.indices[:40]) == set(range(20, 60))
    assert (np.diff(ranking.costs) >= 0).all() and (np.diff(ranking.weights) <= 0).all()
    unsafe, safe = (np.array([[first, 0.0]] * len(observations)) for first in (UNSAFE_ACTION, SAFE_ACTION))
    assert model.cost(observations, unsafe).mean() > model.cost(observations, safe).mean() + 0.2


def test_it_says_in_words_how_well_it_worked(model):
    said = model.summary()
    assert "40 look safe" in said and "20 look like the known-bad ones" in said and "4 lie among the latter" in said
    assert "AUROC 0." in said and "95 % interval" in said


def test_training_ends_by_itself_unless_the_number_of_updates_is_fixed(sets):
    """Three thousand updates at most; the toy needs a few hundred. Equal settings without the rule take all of them."""
    taken = {}
    for early_stopping in (True, False):
        seen: dict[str, int] = {}
        quick = {**QUICK, "steps": 3_000, "bag_size": 4}

        def log(stage, step, metrics, seen=seen):
            seen[stage] = step

        fitted = SafeMIL(**quick, early_stopping=early_stopping, log=log)
        fitted.fit(*sets)
        taken[early_stopping] = seen
        assert fitted.predict(sets[1][0][0])[:, 0].mean() < SAFE_ACTION + 0.2
        assert ("policy_updates" in fitted.result.extra) == early_stopping
    assert taken[False] == {"cost_model": 3_000, "policy": 3_000}
    assert all(1_000 <= step < 2_500 for step in taken[True].values())


def test_saved_and_loaded_it_is_the_same(model, sets, tmp_path):
    model.save(tmp_path / "policy")
    again = SafeMIL.load(tmp_path / "policy")
    observations, actions = sets[1][0]
    assert again.config == model.config
    np.testing.assert_array_equal(again.predict(observations), model.predict(observations))
    np.testing.assert_array_equal(again.cost(observations, actions), model.cost(observations, actions))
    np.testing.assert_array_equal(again.rank(sets[1]).weights, model.rank(sets[1]).weights)
    np.testing.assert_array_equal(load_policy(tmp_path / "policy").act(observations), model.predict(observations))
    with pytest.raises(UserError, match="a policy of safemil, not of dwbc"):
        baselines.DWBC.load(tmp_path / "policy")


def test_lists_arrays_and_files_are_the_same_trajectories(sets, tmp_path):
    from_list = Trajectories.from_episodes(sets[0])
    save(tmp_path / "bad.hdf5", from_list, None, {})
    from_file = Trajectories.from_file(tmp_path / "bad.hdf5")
    arrays = Trajectories(from_list.observations, from_list.actions, from_list.offsets)
    for other in (from_file, arrays):
        np.testing.assert_array_equal(other.observations, from_list.observations)
        np.testing.assert_array_equal(other.actions, from_list.actions)
        np.testing.assert_array_equal(other.offsets, from_list.offsets)


def test_a_pack_is_what_each_is_alone(sets):
    packed = [SafeMIL(seed=seed, **BAGS, **QUICK) for seed in (0, 1)]
    fit_packed(packed, *sets)
    alone = SafeMIL(seed=1, **BAGS, **QUICK).fit(*sets)
    observations = sets[1][0][0]
    np.testing.assert_allclose(packed[1].predict(observations), alone.predict(observations), atol=2e-4)
    with pytest.raises(UserError, match="differ in their seeds alone"):
        fit_packed([SafeMIL(), SafeMIL(bag_size=8)], *sets)


@pytest.mark.parametrize("name", [method.settings.removesuffix("Config") for method in map(METHODS.get, LABEL_LIMITED)])
def test_every_label_limited_method_is_an_object(name, sets):
    kind = SafeMIL if name == "SafeMIL" else getattr(baselines, name)
    model = kind(**{**QUICK, "steps": 30}).fit(*sets)
    observations, actions = sets[1][0]
    assert model.predict(observations).shape == actions.shape
    if name == "BC":
        with pytest.raises(UserError, match="without a score"):
            model.rank(sets[1])
    else:
        assert np.isfinite(model.rank(sets[1]).costs).all()


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda good: SafeMIL(bag_sice=3), "unknown setting 'bag_sice'; nearest: bag_size"),
        (lambda good: SafeMIL(bag_size=0), "bag_size=0: expected at least 1"),
        (lambda good: SafeMIL().predict(good[0][0]), "has not been fitted"),
        (lambda good: SafeMIL().summary(), "has not been fitted"),
        (lambda good: SafeMIL(seed=-1), "seed -1: expected a whole number from 0"),
        (lambda good: SafeMIL(seed=1.5), "seed 1.5: expected a whole number"),
        (lambda good: SafeMIL(seed=True), "seed True"),
        (lambda good: SafeMIL(device="gpu"), "device 'gpu': expected cpu, cuda, or cuda:N"),
        (lambda good: SafeMIL(device="mps"), "device 'mps': expected cpu, cuda"),
        (lambda good: SafeMIL(device="cuda:99"), "device 'cuda:99': this machine has"),
        (lambda good: SafeMIL(device=3.5), "device 3.5: expected cpu"),
        (lambda good: SafeMIL().fit(good, good[:2]), "there are 2 trajectories in the unlabeled set; at least 3"),
        (lambda good: SafeMIL().fit(good[:1], good), "there is 1 trajectory in the non-preferred set; at least 3"),
        (
            lambda good: SafeMIL().fit([(a, b[:, :1]) for a, b in good], good),
            "non-preferred trajectories have action_dim 1",
        ),
        (lambda good: Trajectories.from_episodes([]), "no trajectories were given"),
        (lambda good: Trajectories.from_episodes([(good[0][0], good[0][1][1:])]), "trajectory 0 has"),
        (lambda good: Trajectories.from_file("nowhere.hdf5"), "no such file"),
    ],
)
def test_mistakes_are_explained(mistake, message, sets):
    with pytest.raises(UserError, match=message):
        mistake(sets[0])


def test_the_readme_s_example_runs_as_written(tmp_path):
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    code = readme.split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) <= 13
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    action, ranked = shown.splitlines()
    assert abs(float(action.strip("[]").split()[0]) + 0.6) < 0.15
    assert all(int(index) >= 40 for index in ranked.strip("[]").split())
    assert (tmp_path / "policy" / "policy.safetensors").exists()


def test_importing_safemil_is_cheap():
    code = "import safemil, sys; print(sorted({'torch', 'numpy', 'pydantic'} & set(sys.modules)), dir(safemil)[:0])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.split("]")[0] == "["
    with pytest.raises(AttributeError, match="has no attribute 'SafeMill'"):
        import safemil

        safemil.SafeMill  # noqa: B018
