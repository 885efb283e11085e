"""Recipes from pretrained agents: reading their files, fetching them, acting alike everywhere, the walker's search.

The agents here are small ones made on the spot, in the files of Stable-Baselines3.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import pickle
import subprocess
import sys
import threading
import types
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from safemil.collection import agent_files, collecting
from safemil.collection.agent_files import PretrainedAgent, find_agent
from safemil.collection.agent_reading import read_agent
from safemil.collection.recipes import walker_search
from safemil.collection.recipes.networks import product, tanh
from safemil.collection.recipes.pretrained import (
    Interpolation,
    Mixture,
    Share,
    _mixture_recipe,
    draw_between,
    draw_from,
)
from safemil.collection.recipes.table import RECIPES
from safemil.collection.recipes.walker_search import Phase, WalkerEnds, find_ends
from safemil.config.errors import UserError
from safemil.data.download import BLOCK
from safemil.data.tasks import find_task
from safemil.simulation import simulators
from safemil.simulation.bare_walker import BareWalker

OBSERVATIONS = 6


def tensors_of(kind: str, rng: np.random.Generator, n_inputs: int = OBSERVATIONS, n_actions: int = 2) -> dict:
    """A state dict with the names that each algorithm of Stable-Baselines3 gives its layers."""
    layers = {
        "linear": [("action_net", n_inputs, n_actions)],
        "ars": [("action_net.0", n_inputs, 5), ("action_net.2", 5, n_actions)],
        "trpo": [
            ("mlp_extractor.policy_net.0", n_inputs, 5),
            ("mlp_extractor.policy_net.2", 5, 4),
            ("mlp_extractor.value_net.0", n_inputs, 7),
            ("action_net", 4, n_actions),
            ("value_net", 7, 1),
        ],
        "sac": [
            ("actor.latent_pi.0", n_inputs, 5),
            ("actor.latent_pi.2", 5, 4),
            ("actor.mu", 4, n_actions),
            ("actor.log_std", 4, n_actions),
            ("critic.qf0.0", n_inputs + n_actions, 3),
        ],
    }[kind]
    tensors = {}
    for name, n_in, n_out in layers:
        tensors[f"{name}.weight"] = torch.tensor(rng.normal(0, 0.5, (n_out, n_in)), dtype=torch.float32)
        if kind != "linear":
            tensors[f"{name}.bias"] = torch.tensor(rng.normal(0, 0.1, n_out), dtype=torch.float32)
    return tensors


def plain_torch(kind: str, tensors: dict, inputs: torch.Tensor, strength: float) -> torch.Tensor:
    """What Stable-Baselines3 computes."""

    def layer(name: str, values: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(values, tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))

    if kind == "linear":
        return (strength * layer("action_net", inputs)).clamp(-1, 1)
    if kind == "ars":
        return torch.tanh(strength * layer("action_net.2", torch.relu(layer("action_net.0", inputs))))
    if kind == "trpo":
        hidden = torch.tanh(layer("mlp_extractor.policy_net.0", inputs))
        return (strength * layer("action_net", torch.tanh(layer("mlp_extractor.policy_net.2", hidden)))).clamp(-1, 1)
    hidden = torch.relu(layer("actor.latent_pi.2", torch.relu(layer("actor.latent_pi.0", inputs))))
    return torch.tanh(strength * layer("actor.mu", hidden))


def write_policy(path: Path, tensors: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    held = io.BytesIO()
    torch.save(tensors, held)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", "{}")
        archive.writestr("policy.pth", held.getvalue())


def write_statistics(path: Path, mean: np.ndarray, variance: np.ndarray) -> None:
    """A pickle of a VecNormalize, with the parts of gym and of numpy.random that one holds."""
    with pytest.MonkeyPatch.context() as patch:
        made = {}
        for module, name in (
            ("stable_baselines3.common.vec_env.vec_normalize", "VecNormalize"),
            ("stable_baselines3.common.running_mean_std", "RunningMeanStd"),
            ("gym.spaces.box", "Box"),
        ):
            for part in itertools.accumulate(module.split("."), "{}.{}".format):
                patch.setitem(sys.modules, part, types.ModuleType(part))
            made[name] = type(name, (), {"__module__": module})
            setattr(sys.modules[module], name, made[name])
        saved, running, box = (made[name]() for name in ("VecNormalize", "RunningMeanStd", "Box"))
        running.mean, running.var, running.count = mean, variance, 100.0
        box.low, box._np_random = np.full(len(mean), -np.inf), np.random.RandomState(0)
        saved.obs_rms, saved.observation_space, saved.epsilon, saved.clip_obs = running, box, 1e-8, np.float64(10.0)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(saved))


def make_agent(
    folder: Path, algorithm: str, rng: np.random.Generator, *, kind: str = "", **sizes: int
) -> PretrainedAgent:
    """A small agent in ``folder``, laid out as the public repository."""
    agent = PretrainedAgent(algorithm, "Toy-v3", "")
    policy, statistics = (folder / path for path in agent.files)
    tensors = tensors_of(kind or algorithm, rng, **sizes)
    n_inputs = next(iter(tensors.values())).shape[1]
    write_policy(policy, tensors)
    write_statistics(statistics, rng.normal(size=n_inputs), rng.uniform(0.5, 2.0, n_inputs))
    return PretrainedAgent(algorithm, "Toy-v3", read_agent(policy, statistics).digest)


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("DSRL_DATASET_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("SAFEMIL_AGENTS", str(tmp_path / "agents"))
    for cached in (find_agent, find_ends):
        cached.cache_clear()
    yield tmp_path
    for cached in (find_agent, find_ends):
        cached.cache_clear()


class TestReading:
    @pytest.mark.parametrize("kind", ["linear", "ars", "trpo", "sac"])
    @pytest.mark.parametrize("normalized", [True, False])
    def test_acts_as_plain_torch_does(self, kind, normalized, tmp_path, rng):
        tensors, mean, variance = tensors_of(kind, rng), rng.normal(size=6), rng.uniform(0.5, 2.0, 6)
        write_policy(tmp_path / "agent.zip", tensors)
        write_statistics(tmp_path / "statistics.pkl", mean, variance)
        network = read_agent(tmp_path / "agent.zip", tmp_path / "statistics.pkl" if normalized else None)
        for observation in [*rng.normal(size=(20, 6)), np.full(6, 100.0)]:  # the last one is clipped
            inputs = ((observation - mean) / np.sqrt(variance + 1e-8)).clip(-10, 10) if normalized else observation
            for strength in (0.3, 1.0, 3.0):
                expected = plain_torch(kind, tensors, torch.tensor(inputs, dtype=torch.float32), strength).numpy()
                np.testing.assert_allclose(network.act(observation, strength), expected, atol=1e-5)

    def test_inputs_beyond_the_observation_are_zero(self, tmp_path, rng):
        write_policy(tmp_path / "agent.zip", tensors_of("trpo", rng))
        network = read_agent(tmp_path / "agent.zip", None)
        short = rng.normal(size=4)
        np.testing.assert_array_equal(network.act(short), network.act(np.concatenate([short, np.zeros(2)])))

    def test_the_digest_is_of_the_numbers(self, tmp_path, rng):
        tensors = tensors_of("linear", rng)
        write_policy(tmp_path / "a.zip", tensors)
        write_policy(tmp_path / "b.zip", tensors | {"log_std": torch.zeros(2)})  # another file, the same policy
        a, b = (read_agent(tmp_path / name, None) for name in ("a.zip", "b.zip"))
        assert (tmp_path / "a.zip").read_bytes() != (tmp_path / "b.zip").read_bytes() and a.digest == b.digest
        tensors["action_net.weight"][1, 2] += 1e-6
        write_policy(tmp_path / "c.zip", tensors)
        assert read_agent(tmp_path / "c.zip", None).digest != a.digest


class Calls:
    """Pickles to a call of a function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class TestMalice:
    @pytest.mark.parametrize("where", ["alone", "in an array", "as a state"])
    def test_a_pickle_that_acts_is_refused_and_does_nothing(self, where, tmp_path, rng):
        mark = tmp_path / "was_here"
        acting = Calls(Path.touch, mark)
        held = {
            "alone": acting,
            "in an array": np.array([acting], dtype=object),
            "as a state": {"obs_rms": {"mean": acting}},
        }[where]
        (tmp_path / "bad.pkl").write_bytes(pickle.dumps(held))
        write_policy(tmp_path / "agent.zip", tensors_of("linear", rng))
        with pytest.raises(UserError, match=r"bad.pkl: asks for pathlib\S*, which is no number; nothing of it was exe"):
            read_agent(tmp_path / "agent.zip", tmp_path / "bad.pkl")
        assert not mark.exists()
        pickle.loads(pickle.dumps(held))
        assert mark.exists()  # it would have

    def test_a_policy_that_acts_is_refused_and_does_nothing(self, tmp_path):
        mark = tmp_path / "was_here"
        write_policy(tmp_path / "agent.zip", {"action_net.weight": Calls(Path.touch, mark)})
        with pytest.raises(UserError, match="agent.zip: not an agent of Stable-Baselines3") as caught:
            read_agent(tmp_path / "agent.zip", None)
        assert not mark.exists() and "\n" not in str(caught.value)

    @pytest.mark.parametrize("module", ["os", "builtins", "numpy.testing", "gymx", "numpy"])
    def test_only_parts_of_arrays_and_known_objects_are_named(self, module, tmp_path, rng):
        (tmp_path / "bad.pkl").write_bytes(f"c{module}\nsystem\n(S'true'\ntR.".encode())
        write_policy(tmp_path / "agent.zip", tensors_of("linear", rng))
        with pytest.raises(UserError, match=f"asks for {module}.system"):
            read_agent(tmp_path / "agent.zip", tmp_path / "bad.pkl")

    def test_damaged_files_are_named_in_one_line(self, tmp_path, rng):
        write_policy(tmp_path / "agent.zip", tensors_of("linear", rng))
        write_statistics(tmp_path / "s.pkl", np.zeros(6), np.ones(6))
        (tmp_path / "half.zip").write_bytes((tmp_path / "agent.zip").read_bytes()[:300])
        (tmp_path / "half.pkl").write_bytes((tmp_path / "s.pkl").read_bytes()[:100])
        write_policy(tmp_path / "other.zip", {"q_net.weight": torch.zeros(2, 6)})
        write_policy(tmp_path / "small.zip", tensors_of("linear", rng, n_inputs=5))
        for zip_name, pickle_name, message in (
            ("half.zip", "s.pkl", "half.zip: not an agent of Stable-Baselines3"),
            ("agent.zip", "half.pkl", "half.pkl: no observation statistics of Stable-Baselines3"),
            ("other.zip", "s.pkl", "other.zip: no policy that is known here; its entries are q_net.weight"),
            ("small.zip", "s.pkl", r"s.pkl: statistics of \(6,\) observations, the policy has 5 inputs"),
        ):
            with pytest.raises(UserError, match=message) as caught:
                read_agent(tmp_path / zip_name, tmp_path / pickle_name)
            assert "\n" not in str(caught.value)


