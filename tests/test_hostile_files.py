"""Files that mean harm, or were harmed: one short line each; nothing outside them is read, nothing is executed."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import zipfile

import h5py
import numpy as np
import pytest
import torch

from safemil import datasets
from safemil.api import Trajectories
from safemil.config.errors import UserError
from safemil.data import hdf5_access
from safemil.data.card import recipes_of
from safemil.data.convert import convert
from safemil.data.hdf5 import load, save
from safemil.data.provenance import origin_of
from safemil.nn import checkpoints
from safemil.nn.policies import Policy
from safemil.nn.streams import make_generators
from tests import log_files
from tests.log_files import make_log

LONGEST = 300


def refusal(read, path) -> str:
    """What is said in refusal of a file: one short line that begins with its path."""
    with pytest.raises(UserError) as raised:
        read(path)
    said = str(raised.value)
    assert said.startswith(str(path)) and said.isprintable()
    assert len(said.removeprefix(str(path))) <= LONGEST, said
    return said


@pytest.fixture
def log(rng):
    return make_log(rng)


@pytest.fixture
def path(log, tmp_path):
    """In DSRL's layout, so that both ways of reading take it."""
    with h5py.File(tmp_path / "log.hdf5", "w") as file:
        for name, values in log.items():
            file[name] = values
    return tmp_path / "log.hdf5"


@pytest.fixture
def secret(tmp_path):
    """Another file, whose values must never be read through the first."""
    with h5py.File(tmp_path / "secret.hdf5", "w") as file:
        file["observations"] = np.full((10, 8), 0.5, dtype=np.float32)
        file["group/observations"] = np.full((10, 8), 0.5, dtype=np.float32)
    (tmp_path / "secret.txt").write_bytes(bytes(320))
    return tmp_path / "secret.hdf5"


def external_link(file, secret):
    file["observations"] = h5py.ExternalLink(secret, "observations")


def external_group(file, secret):
    file["elsewhere"] = h5py.ExternalLink(secret, "group")
    file["observations"] = h5py.SoftLink("/elsewhere/observations")


def external_storage(file, secret):
    name = str(secret.with_suffix(".txt"))
    file.create_dataset("observations", (10, 8), "f4", external=[(name, 0, h5py.h5f.UNLIMITED)])


def virtual(file, secret):
    layout = h5py.VirtualLayout((10, 8), "f4")
    layout[:] = h5py.VirtualSource(str(secret), "observations", (10, 8))
    file.create_virtual_dataset("observations", layout)


class TestLinks:
    @pytest.mark.parametrize("read", [load, Trajectories.from_file])
    @pytest.mark.parametrize("lead_out", [external_link, external_group, external_storage, virtual])
    def test_nothing_outside_the_file_is_read(self, read, lead_out, path, secret):
        with h5py.File(path, "r+") as file:
            del file["observations"]
            lead_out(file, secret)
        said = refusal(read, path)
        assert "another file, which is not read; copy it into the file" in said

    @pytest.mark.parametrize("read", [load, Trajectories.from_file])
    @pytest.mark.parametrize("target", ["/kept/there", "kept/there", "/again"])
    def test_links_inside_are_followed(self, read, target, path, log):
        with h5py.File(path, "r+") as file:
            file.move("observations", "kept/there")
            file["again"] = h5py.SoftLink("/kept/there")
            file["observations"] = h5py.SoftLink(target)
        read = read(path)[0] if read is load else read(path)
        np.testing.assert_array_equal(read.observations, log["observations"])

    @pytest.mark.parametrize("read", [load, Trajectories.from_file])
    def test_links_that_lead_nowhere_or_in_a_circle(self, read, path):
        with h5py.File(path, "r+") as file:
            del file["observations"]
            file["observations"] = h5py.SoftLink("/nowhere")
        assert "'observations' is a link to '/nowhere', which is not there" in refusal(read, path)
        with h5py.File(path, "r+") as file:
            del file["observations"]
            file["observations"], file["b"] = h5py.SoftLink("/b"), h5py.SoftLink("/observations")
        assert "is a link that leads to itself" in refusal(read, path)

    def test_groups_that_hold_themselves(self, path):
        with h5py.File(path, "r+") as file:
            file["infos/again"] = h5py.SoftLink("/infos")
        assert "groups lie in each other without end" in refusal(Trajectories.from_file, path)


