"""Images as observations: an encoder that reads the state gives the state's results, packing and parts change nothing,
augmentation is recorded, files are read in parts, and every label-limited method takes them."""

from __future__ import annotations

import dataclasses
import tracemalloc

import h5py
import numpy as np
import pytest
import torch

from baselines.registry import LABEL_LIMITED, METHODS
from safemil import SafeMIL
from safemil.algorithm import safemil
from safemil.config.errors import UserError
from safemil.config.overrides import dotted_fields, override
from safemil.config.settings import SafeMILConfig
from safemil.data.hdf5 import load, save
from safemil.data.splits import split_of_sets
from safemil.data.tasks import find_task
from safemil.data.trajectories import DatasetError, Trajectories
from safemil.nn import encoders
from safemil.nn.checkpoints import load_policy, load_scorer
from safemil.nn.checkpoints import save as save_checkpoint
from safemil.nn.encoders import ImageEncoder
from safemil.nn.networks import extract_replica
from safemil.nn.streams import make_generators
from safemil.simulation import simulators
from safemil.simulation.rollouts import roll_out
from safemil.training.context import FitContext
from safemil.training.transitions import Shifts, Transitions, shifted


def blobs(n: int, push: float, rng: np.random.Generator, size: int = 20) -> Trajectories:
    """Episodes of 8 frames in which a bright square wanders; actions (push, brightness's side)."""
    frames = np.zeros((n * 8, size, size, 1), dtype=np.uint8)
    for frame, (y, x) in zip(frames, rng.integers(0, size - 6, (n * 8, 2)), strict=True):
        frame[y : y + 6, x : x + 6] = 200
    actions = np.stack([np.full(n * 8, push), rng.normal(0, 0.1, n * 8)], axis=1).clip(-1, 1)
    return Trajectories(frames, actions, np.arange(n + 1) * 8)


def both(*parts: Trajectories) -> Trajectories:
    """Sets of trajectories one after the other."""
    lengths = np.concatenate([part.lengths for part in parts])
    observations, actions = (np.concatenate([getattr(p, name) for p in parts]) for name in ("observations", "actions"))
    return Trajectories(observations, actions, np.concatenate([[0], np.cumsum(lengths)]))


@pytest.fixture
def sets(rng):
    return blobs(10, 0.6, rng), both(blobs(10, 0.6, rng), blobs(10, -0.6, rng))


def small(config, steps: int = 3):
    """Any method's settings with few steps and small batches."""
    wanted = {"cost_model.steps": steps, "policy.steps": steps, "policy.batch_size": 8, "discriminator.steps": steps}
    wanted |= {
        "cost_model.bag_size": 4,
        "cost_model.pairs": 1,
        "cost_model.batch_size": 8,
        "discriminator.batch_size": 8,
    }
    known = dotted_fields(config)
    return override(config, {name: value for name, value in wanted.items() if name in known})


class StateInPixels(torch.nn.Module):
    """The identity: an image of one pixel whose channels are the state is read as that state."""

    scale = 1.0

    def __init__(self, generators, height, width, channels):
        super().__init__()
        self.features = height * width * channels

    def forward(self, observations):
        return observations.float().flatten(2)

    def encode(self, observations):
        return observations.astype(np.float32).reshape(len(observations), -1)


@pytest.mark.parametrize("mode", ["two_stage", "joint"])
def test_an_encoder_that_reads_the_state_gives_the_states_result(mode, rng, monkeypatch):
    """Nothing between the file and the policy tells images from vectors: the same policies, bit for bit."""
    monkeypatch.setattr(encoders, "ImageEncoder", StateInPixels)
    states = rng.integers(0, 4, (30 * 8, 3)).astype(np.uint8)
    actions, offsets = rng.uniform(-1, 1, (30 * 8, 2)), np.arange(31) * 8
    config = override(small(SafeMILConfig(), 6), {"mode": mode, "policy.normalize_observations": False})
    results = []
    for observations in (states.astype(np.float32), states[:, None, None, :]):
        data = Trajectories(observations, actions, offsets)
        splits = [
            split_of_sets(data.select(range(10)), data.select(range(10, 30)), seed=s, held_out=0.2) for s in (0, 1)
        ]
        results.append(safemil.fit(splits, config, FitContext((0, 1))))
    for of_state, of_pixels in zip(*results, strict=True):
        np.testing.assert_array_equal(of_state.weights, of_pixels.weights)
        np.testing.assert_array_equal(
            of_state.policy.act(states[:9].astype(np.float32)), of_pixels.policy.act(states[:9, None, None, :])
        )
        scores = of_state.score_steps(states.astype(np.float32), data.actions)
        np.testing.assert_array_equal(scores, of_pixels.score_steps(states[:, None, None, :], data.actions))