class Hub:
    """A local server: path -> content; breaks off an answer once where told, and understands Range."""

    def __init__(self):
        self.files, self.break_after, self.asked = {}, [], []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                hub.asked.append((self.path, self.headers.get("Range")))
                if self.path not in hub.files:
                    self.send_error(404)
                    return
                content, wanted = hub.files[self.path], self.headers.get("Range")
                start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.send_header("Content-Length", str(len(content) - start))
                self.send_header("ETag", '"one"')
                self.end_headers()
                end = hub.break_after.pop(0) if hub.break_after else len(content)
                self.wfile.write(content[start:end])
                self.close_connection = True

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.http.server_port}"


class TestFetching:
    @pytest.fixture
    def hub(self):
        hub = Hub()
        yield hub
        hub.http.shutdown()
        hub.http.server_close()

    @pytest.fixture
    def agent(self, hub, folders, rng, monkeypatch):
        """An agent that the server alone has, under both of its addresses; its policy's zip is 200 kB and more."""
        agent = make_agent(folders / "remote", "trpo", rng)
        (zip_path, pickle_path) = agent.files
        with zipfile.ZipFile(folders / "remote" / zip_path, "a") as archive:
            archive.writestr("critic.pth", rng.bytes(200_000))
        monkeypatch.setattr(agent_files, "REPOSITORY", f"{hub.address}/raw")
        monkeypatch.setenv("HF_ENDPOINT", f"{hub.address}/hub/")
        monkeypatch.setenv("DSRL_DATASET_DIR", str(folders / "data"))
        monkeypatch.delenv("SAFEMIL_AGENTS", raising=False)
        monkeypatch.setattr("safemil.data.download.PAUSE", 0.01)
        for path, copy in ((zip_path, "trpo-Toy-v3.zip"), (pickle_path, "vec_normalize.pkl")):
            content = (folders / "remote" / path).read_bytes()
            hub.files[f"/raw/{path}"] = hub.files[f"/hub/sb3/trpo-Toy-v3/resolve/main/{copy}"] = content
        return agent

    def test_comes_from_the_public_home_once(self, agent, hub, folders):
        network = find_agent(agent)
        assert network.digest == agent.digest
        assert [path for path, _ in hub.asked] == [f"/raw/{path}" for path in agent.files]
        kept = [path.relative_to(folders / "data" / "agents") for path in (folders / "data").rglob("*.*")]
        assert {str(path) for path in kept if not path.name.startswith(".")} == set(agent.files)
        find_agent.cache_clear()
        assert find_agent(agent).digest == agent.digest and len(hub.asked) == 2

    def test_goes_on_after_a_break(self, agent, hub):
        hub.break_after = [150_000]
        assert find_agent(agent).digest == agent.digest
        (path, first), (again, second) = hub.asked[:2]
        assert path == again and first is None and second == f"bytes={2 * BLOCK}-"  # whole blocks are kept

    def test_takes_the_mirror_when_the_home_has_something_else(self, agent, hub, caplog, rng, folders):
        zip_path, _ = agent.files
        write_policy(folders / "other.zip", tensors_of("trpo", rng))
        hub.files[f"/raw/{zip_path}"] = (folders / "other.zip").read_bytes()
        caplog.set_level("INFO")
        assert find_agent(agent).digest == agent.digest
        assert "what came is not the agent" in caplog.text and "its numbers are not those of trpo Toy-v3" in caplog.text
        assert hub.asked[-1][0] == "/hub/sb3/trpo-Toy-v3/resolve/main/vec_normalize.pkl"

    def test_says_what_each_source_answered_and_the_ways_out(self, agent, hub, folders, monkeypatch):
        monkeypatch.setenv("SAFEMIL_AGENTS", str(folders / "nothing"))
        zip_path, _ = agent.files
        hub.files = {f"/raw/{zip_path}": b"<html>Sign in</html>"}
        with pytest.raises(UserError) as caught:
            find_agent(agent)
        text = str(caught.value)
        assert f"{hub.address}/raw/{zip_path}: the server sent a web page (HTML) instead of a zip file" in text
        assert "trpo-Toy-v3.zip: the server answers 404" in text
        assert "SAFEMIL_AGENTS=folder" in text and f"{folders / 'nothing'} (SAFEMIL_AGENTS)" in text
        assert not list((folders / "data").rglob("*.zip"))

    def test_a_folder_of_the_users_comes_first_and_is_checked(self, agent, hub, folders, monkeypatch, rng):
        monkeypatch.setenv("SAFEMIL_AGENTS", str(folders / "remote"))
        assert find_agent(agent).digest == agent.digest and not hub.asked
        write_policy(folders / "remote" / next(iter(agent.files)), tensors_of("trpo", rng))
        find_agent.cache_clear()
        with pytest.raises(UserError, match="Toy-v3.zip: its numbers are not those of trpo Toy-v3"):
            find_agent(agent)


