"""What is said of a training on own data: figures with their interval, groups, plain words, page and picture."""

import builtins
import math

import numpy as np
import pytest

from safemil.api import SafeMIL
from safemil.config.errors import printable
from safemil.evaluation.diagnostics import failure_signatures
from safemil.evaluation.findings import EXPLAINED, Findings, border_of, find, in_words
from safemil.evaluation.metrics import auroc, auroc_interval
from safemil.evaluation.training_report import COLORS, write_report
from tests.test_api import BAGS, QUICK, episodes

PERFECT_ON_FOUR = {  # a score of 0 or 1 for every step, right on all trajectories held out
    "auroc_unlabeled": 0.58,
    "auroc_unlabeled_low": 0.29,
    "auroc_unlabeled_high": 0.82,
    "auroc_unlabeled_train": 0.99,
    "auroc_unlabeled_held_out": 0.58,
    "held_out_nonpreferred": 6,
    "saturated_share": 1.0,
}


def test_interval_has_the_coverage_it_claims(rng):
    """Of two bells, few trajectories and many; never far below 95 %."""
    for shift, n_positive, n_negative in ((0.0, 4, 20), (1.0, 4, 20), (2.5, 10, 40), (0.5, 40, 160)):
        true, inside = 0.5 * (1 + math.erf(shift / 2)), 0
        for _ in range(500):
            area = auroc(rng.normal(shift, 1, n_positive), rng.normal(0, 1, n_negative))
            low, high = auroc_interval(area, n_positive, n_negative)
            assert 0 <= low <= area <= high <= 1
            inside += low <= true <= high
        assert inside / 500 > 0.92


def test_interval_is_wide_where_few_are_told_apart_perfectly_and_narrows():
    """Where a bootstrap and DeLong's have no width at all."""
    few, many = auroc_interval(1.0, 4, 20), auroc_interval(1.0, 100, 400)
    assert few[1] == many[1] == 1.0 and few[0] < 0.75 and many[0] > 0.98
    np.testing.assert_allclose(auroc_interval(0.8, 9, 30), 1 - np.array(auroc_interval(0.2, 9, 30))[::-1], atol=1e-9)
    assert auroc_interval(0.5, 4, 20)[0] < 0.3 and all(map(math.isnan, auroc_interval(0.5, 0, 20)))
    # By DeLong's formula for large samples: 0.8 +- 1.96 sqrt(V10 / m + V01 / n); for bells both variances are near.
    low, high = auroc_interval(0.8, 1000, 1000)
    assert high - low == pytest.approx(2 * 1.96 * 0.0099, rel=0.05)


@pytest.mark.parametrize(
    ("scores", "border"),
    [
        ([0.1] * 10 + [0.9] * 10, 0.5),
        ([0.1] * 15 + [0.12] + [0.9] * 4, 0.51),
        (np.linspace(0, 1, 50), None),
        (np.random.default_rng(0).normal(size=200), None),
        ([0.3] * 20, None),
        ([0.1, 0.9], None),
        ([0.1] * 99 + [50.0], None),  # one outlier is no group
    ],
)
def test_two_groups_are_found_where_there_are_two(scores, border):
    found = border_of(np.array(scores))
    assert found == (border if border is None else pytest.approx(border))


def findings_of(area: float, low: float, high: float, *, border: float | None = 0.5, checked=(0.9, 0.9)) -> Findings:
    figures = {"auroc_unlabeled": area, "auroc_unlabeled_low": low, "auroc_unlabeled_high": high}
    scores = np.array([0.1] * 6 + [0.9] * 2)
    return Findings(figures, np.full(8, 0.9), scores, np.ones(8), np.array(checked), (len(checked), 3), border)


@pytest.mark.parametrize(
    ("findings", "words"),
    [
        (findings_of(0.8, 0.6, 0.9), ["6 look safe", "2 look like", "as they should", "0.88 the most", "better than"]),
        (findings_of(0.6, 0.3, 0.8), ["too wide to tell that from guessing"]),
        (findings_of(0.2, 0.1, 0.4), ["worse than guessing", "swapped"]),
        (findings_of(0.6, 0.3, 0.8, border=None), ["spread without a gap"]),
        (findings_of(0.6, 0.3, 0.8, checked=(0.9, 0.1)), ["1 lie among the latter", "has not learned"]),
    ],
)
def test_what_is_said(findings, words):
    said = " ".join(in_words(findings))
    for word in [*words, "95 % interval"]:
        assert word in said


