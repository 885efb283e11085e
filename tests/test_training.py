"""The training loop and its parts: replicas' streams, clipping, schedules, snapshots, checkpoints on disk."""

import gc
import json
import weakref

import numpy as np
import pytest
import torch

from safemil.nn import checkpoints
from safemil.nn.layers import StackedMLP
from safemil.nn.policies import Policy
from safemil.nn.streams import BLOCK, IndexTable, Streams, make_generators
from safemil.training.context import FitContext
from safemil.training.loop import train
from safemil.training.objectives import AdamW, Objective, clip_gradients, lay_out, schedule_factor


def test_streams_depend_on_seed_and_purpose_alone():
    packed = Streams([5, 6], "bags", "cpu").uniform(4, 3)
    alone = Streams([6], "bags", "cpu").uniform(4, 3)
    assert packed.shape == (4, 2, 3)
    torch.testing.assert_close(packed[:, 1:], alone, rtol=0, atol=0)
    assert not torch.equal(Streams([6], "transitions", "cpu").uniform(4, 3), alone)


def test_index_table_is_uniform_over_sets_of_differing_sizes():
    table = IndexTable([np.array([7, 8, 9]), np.array([1])], "cpu")
    drawn = table.sample(Streams([0, 1], "table", "cpu").uniform(1, 30_000))[0]
    shares = [(drawn[0] == value).double().mean().item() for value in (7, 8, 9)]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.01)
    assert (drawn[1] == 1).all()
    with pytest.raises(ValueError, match="index set is empty"):
        IndexTable([np.array([1]), np.array([], dtype=int)], "cpu")


def test_gradients_are_clipped_per_replica():
    gradients = torch.tensor([[3.0, 4.0], [30.0, 40.0]])
    norms = clip_gradients(gradients, 10.0)
    torch.testing.assert_close(norms, torch.tensor([5.0, 50.0]))
    torch.testing.assert_close(gradients, torch.tensor([[3.0, 4.0], [6.0, 8.0]]), rtol=1e-5, atol=0)


def test_adamw_is_torchs_own():
    drawn = torch.Generator().manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(2, 300)) for _ in range(2))
    ours.grad = torch.zeros(2, 300)
    optimizer, reference = (
        AdamW(ours, 0.01, 0.1),
        torch.optim.AdamW([theirs], lr=torch.tensor(0.01), weight_decay=0.1, fused=True),
    )
    for _ in range(20):
        gradient = torch.randn(2, 300, generator=drawn)
        ours.grad.copy_(gradient)
        theirs.grad = gradient
        optimizer.step()
        reference.step()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("activation", ["relu", "elu", "tanh"])
@pytest.mark.parametrize("n_outputs", [1, 6, 40])
@pytest.mark.parametrize("seeds", [[3], [3, 4]])
def test_a_perceptron_is_torchs_layers_side_by_side(activation, n_outputs, seeds):
    network = StackedMLP(make_generators(seeds, "layers"), (5, 48, 7, n_outputs), activation=activation).double()
    rows = 3 * torch.randn(len(seeds), 9, 5, dtype=torch.float64)
    expected = rows
    for layer in network.layers:
        for bias in layer.bias.data:
            bias.normal_()
        expected = torch.baddbmm(layer.bias, expected, layer.weight)
        if layer is not network.layers[-1]:
            expected = getattr(torch.nn.functional, activation)(expected)
    found = network(rows)
    torch.testing.assert_close(found, expected)
    for own, other in zip(*(gradients_of(y, network) for y in (found, expected)), strict=True):
        torch.testing.assert_close(own, other)


def gradients_of(output: torch.Tensor, network: StackedMLP) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(output.sin().sum(), list(network.parameters()))