class TestShapes:
    @pytest.mark.parametrize("read", [load, Trajectories.from_file])
    @pytest.mark.parametrize("shape", [(10, 2**40), (2**58, 8), (10, 2**24)])
    def test_a_shape_that_the_file_cannot_hold(self, read, shape, path):
        with h5py.File(path, "r+") as file:
            del file["observations"]
            file.create_dataset("observations", shape, "f4", chunks=(1, 8))
        assert "bytes, but the file has" in refusal(read, path)

    def test_more_than_the_machine_has(self, monkeypatch):
        pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 250_000}
        monkeypatch.setattr(os, "sysconf", pages.__getitem__)
        with pytest.raises(UserError, match="x needs 2.0 GB; this machine has 1.0 GB of memory"):
            hdf5_access.check_size(2_000_000_000, 1_000_000_000, "x")
        hdf5_access.check_size(1_000_000_000, 1_000_000, "x")

    @pytest.mark.parametrize("shape", ["(10, 1099511627776)", "(1000000000000, 8)", "(10, 7)", "(9, 8)", "(-1, 8)"])
    def test_an_npz_header_that_lies(self, shape, log, tmp_path):
        whole, path = log_files.npz(tmp_path, log), tmp_path / "lies.npz"
        with zipfile.ZipFile(whole) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
            for name in old.namelist():
                content = old.read(name)
                if name == "observations.npy":
                    before = content[:128]
                    padded = before.replace(b"(10, 8), }", f"({shape[1:-1]}), }}".encode()).rstrip(b"\n ")
                    content = padded.ljust(127) + b"\n" + content[128:]
                new.writestr(name, content)
        said = refusal(Trajectories.from_file, path)
        assert "damaged" in said or "cannot be read" in said or "is it damaged?" in said

    def test_a_bomb(self, tmp_path):
        """A small archive that unpacks to much: refused by its size, before anything is unpacked."""
        with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_BZIP2) as archive:
            header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (100000000, 1), }".ljust(117) + b"\n"
            archive.writestr("observations.npy", b"\x93NUMPY\x01\x00\x76\x00" + header + bytes(100_000_000))
            archive.writestr("actions.npy", b"\x93NUMPY\x01\x00\x76\x00" + header + bytes(8))
        assert "bytes, but the file has" in refusal(Trajectories.from_file, tmp_path / "bomb.npz")


class TestArchives:
    def test_encrypted(self, log, tmp_path):
        path = log_files.npz(tmp_path, log)
        content = bytearray(path.read_bytes())
        at = content.rindex(b"PK\x01\x02")
        content[at + 8] |= 1  # the flag in the directory, and in the array's own head
        content[content.rindex(b"PK\x03\x04") + 6] |= 1
        path.write_bytes(content)
        assert "the archive is encrypted; unpack it and write it again" in refusal(Trajectories.from_file, path)

    @pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.99])
    def test_truncated(self, share, log, tmp_path):
        path = log_files.npz(tmp_path, log)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        assert "cannot be read" in refusal(Trajectories.from_file, path)

    def test_python_objects_are_not_unpickled(self, log, tmp_path):
        np.savez(tmp_path / "x.npz", **{**log, "observations": np.array([Trap()] * 10, dtype=object)})
        Trap.sprung = False
        assert "observations: expected an array of numbers, found object" in refusal(
            Trajectories.from_file, tmp_path / "x.npz"
        )
        assert not Trap.sprung

    def test_two_arrays_of_one_name(self, log, tmp_path):
        path = log_files.npz(tmp_path, log)
        with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("actions.npy", archive.read("actions.npy"))
        assert "two arrays of one name" in refusal(Trajectories.from_file, path)


class Trap:
    sprung = False

    def __reduce__(self):
        return _spring, ()


def _spring():
    Trap.sprung = True
    return Trap()


