"""Where a run's folder lives: a folder that every node sees, or an object store reached through fsspec.

With a URI (``s3://bucket/path``, ``file:///...``) each machine works in a folder of its own; a trial is copied to the
store when it ends, its ``done`` file last, and everything is fetched back for the tables. Claims (tune/claims.py) hold
among the processes of one machine only, since stores have no common way to create a file exclusively: two machines may
then do the same trial, to the same result.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from safemil.config.atomic import atomic_write
from safemil.config.errors import UserError


def is_uri(storage: str) -> bool:
    """Whether ``storage`` names an object store rather than a folder."""
    return "://" in storage


def working_folder(storage: str, name: str) -> Path:
    """The local folder a run works in: the run's own, or a staging folder that is the same for the same URI."""
    if not is_uri(storage):
        return (Path(storage) / name).resolve()
    digest = hashlib.sha256(f"{storage}/{name}".encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"safemil-runs-{os.getuid()}" / f"{name}-{digest}"


def _open(uri: str):
    import fsspec

    try:
        filesystem, root = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise UserError(f"--storage {uri}: {error}") from None
    filesystem.invalidate_cache()  # of listings: other processes write there
    return filesystem, root.rstrip("/")


def push_trials(uri: str, trials_folder: Path | str, trial_ids: Sequence[str]) -> None:
    """Copy trial folders to the store, each trial's ``done`` last."""
    filesystem, root = _open(uri)
    for trial_id in trial_ids:
        folder = Path(trials_folder) / trial_id
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".tmp"))
        files.sort(key=lambda path: path.name == "done")
        for path in files:
            target = f"{root}/trials/{trial_id}/{path.relative_to(folder).as_posix()}"
            filesystem.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
            filesystem.put_file(str(path), target)


def push_files(uri: str, folder: Path, names: Sequence[str]) -> None:
    """Copy files or folders of the run other than its trials; what an earlier copy left in those folders goes."""
    filesystem, root = _open(uri)
    for name in names:
        source = folder / name
        files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
        targets = {f"{root}/{path.relative_to(folder).as_posix()}": path for path in files if path.is_file()}
        for target, path in targets.items():
            filesystem.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
            filesystem.put_file(str(path), target)
        if source.is_dir():
            for former in set(filesystem.find(f"{root}/{name}")) - targets.keys():
                filesystem.rm_file(former)


def pull(uri: str, folder: Path) -> None:
    """Fetch what the store has of the run into ``folder``; give it the finished trials that a broken copy left here."""
    filesystem, root = _open(uri)
    for trial in (folder / "trials").glob("*/done"):
        if not filesystem.exists(f"{root}/trials/{trial.parent.name}/done"):
            push_trials(uri, folder / "trials", [trial.parent.name])
    _get(filesystem, root, folder)


def pull_trials(uri: str, trials_folder: Path | str, trial_ids: Sequence[str]) -> None:
    """Fetch what other machines have done of these trials, unless they are finished here."""
    filesystem, root = _open(uri)
    for trial_id in trial_ids:
        folder = Path(trials_folder) / trial_id
        if not (folder / "done").exists():
            _get(filesystem, f"{root}/trials/{trial_id}", folder)


def _get(filesystem, root: str, folder: Path) -> None:
    """Every file below ``root``; ``done`` markers last, and each file whole or not at all."""
    if not filesystem.exists(root):
        return
    for path in sorted(filesystem.find(root), key=lambda path: path.endswith("/done")):
        target = folder / path[len(root) :].lstrip("/")
        with atomic_write(target) as temporary:
            filesystem.get_file(path, str(temporary))