class TestActing:
    def test_a_product_adds_row_by_row(self, rng):
        """In the order that is promised: the sum differs from BLAS's in the last bits, and must not."""
        for n_inputs, n_outputs in ((111, 64), (17, 6), (8, 2), (300, 256)):
            weights, inputs = rng.normal(size=(n_inputs, n_outputs)), rng.normal(size=n_inputs)
            total = np.zeros(n_outputs)
            for row, value in zip(weights, inputs, strict=True):
                total = total + row * value
            np.testing.assert_array_equal(product(weights, inputs), total)

    def test_tanh(self):
        values = np.concatenate([np.linspace(-30, 30, 60_001), np.linspace(-1e-3, 1e-3, 1001), [0.0, 1e300]])
        np.testing.assert_allclose(tanh(values), np.tanh(values), rtol=0, atol=1e-15)

    def test_the_same_bits_whatever_the_processor_offers(self, folders, rng):
        """Actions of a network with numpy's and BLAS's faster kernels switched off, compared bit by bit."""
        agent = make_agent(folders / "agents", "trpo", rng)
        policy, statistics = (str(folders / "agents" / path) for path in agent.files)
        code = (
            "import sys, hashlib, numpy as np\nfrom pathlib import Path\n"
            "from safemil.collection.agent_reading import read_agent\n"
            "network = read_agent(Path(sys.argv[1]), Path(sys.argv[2]))\n"
            "rng = np.random.default_rng(0)\n"
            "actions = [network.act(observation) for observation in rng.normal(size=(200, 6))]\n"
            "print(hashlib.sha256(np.array(actions).tobytes()).hexdigest())"
        )
        plain = {"NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX2 FMA3"}
        hashes = set()
        for extra in ({}, plain | {"OPENBLAS_CORETYPE": "Prescott"}):
            run = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", code, policy, statistics],
                env={**os.environ, **extra}, capture_output=True, text=True, check=True,
            )  # fmt: skip
            hashes.add(run.stdout.strip())
        assert len(hashes) == 1