class TestWrongAdvice:
    """What is not damaged is not called so."""

    def test_a_locked_file(self, path):
        with path.open("rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            said = refusal(Trajectories.from_file, path)
        assert "another process is writing this file" in said and "delete" not in said and "damaged" not in said

    def test_a_filter_that_is_not_installed(self, path):
        with h5py.File(path, "r+") as file:
            del file["observations"]
            pipeline = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            pipeline.set_chunk((10, 8))
            pipeline.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)  # zstd, which needs hdf5plugin
            space = h5py.h5s.create_simple((10, 8))
            dataset = h5py.h5d.create(file.id, b"observations", h5py.h5t.NATIVE_FLOAT, space, pipeline)
            dataset.write_direct_chunk((0, 0), b"(compressed)")
        said = refusal(Trajectories.from_file, path)
        assert "a filter that is not installed" in said and "pip install hdf5plugin" in said and "delete" not in said

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_file_of_somebody_else(self, path):
        path.chmod(0)
        assert "may not be read by you" in refusal(load, path)

    @pytest.mark.parametrize("read", [load, Trajectories.from_file])
    @pytest.mark.parametrize(
        "value",
        [None, np.float32(3), np.zeros((0, 8)), h5py.Empty("f"), np.zeros((10,) + (1,) * 28), b"text", [b"x"] * 10,
         np.zeros(10, dtype=[("a" * 60 + str(i), "f4") for i in range(200)])],
        ids=["group", "scalar", "no rows", "empty", "28 dimensions", "text", "texts", "compound"],
    )  # fmt: skip
    @pytest.mark.parametrize("key", ["observations", "actions"])
    def test_no_array_of_numbers(self, read, value, key, path):
        with h5py.File(path, "r+") as file:
            del file[key]
            if value is None:
                file.create_group(key)["x" * 5000] = np.zeros(3)
            else:
                file[key] = value
        refusal(read, path)

    @pytest.mark.parametrize("value", [None, np.float32(3), np.zeros(0), h5py.Empty("f"), np.full(10, np.nan), b"x"])
    def test_ends_that_are_none(self, value, path):
        with h5py.File(path, "r+") as file:
            del file["timeouts"], file["terminals"]
            if value is None:
                file.create_group("timeouts")
            else:
                file["timeouts"] = value
        for read in (load, Trajectories.from_file):
            refusal(read, path)

    def test_thousands_of_names(self, tmp_path):
        with h5py.File(tmp_path / "many.hdf5", "w") as file:
            for number in range(3000):
                file[f"array\x1b[31m{number}"] = 0.0
        for read in (load, Trajectories.from_file):
            assert "observations" in refusal(read, tmp_path / "many.hdf5")


EVIL = "\x1b]0;owned\x07<script>alert(1)</script>\n| [x](javascript:1) `x`\u202e"


class TestAttributes:
    """What others wrote into a file is never printed as it is."""

    @pytest.fixture
    def named(self, tmp_path, rng):
        log = make_log(rng)
        attributes = {"collected_by": EVIL, "recipe": EVIL, "seed": EVIL, "recipes": json.dumps({EVIL: 10})}
        trajectories, outcomes = _whole(log)
        path = tmp_path / "SafetyBallCircle-v0-80-3.hdf5"
        save(path, trajectories, outcomes, attributes)
        return path

    def test_in_the_list_of_datasets(self, named, monkeypatch, capsys):
        monkeypatch.setenv("DSRL_DATASET_DIR", str(named.parent))
        assert datasets.main(["list"]) == 0
        shown = capsys.readouterr().out
        assert "collected (recipe " in shown
        _harmless(shown)

    def test_in_words_and_recipes(self):
        for attributes in ({"collected_by": 1}, {"collected_by": 1, "recipe": EVIL}, {"converted_from": EVIL}):
            _harmless(origin_of(__file__ and checkpoints.Path(__file__), attributes))
        for recipes in ("{", "[]", "3", '{"a": "x"}', '{"a": -3}', json.dumps({EVIL: 5}), 7, "[" * 10_000):
            names = recipes_of({"recipes": recipes, "recipe": EVIL}, 5)
            assert len(names) == 5
            _harmless("".join(names))

    def test_attributes_of_any_type(self, named):
        with h5py.File(named, "r+") as file:
            file.attrs["recipe"] = np.arange(1000)
            file.attrs["seed"], file.attrs["git"] = h5py.Empty("f"), np.array([b"x"])
        load(named)
        assert datasets.inventory(named.parent).count("\n") == 2

    def test_in_names_of_arrays_and_files(self, log, tmp_path):
        path = tmp_path / f"{EVIL.replace('/', '')}.npz"
        np.savez(path, **{"observations": log["observations"], EVIL.replace("/", ""): np.zeros(3)})
        with pytest.raises(UserError) as raised:
            convert(path, tmp_path / "out.hdf5")
        assert str(raised.value).isprintable()


def _whole(log):
    from safemil.data.trajectories import Outcomes
    from safemil.data.trajectories import Trajectories as Plain

    offsets = log_files.OFFSETS
    return Plain(log["observations"], log["actions"], offsets), Outcomes(
        log["rewards"], log["costs"], log["terminals"], offsets
    )


