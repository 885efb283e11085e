"""The rival: SafeMIL's joint cost-and-policy update as one compiled JAX loop, data on the device. A yardstick only.

    python benchmarks/jax_yardstick.py --replicas 1 5          # prints updates/s of each as JSON

Same networks, batch, losses and optimizer (AdamW, clipped by the global norm) as safemil.algorithm.safemil in
mode=joint with a deterministic head; thousands of updates run inside one ``fori_loop``, so that no Python is left in
the loop.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from safemil.data.trajectories import Trajectories

LEARNING_RATE, DECAY, CLIP, BETA, DISCOUNT = 1e-5, 0.01, 10.0, 0.6, 0.99


def initialize(key, sizes, n_replicas):
    """R multi-layer perceptrons: list of (weight (R, n_in, n_out), bias (R, 1, n_out))."""
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        (jax.random.uniform(k, (n_replicas, a, b), minval=-(a**-0.5), maxval=a**-0.5), jnp.zeros((n_replicas, 1, b)))
        for k, a, b in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]


def mlp(layers, x, activation):
    """``(R, n, n_in)`` -> ``(R, n, n_out)``."""
    for weight, bias in layers[:-1]:
        x = activation(x @ weight + bias)
    return x @ layers[-1][0] + layers[-1][1]


def adamw(parameters, gradients, moments, step):
    """One clipped AdamW step, each replica clipped by its own norm."""
    first, second = moments
    squares = [jnp.square(g).sum(tuple(range(1, g.ndim))) for g in jax.tree.leaves(gradients)]
    factor = jnp.minimum(1.0, CLIP / (jnp.sqrt(sum(squares)) + 1e-6))
    gradients = jax.tree.map(lambda g: g * factor.reshape(-1, *(1,) * (g.ndim - 1)), gradients)
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradients)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradients)
    a, b = 1 - 0.9**step, 1 - 0.999**step
    parameters = jax.tree.map(
        lambda p, m, v: p * (1 - LEARNING_RATE * DECAY) - LEARNING_RATE * (m / a) / (jnp.sqrt(v / b) + 1e-8),
        parameters,
        first,
        second,
    )
    return parameters, (first, second)


def step_costs(parameters, observations, actions):
    """Cost of each step ``(R, items, H)``."""
    x = jnp.concatenate([observations, actions], -1)
    return jax.nn.sigmoid(mlp(parameters, x.reshape(x.shape[0], -1, x.shape[-1]), jax.nn.elu)).reshape(x.shape[:-1])


def cost_loss(parameters, nonpreferred, unlabeled, factors):
    """Multiple-instance loss of one pair of bags, summed over replicas."""
    scores = [(step_costs(parameters, *segments) * factors).sum(-1).mean(-1) for segments in (nonpreferred, unlabeled)]
    return jax.nn.softplus(scores[1] - scores[0]).sum()


def policy_loss(parameters, cost_parameters, unlabeled, factors):
    """Weighted squared error on the unlabeled segments, summed over replicas."""
    observations, actions = unlabeled
    z = (step_costs(cost_parameters, observations, actions) * factors).sum(-1, keepdims=True)
    weights = jax.lax.stop_gradient(jnp.exp(-z / BETA))
    weights = weights / (weights.mean((1, 2), keepdims=True) + 1e-3)
    flat = observations.reshape(observations.shape[0], -1, observations.shape[-1])
    predicted = jnp.tanh(mlp(parameters, flat, jax.nn.relu)).reshape(actions.shape)
    errors = jnp.square(predicted - actions).sum(-1)
    return ((weights * factors * errors).sum((1, 2)) / (factors.sum() * errors.shape[1])).sum()


@partial(jax.jit, static_argnames=("steps", "n_replicas", "bag_size", "length", "trajectory_length", "sets"))
def joint_updates(state, data, steps, n_replicas, bag_size, length, trajectory_length, sets):
    """``steps`` alternating updates on equally long trajectories; ``sets``: (first, count) of D_N and of D_U."""
    observations, actions = data
    factors = DISCOUNT ** jnp.arange(length)

    def segments(key, first, count):
        key_trajectory, key_start = jax.random.split(key)
        shape = (n_replicas, bag_size)
        trajectory = first + jax.random.randint(key_trajectory, shape, 0, count)
        start = jax.random.randint(key_start, shape, 0, trajectory_length - length + 1)
        rows = (trajectory * trajectory_length + start)[..., None] + jnp.arange(length)
        return observations[rows], actions[rows]

    def update(step, state):
        key, cost, cost_moments, policy, policy_moments = state
        key, key_n, key_u = jax.random.split(key, 3)
        nonpreferred, unlabeled = segments(key_n, *sets[0]), segments(key_u, *sets[1])
        gradients = jax.grad(cost_loss)(cost, nonpreferred, unlabeled, factors)
        cost, cost_moments = adamw(cost, gradients, cost_moments, step + 1)
        gradients = jax.grad(policy_loss)(policy, cost, unlabeled, factors)
        policy, policy_moments = adamw(policy, gradients, policy_moments, step + 1)
        return key, cost, cost_moments, policy, policy_moments

    return jax.lax.fori_loop(0, steps, update, state)


def joint_rate(
    data: Trajectories,
    sets: tuple[tuple[int, int], tuple[int, int]],
    hidden: int,
    *,
    n_replicas: int,
    steps: int,
    bag_size: int = 128,
    length: int = 5,
    warm_up: bool = True,
) -> float:
    """Joint updates per second, of all replicas at once; compilation and a first run are not counted after a warm-up.

    Args:
        data: trajectories of equal length.
        sets: first trajectory and number of D_N and of D_U.
    """
    arrays = jnp.asarray(data.observations), jnp.asarray(data.actions)
    key_cost, key_policy, key = jax.random.split(jax.random.key(0), 3)
    cost = initialize(key_cost, (data.observation_dim + data.action_dim, hidden, hidden, 1), n_replicas)
    policy = initialize(key_policy, (data.observation_dim, hidden, hidden, data.action_dim), n_replicas)
    moments = [(jax.tree.map(jnp.zeros_like, part), jax.tree.map(jnp.zeros_like, part)) for part in (cost, policy)]
    state = key, cost, moments[0], policy, moments[1]
    for _ in range(1 + warm_up):
        started = time.perf_counter()
        state = joint_updates(state, arrays, steps, n_replicas, bag_size, length, int(data.lengths[0]), sets)
        jax.block_until_ready(state)
    return steps / (time.perf_counter() - started)


def main() -> None:
    """Joint updates per second of packs of several sizes, on random steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", nargs="+", type=int, default=[1, 5], metavar="R")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="highest", choices=["highest", "medium"], help="medium: bfloat16")
    parser.add_argument("--whole", action="store_true", help="--steps updates whatever R, compiling included")
    options = parser.parse_args()
    jax.config.update("jax_platforms", options.device)
    jax.config.update("jax_default_matmul_precision", {"highest": "float32", "medium": "bfloat16"}[options.precision])
    rng, lengths = np.random.default_rng(0), np.arange(251) * 1000
    observations, actions = rng.normal(size=(250_000, 17)), rng.uniform(-1, 1, (250_000, 6))
    data = Trajectories(observations.astype(np.float32), actions.astype(np.float32), lengths)
    rates = {}
    for n_replicas in options.replicas:
        steps = options.steps if options.whole else max(20, options.steps // n_replicas)
        sizes = {"n_replicas": n_replicas, "steps": steps, "warm_up": not options.whole}
        rates[n_replicas] = joint_rate(data, ((0, 40), (50, 160)), 256, **sizes)
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