class TestMixture:
    @pytest.fixture
    def mixture(self, folders, rng):
        """Two small agents of the ant's size, one rare, at different strengths."""
        sizes = {"n_inputs": 30, "n_actions": 8}
        often, rare = (
            make_agent(folders / "agents", name, rng, kind=kind, **sizes)
            for name, kind in (("trpo", "trpo"), ("ars", "linear"))
        )
        return Mixture((Share(often, 0.9, (0.2, 0.3)), Share(rare, 0.1, (0.7, 0.9))), noise=(0.0, 0.1))

    def test_draws_agents_strengths_and_noises(self, mixture, rng):
        drawn = [draw_from(mixture, rng) for _ in range(1000)]
        often = [policy for policy in drawn if policy.network is find_agent(mixture.shares[0].agent)]
        assert 860 < len(often) < 940
        for policy in drawn:
            low, high = (0.2, 0.3) if policy in often else (0.7, 0.9)
            assert low <= policy.strength <= high and 0 <= policy.noise <= 0.1
        action = drawn[0].act(rng.normal(size=27).astype(np.float32), rng)
        assert action.shape == (8,) and action.dtype == np.float32 and np.abs(action).max() <= 1

    def test_same_seed_same_bytes_and_the_agents_are_recorded(self, mixture, folders, monkeypatch):
        monkeypatch.setitem(RECIPES, "AntVelocity", _mixture_recipe(mixture, "two small agents", 1, 4))
        task = find_task("AntVelocity")
        first, second = (
            collecting.collect(task, workers=1, output=folders / name, progress=False) for name in ("a.hdf5", "b.hdf5")
        )
        other = collecting.collect(task, workers=1, output=folders / "c.hdf5", seed=1, progress=False)
        assert first.read_bytes() == second.read_bytes() != other.read_bytes()
        recorded = json.loads(collecting.read_layout(first).attributes["parameters"])
        assert recorded["agents"]["trpo Toy-v3"] == {
            "sha256": mixture.shares[0].agent.digest, "weight": 0.9, "strength": [0.2, 0.3],
        }  # fmt: skip

    def test_a_missing_agent_is_said_before_any_episode(self, mixture, folders, monkeypatch):
        monkeypatch.setattr(agent_files, "REPOSITORY", "http://127.0.0.1:9")  # nobody answers
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setenv("SAFEMIL_AGENTS", str(folders / "elsewhere"))
        monkeypatch.setitem(RECIPES, "AntVelocity", _mixture_recipe(mixture, "two small agents", 1, 4))
        monkeypatch.setattr(collecting, "record_all", None)  # would fail if it were called
        with pytest.raises(UserError, match="no pretrained agent trpo Toy-v3"):
            collecting.collect(find_task("AntVelocity"), workers=1)


