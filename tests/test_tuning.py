"""Equal tuning: as many settings for each method, the best by the label-free AUROC alone, taken by the paper grid."""

import json

import pytest

from baselines.registry import METHODS
from safemil.config.errors import UserError
from tune import tuning
from tune.files import write_json
from tune.grids import GRIDS, TUNING
from tune.trials import expand


def fabricated_run(folder, scores):
    """A finished tuning run of two methods: ``scores(method, number of the point, seed)``."""
    trials = expand(GRIDS["tuning"], tasks=["BallCircle"], methods=["safemil", "dwbc"], seeds=[100, 101])
    numbers: dict[tuple[str, int], int] = {}
    for trial in trials:
        number = numbers[trial.method, trial.seed] = numbers.get((trial.method, trial.seed), -1) + 1
        write_json(folder / "trials" / trial.id / "config.json", trial.to_dict())
        row = {"task": trial.task, "method": trial.method, "auroc_unlabeled": scores(trial.method, number, trial.seed)}
        write_json(folder / "trials" / trial.id / "row.json", row)
    write_json(folder / "run.json", {"trials": [trial.id for trial in trials], "command": "python tune/run.py ..."})
    return trials


@pytest.fixture
def own_store(tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "STORE", tmp_path / "tuned.json")
    tuning.store.cache_clear()
    yield tmp_path / "tuned.json"
    tuning.store.cache_clear()


def test_every_label_limited_method_with_a_score_has_as_many_settings():
    assert len({len(points) for points in TUNING.values()}) == 1
    limited = {name for name, method in METHODS.items() if not method.oracle}
    assert limited - set(TUNING) == {"bc-all"}
    for name, points in TUNING.items():
        trials = expand(GRIDS["tuning"], tasks=["BallCircle"], methods=[name], seeds=[100])
        assert len(trials) == len(points)  # none of them is another's double


def test_the_best_mean_is_stored_and_the_paper_grid_takes_it(tmp_path, own_store, capsys):
    best = {"safemil": 3, "dwbc": 4}
    by_seed = {100: 0.2, 101: 0.0}  # the winner is not the best of every seed
    fabricated_run(tmp_path / "run", lambda m, n, s: 0.6 + (n == best[m]) * 0.1 + by_seed[s] * (n == 1) * 0.5)
    assert tuning.main([str(tmp_path / "run")]) == 0
    stored = json.loads(own_store.read_text())["settings"]["BallCircle"]
    assert stored["dwbc"] == {"eta": 0.7, "period": 1}
    assert stored["safemil"] == {"cost_model.learning_rate": 3e-4, "cost_model.weight_decay": 0.01}
    tuning.store.cache_clear()
    for task, eta in (("BallCircle", 0.7), ("BallRun", 0.5)):  # only the task it was tuned on
        (trial,) = expand(GRIDS["paper"], tasks=[task], methods=["dwbc"], seeds=[0])
        assert trial.config.eta == eta
    (trial,) = expand(GRIDS["paper"], tasks=["BallCircle"], methods=["dwbc"], seeds=[0], settings={"eta": 0.1})
    assert trial.config.eta == 0.1
    (trial,) = expand(GRIDS["ablation"], tasks=["BallCircle"], methods=["dwbc"], seeds=[0])
    assert trial.config.eta == 0.5
    assert "stored in" in capsys.readouterr().out


def test_equal_scores_go_to_the_first_setting(tmp_path, own_store):
    fabricated_run(tmp_path / "run", lambda method, number, seed: 0.7)
    chosen = tuning.choose(tuning.read_scores(tmp_path / "run"))["BallCircle"]
    assert chosen["dwbc"] == {"eta": 0.3, "period": 1}


def test_an_unfinished_or_foreign_run_is_refused(tmp_path, own_store, capsys):
    assert tuning.main([str(tmp_path)]) == 2
    assert "is no run" in capsys.readouterr().err
    trials = fabricated_run(tmp_path / "run", lambda method, number, seed: 0.7)
    (tmp_path / "run" / "trials" / trials[3].id / "row.json").unlink()
    with pytest.raises(UserError, match="not finished; go on with --grid tuning --resume"):
        tuning.read_scores(tmp_path / "run")
    fabricated_run(tmp_path / "run", lambda method, number, seed: 0.7)
    config = json.loads((tmp_path / "run" / "trials" / trials[0].id / "config.json").read_text())
    config["method_config"]["cost_model"]["learning_rate"] = 0.5
    write_json(tmp_path / "run" / "trials" / trials[0].id / "config.json", config)
    with pytest.raises(UserError, match="none of the tuning grid's"):
        tuning.read_scores(tmp_path / "run")
    assert not own_store.exists()


def test_what_the_points_hold_cannot_be_set_beside_them():
    with pytest.raises(UserError, match="policy.steps is set by the grid's own points"):
        expand(GRIDS["tuning"], tasks=["BallCircle"], methods=["dwbc"], settings={"policy.steps": 10})