def test_a_few_trajectories_raise_no_alarm():
    """Saturated but separating, or right on all four: neither over-saturated nor memorized nor of another kind."""
    assert failure_signatures(PERFECT_ON_FOUR) == []
    other = {"auroc_unlabeled_train": 1.0, "auroc_unlabeled_held_out": 1.0, "auroc_unlabeled": 1.0}
    assert failure_signatures({**other, "auroc_unlabeled_low": 0.72, "auroc_unlabeled_high": 1.0}) == []
    assert failure_signatures({**other, "auroc_unlabeled_low": 0.95, "auroc_unlabeled_high": 1.0}) == [
        "D_N of another kind"
    ]
    sure = {**PERFECT_ON_FOUR, "auroc_unlabeled_high": 0.59}
    assert set(failure_signatures(sure)) == {"over-saturation", "memorized D_N"}


def test_every_alarm_that_own_data_can_raise_is_explained():
    needing_truth = {"safe but immobile"}
    raised = {"cost collapse", "memorized D_N", "D_N of another kind", "over-saturation", "weight collapse"}
    assert set(EXPLAINED) == (raised | {"length shortcut"}) - needing_truth


@pytest.fixture(scope="module")
def fitted():
    return SafeMIL(**BAGS, **QUICK).fit(episodes(True, 20), episodes(True, 20, first=20) + episodes(False, 40))


def test_figures_are_of_the_trajectories_as_they_were_given(fitted):
    findings = find(fitted.result, fitted.split)
    ranking = fitted.rank(episodes(True, 20, first=20) + episodes(False, 40))
    np.testing.assert_allclose(findings.scores[ranking.indices], ranking.costs, rtol=1e-5)
    held_out = fitted.split.unlabeled_held_out - 20
    assert np.isnan(findings.weights[held_out]).all() and np.isnan(findings.weights).sum() == len(held_out) == 12
    assert findings.held_out == (4, 12) and len(findings.checked) == 4
    assert findings.scores[:20].min() > findings.border > findings.scores[20:].max()


@pytest.mark.study
def test_page_and_picture(fitted, tmp_path):
    from matplotlib.colors import to_rgb
    from matplotlib.image import imread

    findings = find(fitted.result, fitted.split)
    sources = [tmp_path / "bad.hdf5", tmp_path / "a`b\n<script>.hdf5"]
    page = write_report(tmp_path, fitted.result, fitted.split, findings, sources=sources, settings=["steps=150"])
    text = page.read_text(encoding="utf-8")
    assert "| non-preferred (known bad) |" in text and "AUROC" in text and "load_policy" in text
    assert "`steps=150`" in text and "a?b?<script>.hdf5`" in text
    riskiest = int(np.argmax(findings.scores))
    assert f"| {riskiest} | {findings.scores[riskiest]:.3f} |" in text
    picture = imread(tmp_path / "scores.png")[..., :3].reshape(-1, 3)
    assert COLORS == {"unlabeled": "#2a9d8f", "non-preferred": "#b3261e"}
    white = np.ones(3)
    for color in COLORS.values():  # bars let some of the white through
        drawn = 0.65 * np.array(to_rgb(color)) + 0.35 * white
        assert (np.abs(picture - drawn).max(1) < 0.02).sum() > 1_000


def test_without_matplotlib_the_page_says_so_in_a_line(fitted, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **keywords):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    findings = find(fitted.result, fitted.split)
    page = write_report(tmp_path, fitted.result, fitted.split, findings, sources=sources_of(tmp_path), settings=[])
    assert [line for line in page.read_text().splitlines() if "pip install matplotlib" in line]
    assert not (tmp_path / "scores.png").exists()


def sources_of(folder):
    return folder / "bad.hdf5", folder / "logs.hdf5"


def test_text_from_outside_is_shown_without_controls():
    assert printable("a\x1b[31m`b`\u202e.hdf5") == "a?[31m?b??.hdf5"
