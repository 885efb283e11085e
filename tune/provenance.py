"""What a result carries of where it came from: git commit, package versions, dataset hash, command."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import subprocess
from pathlib import Path

PACKAGES = ("safemil", "torch", "numpy", "ray", "dsrl", "osrl-lib", "gymnasium", "mujoco", "pybullet")


@functools.cache
def package_versions() -> dict[str, str]:
    """Name -> version of every package that can change a number; absent ones are left out."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@functools.cache
def git_commit() -> str:
    """The commit this code is at, with ``-modified`` where tracked files differ from it; empty outside a checkout."""
    root = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("-modified" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return ""