def test_a_perceptron_has_second_derivatives_where_its_input_needs_a_gradient():
    network = StackedMLP(make_generators([3], "layers"), (2, 5, 1), activation="tanh").double()
    points = torch.randn(1, 4, 2, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(network(points).sum(), points, create_graph=True)
    weight = network.layers[0].weight
    (found,) = torch.autograd.grad(slope.square().sum(), weight)
    with torch.no_grad():
        weight[0, 1, 3] += 1e-6
    (moved,) = torch.autograd.grad(network(points).sum(), points)
    assert found[0, 1, 3].item() == pytest.approx((moved.square() - slope.square()).sum().item() / 1e-6, rel=1e-4)


def test_laying_out_parameters_changes_none_of_them():
    network = StackedMLP(make_generators([3, 4], "layout"), (5, 7, 2))
    before = [parameter.detach().clone() for parameter in network.parameters()]
    values = lay_out(list(network.parameters()))
    assert values.shape == values.grad.shape == (2, 5 * 7 + 7 + 7 * 2 + 2)
    for parameter, value in zip(network.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.detach(), value, rtol=0, atol=0)
    values.data.zero_()
    assert all((parameter == 0).all() for parameter in network.parameters())


def test_schedules_end_at_zero():
    for name, middle in (("constant", 1.0), ("linear", 0.5), ("cosine", 0.5)):
        assert schedule_factor(name, 0, 10) == 1.0
        assert schedule_factor(name, 5, 10) == pytest.approx(middle)
    assert schedule_factor("linear", 10, 10) == 0.0 and schedule_factor("cosine", 10, 10) == pytest.approx(0.0)


def quadratic(value: torch.nn.Parameter):
    def loss(batch):
        return (value - batch["target"]).square().sum(1), {"seen": batch["target"].mean(1)}

    return loss


class Taken:
    """Records a value instead of a policy."""

    def __init__(self, value: torch.nn.Parameter, steps: tuple[int, ...]) -> None:
        self.value, self.steps = value, steps
        self.taken = []

    def __call__(self, step: int) -> None:
        self.taken.append((step, self.value.detach().clone()))


def run_quadratic(steps: int, **options):
    value = torch.nn.Parameter(torch.zeros(2, 1))
    reports = []
    objective = Objective("toy", [value], quadratic(value), 0.05, **options)
    targets = torch.tensor([[1.0], [-2.0]])
    recorder = Taken(value, (steps // 2, steps))
    train(
        "toy",
        [objective],
        lambda n: {"target": targets.expand(n, 2, 1)},
        lambda batch: batch,
        FitContext(log=lambda stage, step, metrics: reports.append((stage, step, metrics))),
        steps=steps,
        reports=4,
        recorder=recorder,
    )
    return value.detach(), reports, recorder.taken


def test_loop_reports_snapshots_and_converges():
    value, reports, taken = run_quadratic(4 * BLOCK + 3, schedule="linear")
    torch.testing.assert_close(value, torch.tensor([[1.0], [-2.0]]), atol=0.05, rtol=0)
    assert reports[-1][1] == 4 * BLOCK + 3 and 4 <= len(reports) <= 5
    assert reports[-1][2]["toy_loss"].shape == (2,) and reports[-1][2]["seen"] == pytest.approx([1.0, -2.0])
    assert [step for step, _ in taken] == [(4 * BLOCK + 3) // 2, 4 * BLOCK + 3]
    assert not torch.equal(taken[0][1], taken[1][1])


def test_period_skips_steps():
    often, _, _ = run_quadratic(20)
    seldom, _, _ = run_quadratic(20, period=10)
    assert (seldom.abs() < often.abs()).all() and (seldom != 0).all()


def make_policy() -> Policy:
    return Policy(make_generators([0], "test"), 3, 2, (8, 4), "tanh_gauss")


def test_checkpoint_errors_say_what_is_wrong(tmp_path):
    with pytest.raises(
        checkpoints.CheckpointError, match=r"no checkpoint at .*expected a folder with policy.safetensors"
    ):
        checkpoints.load_policy(tmp_path)
    path = checkpoints.save(tmp_path, make_policy())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(checkpoints.CheckpointError, match="is damaged"):
        checkpoints.load_policy(path)


def test_a_checkpoint_of_a_former_version_is_read(tmp_path):
    """Its classes have moved into packages since."""
    policy = make_policy()
    path = checkpoints.save(tmp_path, policy)
    described = json.loads(path.with_suffix(".json").read_text())
    assert described["policy"]["class"] == "safemil.nn.policies:Policy"
    described["policy"]["class"] = "safemil.policies:Policy"
    path.with_suffix(".json").write_text(json.dumps(described))
    observations = torch.randn(4, 3).numpy()
    assert (checkpoints.load_policy(path).act(observations) == policy.act(observations)).all()


def test_a_checkpoint_imports_no_foreign_class(tmp_path):
    path = checkpoints.save(tmp_path, make_policy())
    described = json.loads(path.with_suffix(".json").read_text())
    described["policy"]["class"] = "os:system"
    path.with_suffix(".json").write_text(json.dumps(described))
    with pytest.raises(checkpoints.CheckpointError, match="not of this suite"):
        checkpoints.load_policy(path)


def test_importing_the_package_loads_no_heavy_library():
    """`safemil` needs torch and numpy; everything else waits until it is used."""
    import subprocess
    import sys

    code = (
        "import sys, safemil.algorithm.safemil, safemil.data.splits, safemil.evaluation.diagnostics, baselines.bc;"
        "print([name for name in ('h5py', 'pandas', 'matplotlib', 'ray', 'gymnasium', 'pydantic', 'scipy', 'requests')"
        " if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_what_a_training_held_is_freed_when_it_ends():
    """By itself, not when Python next looks for circles of references: it may be gigabytes."""

    def run() -> weakref.ref:
        weight = torch.nn.Parameter(torch.ones(1, 3))
        objective = Objective("policy", [weight], lambda batch: ((weight * batch["x"]).square().sum(1), {}), 0.1)
        train("policy", [objective], lambda n: {"x": torch.ones(n, 1, 3)}, lambda drawn: drawn, FitContext(), steps=10)
        return weakref.ref(objective)

    gc.collect()
    gc.disable()
    try:
        assert run()() is None
    finally:
        gc.enable()