class TestWalker:
    def test_the_bare_one_gives_the_simulators_numbers(self, rng):
        """Bit by bit, until it falls."""
        bare, task = BareWalker(), find_task("Walker2dVelocity")
        for seed, push in ((0, 0.3), (2**32 - 1, 1.0), (7, 0.02)):
            with simulators.make(task) as simulator:
                np.testing.assert_array_equal(simulator.reset(seed), bare.reset(seed))
                ended = False
                while not ended:
                    action = (push * rng.uniform(-1, 1, 6)).astype(np.float32)
                    (expected, *rest), (observation, *others) = simulator.step(action), bare.step(action)
                    np.testing.assert_array_equal(expected, observation)
                    assert rest == others
                    ended = rest[2] or rest[3]

    @pytest.fixture
    def settings(self, folders, rng):
        agent = make_agent(folders / "agents", "ars", rng, kind="linear", n_inputs=17, n_actions=6)
        return WalkerEnds(agent, 1.1, (Phase(2.0, 0.05, 4), Phase(6.0, 0.05, 4)), directions=2, kept=1)

    def test_a_small_search_is_repeated_to_the_bit_and_kept(self, settings, folders, monkeypatch):
        first, again = walker_search.search(settings), walker_search.search(settings)
        assert first == again and first[0] != first[1]
        assert first != walker_search.search(WalkerEnds(**vars(settings) | {"seed": 1}))
        ends = find_ends(settings)
        assert len(ends) == 3
        np.testing.assert_array_equal(ends[2].weights[0].T, np.array(first[1][0]))
        find_ends.cache_clear()
        monkeypatch.setattr(walker_search, "search", None)  # would fail if it were called
        assert find_ends(settings)[0].digest == ends[0].digest
        assert find_agent(settings.agent).digest == settings.agent.digest

    def test_what_was_damaged_is_searched_again(self, settings, folders):
        good = find_ends(settings)
        (kept,) = (folders / "data" / "agents").glob("Walker2dVelocity-*.json")
        whole = kept.read_text()
        for damaged in (whole[: len(whole) // 2], whole.replace("0.", "1.", 1)):
            kept.write_text(damaged)
            find_ends.cache_clear()
            assert [end.digest for end in find_ends(settings)] == [end.digest for end in good]
            assert kept.read_text() == whole

    def test_the_search_starts_at_the_agent(self, settings):
        """After one iteration the only policy around which changes were tried is the agent at its strength."""
        still = WalkerEnds(settings.agent, 1.1, (Phase(2.0, 0.02, 1),), directions=1, kept=1)
        ends, agent = find_ends(still), find_agent(settings.agent)
        observation = np.random.default_rng(0).normal(size=17)
        for end in ends:
            np.testing.assert_allclose(end.act(observation), agent.act(observation, 1.1), atol=1e-4)

    @pytest.mark.parametrize(
        ("position", "shares"), [(0.0, (1, 0, 0)), (0.75, (0.25, 0.75, 0)), (2.0, (0, 0, 1)), (2.5, (0, -0.5, 1.5))]
    )
    def test_a_place_between_two_ends_or_beyond(self, settings, position, shares, rng):
        between = Interpolation(settings, (position, position), noise=(0.0, 0.0))
        observation, ends = 0.1 * rng.normal(size=17), find_ends(settings)
        gains, offsets = (
            sum(share * getattr(end, name)[0] for share, end in zip(shares, ends, strict=True))
            for name in ("weights", "biases")
        )
        expected = np.clip(observation @ gains + offsets, -1, 1)
        np.testing.assert_allclose(draw_between(between, rng).act(observation, rng), expected, atol=1e-6)