def test_an_encoder_packed_is_the_encoder_alone():
    images = torch.randint(0, 256, (3, 5, 24, 28, 2), dtype=torch.uint8)
    packed = ImageEncoder(make_generators((4, 5, 6), "encoder"), 24, 28, 2)
    for index, seed in enumerate((4, 5, 6)):
        alone = ImageEncoder(make_generators((seed,), "encoder"), 24, 28, 2)
        expected = alone(images[index : index + 1])
        torch.testing.assert_close(packed(images)[index], expected[0], rtol=1e-5, atol=1e-6)
        extracted = extract_replica(packed, index)
        np.testing.assert_allclose(extracted.encode(images[index].numpy()), expected[0].detach(), rtol=1e-5, atol=1e-6)
    assert packed(images).shape == (3, 5, 50) and packed(images).abs().max() <= 1


def test_a_policy_packed_is_the_policy_alone(sets):
    splits = [split_of_sets(*sets, seed=seed, held_out=0.2) for seed in (0, 1)]
    config = small(SafeMILConfig())
    packed = safemil.fit(splits, config, FitContext((0, 1)))
    alone = safemil.fit(splits[1:], config, FitContext((1,)))
    frames = sets[1].observations[:6]
    np.testing.assert_allclose(packed[1].policy.act(frames), alone[0].policy.act(frames), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(packed[1].weights, alone[0].weights, rtol=1e-4)


def test_images_encoded_in_parts_have_the_same_features_and_gradients(monkeypatch):
    images = torch.randint(0, 256, (2, 9, 20, 20, 1), dtype=torch.uint8)
    encoder = ImageEncoder(make_generators((0, 1), "encoder"), 20, 20, 1)
    results = []
    for kept in (1000, 4):
        monkeypatch.setitem(encoders.IMAGES_KEPT, "cpu", kept)
        encoder.zero_grad()
        features = encoder(images)
        features.square().sum().backward()
        results.append([features.detach(), *(parameter.grad.clone() for parameter in encoder.parameters())])
    for whole, parted in zip(*results, strict=True):
        torch.testing.assert_close(whole, parted, rtol=1e-4, atol=1e-5)


def test_the_memory_of_a_bag_of_images_is_bounded(monkeypatch):
    """What is kept for the backward pass, counted: a part's input each, and not its layers."""
    monkeypatch.setitem(encoders.IMAGES_KEPT, "cpu", 8)
    encoder = ImageEncoder(make_generators((0,), "encoder"), 64, 64, 2)
    kept: dict[int, int] = {}

    def note(tensor):
        if tensor.dtype.is_floating_point:
            kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    sizes = []
    for n in (16, 64):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            encoder(torch.zeros(1, n, 64, 64, 2, dtype=torch.uint8))
        sizes.append(sum(kept.values()))
    layers_of_one_image = 4 * (16 * 15 * 15 + 32 * 6 * 6)
    assert sizes[1] < 64 * layers_of_one_image / 10


def test_shifted_images_are_those_cut_out_of_a_repeated_edge(rng):
    images = torch.tensor(rng.integers(0, 256, (4, 6, 7, 2)), dtype=torch.uint8)
    rows, shifts = torch.tensor([[2, 0], [3, 3]]), torch.tensor([[[1, -2], [0, 0]], [[-1, 2], [2, 1]]])
    result = shifted(images, rows, shifts)
    padded = np.pad(images.numpy(), ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    for index in np.ndindex(2, 2):
        down, right = shifts[index].tolist()
        expected = padded[rows[index], 2 - down : 8 - down, 2 - right : 9 - right]
        np.testing.assert_array_equal(result[index], expected)


def test_shifts_come_from_the_seeds_stream_and_a_segments_steps_share_them(sets):
    steps = Transitions(sets[0].observations, sets[0].actions, "cpu")
    both_seeds, alone = (Shifts(steps, seeds, "bags").draw(70, 12)["bags shifts"] for seeds in ((3, 9), (9,)))
    torch.testing.assert_close(both_seeds[:, 1], alone[:, 0], rtol=0, atol=0)
    assert set(alone.unique().tolist()) == {-1, 0, 1}  # a sixteenth of 20 pixels
    rows = torch.arange(6).view(1, 2, 3)
    images, _ = steps(rows, alone[0][:, :2])
    for item in range(2):
        for step in range(3):
            own, _ = steps(rows[:, item, step : step + 1], alone[0][:, item : item + 1])
            torch.testing.assert_close(images[0, item, step], own[0, 0], rtol=0, atol=0)


@pytest.mark.parametrize("method", LABEL_LIMITED)
def test_every_label_limited_method_learns_from_images(method, sets, tmp_path):
    """It trains, repeats itself, acts in range, and its policy and score come back from a file."""
    registered = METHODS[method]
    splits = [split_of_sets(*sets, seed=0, held_out=0.2)]
    config = small(registered.config())
    first, again = (registered.load()(splits, config, FitContext((0,)))[0] for _ in range(2))
    frames, actions = sets[1].observations[:5], sets[1].actions[:5]
    acted = first.policy.act(frames)
    assert acted.shape == (5, 2) and np.abs(acted).max() <= 1
    np.testing.assert_array_equal(acted, again.policy.act(frames))
    save_checkpoint(tmp_path, first.policy, scorer=first.scorer)
    np.testing.assert_array_equal(load_policy(tmp_path).act(frames), acted)
    if first.scorer is not None:
        back = dataclasses.replace(first, scorer=load_scorer(tmp_path))
        np.testing.assert_array_equal(back.score_steps(frames, actions), first.score_steps(frames, actions))


def test_oracles_of_osrl_refuse_images():
    from baselines.osrl_training import Problem

    data = Trajectories(np.zeros((6, 20, 20, 1), np.uint8), np.zeros((6, 2)), [0, 2, 4, 6])
    split = split_of_sets(data, data, seed=0, held_out=0.4)
    with pytest.raises(UserError, match="read vectors; observations are images"):
        Problem.of(split, None, 0, "cpu")


def test_images_are_summed_up_by_the_means_of_their_fields(rng):
    images = rng.integers(0, 256, (5, 16, 24, 2)).astype(np.uint8)
    means = Trajectories(images, np.zeros((5, 1)), [0, 5]).vectors(np.array([3, 1]))
    fields = images[[3, 1]].reshape(2, 8, 2, 8, 3, 2).mean((2, 4))
    np.testing.assert_allclose(means, fields.reshape(2, -1))


class TestFiles:
    def test_images_come_back_as_they_were_and_compressed(self, sets, tmp_path):
        path = tmp_path / "frames.hdf5"
        save(path, sets[0], None, {})
        loaded, outcomes = load(path)
        assert outcomes is None and loaded.observations.dtype == np.uint8 and loaded.observation_dim == (20, 20, 1)
        np.testing.assert_array_equal(loaded.observations, sets[0].observations)
        np.testing.assert_array_equal(loaded.actions, sets[0].actions)
        with h5py.File(path) as file:
            assert file["observations"].compression == "gzip" and "next_observations" not in file
            assert file["observations"].chunks[1:] == (20, 20, 1)
        assert path.stat().st_size < sets[0].observations.nbytes / 2

    def test_reading_takes_little_memory_beside_the_result(self, tmp_path, monkeypatch):
        monkeypatch.setattr("safemil.data.hdf5.IMAGE_ROWS_PER_READ", 64)
        images = np.tile(np.arange(64, dtype=np.uint8), (2000, 32, 1))[..., None]
        save(tmp_path / "x.hdf5", Trajectories(images, np.zeros((2000, 1)), [0, 2000]), None, {})
        tracemalloc.start()
        load(tmp_path / "x.hdf5")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 1.2 * images.nbytes

    def test_images_of_other_numbers_or_sizes_are_refused(self, sets, tmp_path):
        with pytest.raises(DatasetError, match="images of float64; uint8 is expected"):
            Trajectories(sets[0].observations / 255, sets[0].actions, sets[0].offsets)
        path = tmp_path / "frames.hdf5"
        save(path, sets[0], None, {})
        with pytest.raises(DatasetError, match=r"shape \(80, 20, 20, 1\), expected \(80, 64, 64, 2\)"):
            load(path, find_task("BallCirclePixels"))
        with pytest.raises(UserError, match="images of 12 x 30: at least 20 x 20"):
            ImageEncoder([], 12, 30, 3)


def test_own_images_through_the_door_of_own_data(sets, tmp_path):
    from safemil.train import main

    paths = [tmp_path / "bad.hdf5", tmp_path / "logs.hdf5"]
    for path, part in zip(paths, sets, strict=True):
        save(path, part, None, {})
    few = ["cost_model.steps=4", "cost_model.bag_size=4", "policy.steps=4", "policy.batch_size=8"]
    out = tmp_path / "out"
    main(["--non-preferred", str(paths[0]), "--unlabeled", str(paths[1]), "--out", str(out), "--set", *few])
    policy = load_policy(out / "seed-0")
    assert policy.act(sets[0].observations[:2]).shape == (2, 2)


def test_images_of_two_kinds_of_behavior_are_ranked_and_the_safe_one_is_cloned(sets):
    model = SafeMIL(bag_size=8, segment_length=4, steps=60, batch_size=32, learning_rate=1e-3, device="cpu").fit(*sets)
    assert set(model.rank(sets[1]).indices[:10]) == set(range(10, 20))
    assert (model.predict(sets[1].observations[:8])[:, 0] < -0.2).all()
    with pytest.raises(UserError, match="images of float64"):
        model.predict(sets[1].observations[:8] / 255)


class TestBallCirclePixels:
    def test_it_is_ball_circle_seen_from_above(self):
        """Actions, rewards, costs and states are BallCircle's; the ball is where the state says."""
        ball, pixels = find_task("BallCircle"), find_task("BallCirclePixels")
        with simulators.make(ball) as plain, simulators.make(pixels) as drawn:
            state, image = plain.reset(5), drawn.reset(5)
            assert image.shape == (64, 64, 2) and image.dtype == np.uint8
            np.testing.assert_array_equal(image[..., 0], image[..., 1])
            frames = [image[..., 1]]
            for step in range(12):
                np.testing.assert_array_equal(drawn.steered_by(image), state)
                action = np.array([np.cos(step), 0.8])
                state, *outcome = plain.step(action)
                image, *seen = drawn.step(action)
                assert seen == outcome
                frames.append(image[..., 1])
                x, y = state[:2] / 0.1  # in meters; 9.755 of them from the middle of a frame to its edge
                column, row = round(31.5 + 32 * x / 9.755), round(31.5 - 32 * y / 9.755)
                assert 40 < image[row, column, 1] < 90  # the ball is red, which nothing else is
            np.testing.assert_array_equal(image[..., 0], frames[-4])

    def test_rollouts_depend_on_the_episode_alone(self):
        task = dataclasses.replace(find_task("BallCirclePixels"), horizon=12)

        def policy(images: np.ndarray) -> np.ndarray:
            mean = images.astype(np.float32).mean((1, 2, 3))
            return np.stack([np.sin(mean), np.cos(mean)], axis=1)

        forwards, backwards = (roll_out(policy, task, order, 3) for order in ((0, 1, 2), (2, 1, 0)))
        assert forwards == backwards[::-1] and forwards[0] != forwards[1]
