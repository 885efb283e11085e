"""Two remedies for bullet-safety-gym 1.4.0, applied by ``dsrl_simulator``: for slow construction, and for trigonometry
whose last digits depend on the processor. Out: a context in which its worlds are built.
"""

from __future__ import annotations

import contextlib
import math
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy


class ScalarTrigonometry(types.ModuleType):
    """numpy as bullet-safety-gym uses it, with Python's functions of single angles.

    numpy's take other instructions, and give other last digits, where a processor has AVX-512.
    """

    sin, cos, arctan2 = staticmethod(math.sin), staticmethod(math.cos), staticmethod(math.atan2)

    def __getattr__(self, name: str) -> Any:
        return getattr(numpy, name)


@contextlib.contextmanager
def bullet_construction(visual_shapes: bool) -> Iterator[None]:
    """Build Bullet worlds inside this block; without visual shapes a drone's 0.7 s become 0.02 s, physics unchanged."""
    # bullet-safety-gym redirects the descriptors of sys.stdout and sys.stderr and looks both up in libc by name, which
    # fails with the substitutes of pytest, notebooks and progress bars: give it the interpreter's own.
    with contextlib.redirect_stdout(sys.__stdout__), contextlib.redirect_stderr(sys.__stderr__):
        import bullet_safety_gym.envs.builder  # noqa: F401  (imports pybullet with its banner silenced)
        import pybullet
        from bullet_safety_gym.envs import agents, tasks
        from pybullet_utils.bullet_client import BulletClient

        def load_without_visual_shapes(client: BulletClient, *arguments, flags: int = 0, **options) -> int:
            flags |= pybullet.URDF_IGNORE_VISUAL_SHAPES
            return pybullet.loadURDF(*arguments, flags=flags, physicsClientId=client._client, **options)

        agents.np = tasks.np = ScalarTrigonometry(
            "numpy"
        )  # for as long as the process lives, so that steps have it too
        if not visual_shapes:
            BulletClient.loadURDF = load_without_visual_shapes  # found before __getattr__, which serves pybullet's own
        try:
            yield
        finally:
            if not visual_shapes:
                del BulletClient.loadURDF
