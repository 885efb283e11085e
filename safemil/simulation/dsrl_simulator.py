"""DSRL's tasks: Bullet-Safety-Gym and safety-gymnasium, through the environments that dsrl registers.

Three things stand against episodes that depend on (task, seed, actions) alone: the Bullet tasks ignore the seed given
to ``reset`` and draw from the global generators of numpy and Python; several tasks (Car and Drone of Bullet, CarPush2,
CarButton1) carry state from one episode into the next; and drawing would leave the caller's random numbers changed. So
every ``reset`` builds a fresh simulator with random numbers of the episode alone. Without the parts that serve drawing
alone, that takes 3 to 30 ms (about 1 s for Button tasks, which place their objects by rejection).
"""

from __future__ import annotations

import contextlib
import ctypes.util
import importlib.metadata
import io
import os
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from safemil.config.errors import UserError
from safemil.data.tasks import Task
from safemil.simulation.bullet_remedy import bullet_construction
from safemil.simulation.safety_gymnasium_remedy import make_defaults_hashable, without_textures
from safemil.simulation.simulators import FRAME_HEIGHT, FRAME_WIDTH, Simulator, isolated_random_numbers

# The datasets were recorded on 2.3.0. 2.3.3 gives the same numbers to 10 digits on 9 tasks; 2.3.7 cannot load Hopper
# and Walker2d; 3.2.7 cannot load Swimmer either and changes the numbers.
MUJOCO_OLDEST, MUJOCO_NEWEST = (2, 3, 0), (2, 3, 3)


class DSRLSimulator(Simulator):
    """A task that dsrl registers with gymnasium."""

    def __init__(self, task: Task, render: bool = False) -> None:
        """Load what the task needs. Only with ``render`` can it draw; without, it starts faster.

        Raises ``UserError`` when a package is missing, when MuJoCo's version would change the physics, and when a
        MuJoCo task is to be drawn where there is no OpenGL.
        """
        if task.family != "bullet":
            check_mujoco_version()
            if render:
                _import_opengl()
        import_simulators()
        super().__init__(task, render)
        self._environment: Any = None
        self._renderer: Any = None

    def reset(self, seed: int) -> np.ndarray:
        import gymnasium

        self.close()
        with isolated_random_numbers(seed), _known_warnings_silenced(), self._lean_construction():
            self._environment = gymnasium.make(
                self.task.environment_id, max_episode_steps=self.task.horizon, disable_env_checker=True
            )
            observation, _ = self._environment.reset(seed=seed)
        return np.asarray(observation, dtype=np.float32)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, float, bool, bool]:
        observation, reward, terminated, truncated, info = self._running().step(action)
        observation = np.asarray(observation, dtype=np.float32)
        return observation, float(reward), float(info["cost"]), bool(terminated), bool(truncated)

    def render(self) -> np.ndarray:
        self.check_drawn()
        world = self._running().unwrapped
        return _draw_bullet(world) if self.task.family == "bullet" else self._draw_mujoco(world)

    def close(self) -> None:
        self._renderer = None  # first, as its OpenGL context belongs to the environment's model
        if self._environment is not None:
            self._environment.close()
            self._environment = None

    def _running(self):
        if self._environment is None:
            raise RuntimeError(f"{self.task.name}: call reset(seed) first")
        return self._environment

    def _lean_construction(self) -> contextlib.AbstractContextManager:
        """For building and resetting the environment: leaves out what serves drawing alone, if nothing is drawn."""
        if self.task.family == "bullet":
            return bullet_construction(visual_shapes=self._drawn)
        if self.task.family == "navigation" and not self._drawn:
            return without_textures()
        return contextlib.nullcontext()

    def _draw_mujoco(self, world) -> np.ndarray:
        import mujoco

        holder = world.task if self.task.family == "navigation" else world
        model, data = holder.model, holder.data
        if self._renderer is None:
            model.vis.global_.offwidth, model.vis.global_.offheight = FRAME_WIDTH, FRAME_HEIGHT
            self._renderer = mujoco.Renderer(model, FRAME_HEIGHT, FRAME_WIDTH)
        everything = mujoco.MjvOption()
        everything.geomgroup[:] = 1  # goals and hazards lie in groups that are hidden by default
        camera = "fixedfar" if self.task.family == "navigation" else "track"
        self._renderer.update_scene(data, camera=camera, scene_option=everything)
        return self._renderer.render()


