"""Repeated from a tape: the same numbers as the original gives, and the original where a tape will not do."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from safemil.training.tape import Tape, TapedUpdate

CALLS = 12
FACTORS = torch.ones(1), torch.full((1,), 2.0)


class Original:
    """An update with all that a tape must follow: gradients, views, parts, writing in place and into what is there."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.data = torch.randn(40, 6, generator=generator)
        self.weight = torch.randn(4, 2, generator=generator).requires_grad_()
        self.rate = torch.tensor(0.1)
        self.next = torch.zeros(1, dtype=torch.int64)
        self.total, self.product = torch.zeros(2), torch.zeros(2, 2)
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        rows = (self.next + torch.arange(5)) % 40
        x, y = self.data[rows].split([4, 2], dim=-1)
        error = torch.tanh(x @ self.weight) - y
        (gradient,) = torch.autograd.grad(error.square().sum(-1).mean(), [self.weight])
        torch.mm(gradient.t(), gradient, out=self.product)
        with torch.no_grad():
            first, second = self.weight.unbind(1)
            first -= self.rate * gradient[:, 0]
            second.sub_(self.rate * gradient[:, 1].relu_())
        self.total += torch.stack([error.detach().mean(), self.product.sum()])
        self.next += 1

    def state(self) -> list[np.ndarray]:
        return [own.detach().numpy().copy() for own in (self.weight, self.total, self.product, self.next)]


def states(update, original, between=lambda call: None) -> list[list[np.ndarray]]:
    found = []
    for call in range(CALLS):
        between(call)
        update()
        found.append(original.state())
    return found


def test_repeated_is_as_run_and_the_original_is_called_three_times():
    one, other = Original(), Original()
    np.testing.assert_equal(states(TapedUpdate(other), other), states(one, one))
    assert other.calls == 3


def test_what_is_changed_between_updates_is_seen():
    """A learning rate, a parameter put back, data: written in place, as the training loop does."""

    def change(own):
        def between(call):
            own.rate.fill_(0.1 / (call + 1))
            own.data[call] += 1
            if call == 8:
                with torch.no_grad():
                    own.weight.fill_(0.5)

        return between

    one, other = Original(), Original()
    np.testing.assert_equal(states(TapedUpdate(other), other, change(other)), states(one, one, change(one)))
    assert other.calls == 3


def test_a_tape_holds_on_to_what_stays_alone():
    original = Original()
    original()
    with Tape() as tape:
        original()
    stays = {own.data_ptr() for own in (*vars(original).values(), *original.weight.unbind(1)) if torch.is_tensor(own)}
    assert tape.complete and {own.untyped_storage().data_ptr() for own in tape.constants} <= stays
    assert not any(own.requires_grad for own in tape.constants)


class Counting:
    """Adds up what ``step`` makes of x, which grows by one each time, and of the number of the call."""

    def __init__(self, step) -> None:
        self.step, self.calls = step, 0
        self.x, self.total = torch.tensor([-3.0, 1.0, 2.0]), torch.zeros(1)

    def __call__(self) -> None:
        self.calls += 1
        self.total += self.step(self.x, self.calls)
        self.x += 1

    def state(self) -> list[np.ndarray]:
        return [self.x.numpy().copy(), self.total.numpy().copy()]


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(lambda x, call: x.sum().item(), id="read back"),
        pytest.param(lambda x, call: x[x > 0].sum() / len(x[x > 0]), id="mask"),
        pytest.param(lambda x, call: float(len(x.nonzero())), id="shape"),
        pytest.param(lambda x, call: x.sum() * torch.tensor([float(call)]), id="made of Python's values"),
        pytest.param(lambda x, call: x.sum() * call, id="number of the call"),
        pytest.param(lambda x, call: x.sum() * FACTORS[call % 2], id="other tensors"),
        pytest.param(lambda x, call: x[: 1 + call % 2].sum(), id="other views"),
        pytest.param(lambda x, call: x.sum() if call % 2 else x.prod(), id="other operations"),
        pytest.param(lambda x, call: x.sum() * torch.from_numpy(np.full(1, float(call))), id="from numpy"),
        pytest.param(lambda x, call: torch.from_numpy((2 * x).numpy()).sum(), id="through numpy"),
    ],
)
def test_what_would_not_be_the_same_again_is_run_as_it_is(step):
    one, other = Counting(step), Counting(step)
    np.testing.assert_equal(states(TapedUpdate(other), other), states(one, one))
    assert other.calls == CALLS


def test_draws_are_left_to_the_original():
    update = Counting(lambda x, call: torch.rand(1))
    taped = TapedUpdate(update)
    for _ in range(CALLS):
        taped()
    assert update.calls == CALLS and not taped.repeats


def test_an_error_on_tape_is_the_original_s():
    def fail(x, call):
        if call == 2:
            raise RuntimeError("diverged")
        return x.sum()

    taped = TapedUpdate(Counting(fail))
    taped()
    with pytest.raises(RuntimeError, match="diverged"):
        taped()
    for _ in range(CALLS):
        taped()
    assert taped.repeats


def test_no_compiler_is_imported():
    """Which would take a second of every process."""
    code = """
        import sys, torch
        from safemil.training.tape import TapedUpdate
        x = torch.zeros(3)
        taped = TapedUpdate(lambda: x.add_(1))
        for _ in range(4):
            taped()
        assert taped.repeats and x.tolist() == [4, 4, 4] and "torch._dynamo" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