def _harmless(text: str) -> None:
    assert not set("<>`|[]\x1b\x07\u202e") & set(text) and all(
        letter.isprintable() or letter == "\n" for letter in text
    )


def test_a_file_that_crashes_the_hdf5_library(path, monkeypatch, capfd):
    """What the forked process dies of is said of the file; this process goes on."""
    said = []
    for number in (11, 6, 9):
        with pytest.raises(UserError) as raised:
            hdf5_access.check_survivable(path, lambda number=number: os.kill(os.getpid(), number))
        said.append(str(raised.value))
    assert "the HDF5 library crashes on it" in said[0] and "crashes" in said[1] and "memory runs out" in said[2]
    hdf5_access.check_survivable(path, lambda: 1 / 0)  # an error is no crash: the caller meets it again
    assert capfd.readouterr().err == ""


class TestCheckpoints:
    @pytest.fixture
    def folder(self, tmp_path):
        checkpoints.save(tmp_path / "policy", Policy(make_generators([0], "policy"), 3, 2, (8, 8)), seed=0, config={})
        return tmp_path / "policy"

    def described(self, folder, **changes):
        file = folder / "policy.json"
        described = json.loads(file.read_text())
        described["policy"] |= changes
        del described["sha256"]
        file.write_text(json.dumps(described))

    @pytest.mark.parametrize(
        "named",
        ["os:system", "safemil.nn.checkpoints:os", "safemil.config.atomic:discard", "safemil.nn.policies:nn.Module",
         "baselines.registry:METHODS", "tune.run:main", "safemil.nn.policies:Deterministic", "safemil:load_policy",
         "torch.nn:Linear", "safemil.nn.policies", "", None, 3, ["safemil.nn.policies:Policy"],
         "safemil.nowhere:Policy", "safemil.nn.policies:Normalizer", "safemil..nn:Policy", EVIL],
    )  # fmt: skip
    def test_it_may_name_networks_alone(self, named, folder):
        self.described(folder, **{"class": named})
        said = refusal(checkpoints.load_policy, folder)
        assert "which is not of this suite's networks" in said or "cannot be imported" in said

    @pytest.mark.parametrize(
        "shape",
        [{"hidden": [10**6, 10**6]}, {"observation_dim": 10**12}, {"hidden": [10**5] * 10}, {"hidden": -3},
         {"hidden": [-3]}, {"head": "exec"}, {"hidden": None}, {"nothing": 1}, {"hidden": [8]}, {"action_dim": 3},
         {"hidden": ["8", 8]}],
    )  # fmt: skip
    def test_shapes_that_do_not_fit_or_no_memory_holds(self, shape, folder):
        self.described(folder, shape={"observation_dim": 3, "action_dim": 2, "hidden": [8, 8], "head": "det", **shape})
        assert "does not fit the policy in its json" in refusal(checkpoints.load_policy, folder)

    @pytest.mark.parametrize(
        "content", ["", "{", "[]", "null", "3", '{"policy": 3}', '{"policy": {}}', "\x00", "[" * 99_999]
    )
    def test_json_that_is_damaged(self, content, folder):
        (folder / "policy.json").write_text(content)
        refusal(checkpoints.load_policy, folder)
        refusal(checkpoints.load_scorer, folder)

    def test_tensors_that_are_damaged_or_another_s(self, folder, tmp_path):
        file = folder / "policy.safetensors"
        whole = file.read_bytes()
        for content in (
            b"",
            whole[:50],
            whole[:-4],
            bytes(8) + whole[8:],
            b"\xff" * 8 + whole[8:],
            whole[:-1] + b"\x7f",
        ):
            file.write_bytes(content)
            assert "damaged" in refusal(checkpoints.load_policy, folder)
        checkpoints.save(tmp_path / "other", Policy(make_generators([1], "policy"), 3, 2, (8, 8)))
        shutil.copy(tmp_path / "other" / "policy.safetensors", file)
        assert "belongs to another policy.json" in refusal(checkpoints.load_policy, folder)

    def test_one_without_a_digest_is_read(self, folder):
        before = checkpoints.load_policy(folder).act(np.ones((2, 3)))
        self.described(folder)
        np.testing.assert_array_equal(checkpoints.load_policy(folder).act(np.ones((2, 3))), before)
        assert torch.get_default_device().type == "cpu"