def check_mujoco_version() -> None:
    """Refuse a MuJoCo whose physics differ from the datasets'. Raises ``UserError`` saying what to install."""
    expected = f"{'.'.join(map(str, MUJOCO_OLDEST))} .. {'.'.join(map(str, MUJOCO_NEWEST))}"
    remedy = "pip install mujoco==2.3.3 (there are wheels for Python 3.10 and 3.11)"
    try:
        installed = importlib.metadata.version("mujoco")
    except importlib.metadata.PackageNotFoundError:
        raise UserError(f"mujoco is not installed, MuJoCo tasks need {expected}: {remedy}") from None
    numbers = tuple(int(number) for number in re.findall(r"\d+", installed)[:3])
    if not MUJOCO_OLDEST <= numbers <= MUJOCO_NEWEST:
        raise UserError(f"mujoco {installed} is installed, the datasets were recorded on {expected}: {remedy}")


def import_simulators() -> None:
    """Import dsrl, which registers every task with gymnasium, quietly. Raises ``UserError`` when it is missing."""
    # dsrl tells that MetaDrive, which nobody here uses, could not be imported; and if the old gym is there for
    # MetaDrive, that one prints that it is no longer maintained.
    os.environ.setdefault("DSRL_SUPPRESS_IMPORT_ERROR", "1")
    if not os.environ.get("DSRL_DATASET_DIR"):  # dsrl takes an empty one for a folder
        os.environ.pop("DSRL_DATASET_DIR", None)
    try:
        with _known_warnings_silenced(), contextlib.redirect_stderr(io.StringIO()):
            import dsrl
            import dsrl.offline_bullet_safety_gym
            import dsrl.offline_safety_gymnasium  # noqa: F401
    except ImportError as error:
        raise UserError(f"the simulators are not installed ({error}): `make install` puts them into .venv") from error
    except OSError as error:
        raise UserError(f"dsrl cannot make its folder ({error}): set DSRL_DATASET_DIR to one you may write") from error
    make_defaults_hashable()


def _import_opengl() -> None:
    """Import mujoco with an OpenGL that works; without a display that is EGL, else OSMesa, unless MUJOCO_GL says so.

    mujoco looks at MUJOCO_GL once, when it is imported, so a process that may draw calls this first.
    """
    chosen = os.environ.get("MUJOCO_GL")
    if chosen is None and sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ["MUJOCO_GL"] = "egl" if ctypes.util.find_library("EGL") else "osmesa"
    try:
        import mujoco.gl_context

        with warnings.catch_warnings():
            warnings.simplefilter("error")  # without a display GLFW only warns, and crashes later
            mujoco.gl_context.GLContext(FRAME_WIDTH, FRAME_HEIGHT).free()
    except Exception as error:  # PyOpenGL and mujoco fail in half a dozen ways
        raise UserError(
            f"nothing here can draw MuJoCo (MUJOCO_GL={os.environ.get('MUJOCO_GL', '')}: {error}): install libegl1 and"
            " libgl1-mesa-dri, or libosmesa6 and set MUJOCO_GL=osmesa"
        ) from error
    finally:
        if chosen is None:  # rollout workers draw nothing and need no OpenGL
            os.environ.pop("MUJOCO_GL", None)


def _draw_bullet(world) -> np.ndarray:
    """Bullet's own software renderer, seen with the task's own camera, a little farther away in Circle tasks."""
    client, camera, agent = world.bc, world.world.camera, world.agent
    # The agent wears a sphere that turns red where it costs; the software renderer knows no transparency, and the
    # sphere would hide the agent. It has no mass and no collision shape, and every step moves it back.
    client.resetBasePositionAndOrientation(agent.violation_body_id, [0, 0, -100], [0, 0, 0, 1])
    view = client.computeViewMatrixFromYawPitchRoll(
        cameraTargetPosition=camera.cam_base_pos,
        distance=max(camera.cam_dist, 2.5) * 1.5,
        yaw=camera.cam_yaw,
        pitch=camera.cam_pitch,
        roll=0,
        upAxisIndex=2,
    )
    projection = client.computeProjectionMatrixFOV(fov=60, aspect=FRAME_WIDTH / FRAME_HEIGHT, nearVal=0.1, farVal=100)
    pixels = client.getCameraImage(FRAME_WIDTH, FRAME_HEIGHT, view, projection, renderer=client.ER_TINY_RENDERER)[2]
    return np.asarray(pixels, dtype=np.uint8).reshape(FRAME_HEIGHT, FRAME_WIDTH, 4)[..., :3]


@contextlib.contextmanager
def _known_warnings_silenced() -> Iterator[None]:
    """Silence, one by one, what the simulators' code warns of on newer libraries; everything else still shows."""
    with warnings.catch_warnings():
        # safety-gymnasium looks up joints by arrays of one element, which numpy deprecated in 1.25.
        warnings.filterwarnings(
            "ignore", "Conversion of an array with ndim > 0", DeprecationWarning, "safety_gymnasium"
        )
        yield
