"""SimpleSpread: three agents of PettingZoo's MPE cover three landmarks, as one joint task or in turns.

World, agents, landmarks and observations are those of ``simple_spread_v3`` (https://pettingzoo.farama.org, MIT). An
agent's view is its velocity (2), its position (2), where the landmarks (6) and the other agents (4) are as seen from
it, and two messages that are always 0 (4). What differs, so that care has a price:

- The landmarks form a triangle of radius 0.05 to 0.25 and lie elsewhere after every 50 steps. Agents have radius 0.15:
  on narrow triangles three agents that cover all landmarks overlap.
- Cost 1 for each step in which two agents touch. They do not push each other away: to touch is a mistake, no obstacle.
- The reward of a step is the sum over landmarks of max(0, 1 - d / 0.2), d being the distance of the nearest agent. The
  original's -d pays for closeness no more near a landmark than far from it; its local term is here the cost.

Jointly, the observation holds the three views one after the other and the action three accelerations. In turns, the
agents' views come one by one, each is answered by that agent's acceleration, and the world moves when all have
answered: one policy for all agents that sees one agent's own view. Reward and cost of the team come with the last turn.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from safemil.config.errors import UserError
from safemil.data.tasks import Task
from safemil.simulation.simulators import FRAME_HEIGHT, FRAME_WIDTH, Simulator

N_AGENTS = 3
ROUND = 50  # steps after which the landmarks lie elsewhere
CENTER = 0.6  # |x| and |y| of the triangle's center at most
RADIUS = (0.05, 0.25)  # of the triangle
REACH = 0.2  # distance from a landmark at which the reward begins
SENSITIVITY = 5.0  # MPE's acceleration at an action of 1
PIXELS_PER_UNIT = 150


class SimpleSpread(Simulator):
    """The joint task."""

    turns = 1  # actions that make one step of the world

    def __init__(self, task: Task, render: bool = False) -> None:
        super().__init__(task, render)
        self._scenario = _import_scenario()()
        self._world: Any = None

    def reset(self, seed: int) -> np.ndarray:
        self._rng = np.random.default_rng(seed)
        self._world = self._scenario.make_world(N_AGENTS)
        self._scenario.reset_world(self._world, self._rng)
        for agent in self._world.agents:
            agent.collide = False
        self._place_landmarks()
        self._steps = 0
        self._given: list[np.ndarray] = []  # actions of this step of the world so far
        return self._observe()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, float, bool, bool]:
        self._steps += 1
        self._given.extend(np.asarray(action, dtype=np.float64).reshape(-1, 2))
        reward = cost = 0.0
        if len(self._given) == N_AGENTS:
            for agent, own in zip(self._world.agents, self._given, strict=True):
                agent.action.u = SENSITIVITY * own
            self._given = []
            self._world.step()
            reward, cost = self.reward(), self.cost()
            if self._steps // self.turns % ROUND == 0:
                self._place_landmarks()
        return self._observe(), reward, cost, False, self._steps >= self.task.horizon

    def reward(self) -> float:
        """Sum over landmarks of max(0, 1 - d / 0.2), d to the nearest agent."""
        agents, landmarks = self.positions()
        distances = np.linalg.norm(agents[:, None] - landmarks[None], axis=-1).min(0)
        return float(np.maximum(0.0, 1.0 - distances / REACH).sum())

    def cost(self) -> float:
        """1 where two agents touch, else 0."""
        agents = self._world.agents
        pairs = [(one, other) for index, one in enumerate(agents) for other in agents[:index]]
        return float(any(self._scenario.is_collision(one, other) for one, other in pairs))

    def positions(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the agents and of the landmarks, (3, 2) each."""
        entities = self._world.agents, self._world.landmarks
        agents, landmarks = (np.array([one.state.p_pos for one in kind]) for kind in entities)
        return agents, landmarks

    def render(self) -> np.ndarray:
        self.check_drawn()
        from PIL import Image, ImageDraw

        image = Image.new("RGB", (FRAME_WIDTH, FRAME_HEIGHT), "white")
        canvas = ImageDraw.Draw(image)
        agents, landmarks = self.positions()
        touching = self.cost() > 0
        for positions, entities in ((agents, self._world.agents), (landmarks, self._world.landmarks)):
            for (x, y), entity in zip(positions, entities, strict=True):
                color = "#222222" if positions is landmarks else "#c0392b" if touching else "#2e6fb7"
                center = FRAME_WIDTH / 2 + PIXELS_PER_UNIT * x, FRAME_HEIGHT / 2 - PIXELS_PER_UNIT * y
                canvas.circle(center, PIXELS_PER_UNIT * entity.size, fill=color, outline="white")
        return np.asarray(image)

    def close(self) -> None:
        self._world = None

    def _place_landmarks(self) -> None:
        center, radius = self._rng.uniform(-CENTER, CENTER, 2), self._rng.uniform(*RADIUS)
        angles = self._rng.uniform(0, 2 * np.pi) + 2 * np.pi / N_AGENTS * np.arange(N_AGENTS)
        for landmark, angle in zip(self._world.landmarks, angles, strict=True):
            landmark.state.p_pos = center + radius * np.array([np.cos(angle), np.sin(angle)])

    def _observe(self) -> np.ndarray:
        views = [self._scenario.observation(agent, self._world) for agent in self._world.agents]
        return np.concatenate(views).astype(np.float32)


class SimpleSpreadInTurns(SimpleSpread):
    """One agent's view and acceleration at a time."""

    turns = N_AGENTS

    def _observe(self) -> np.ndarray:
        agent = self._world.agents[len(self._given)]
        return self._scenario.observation(agent, self._world).astype(np.float32)


def _import_scenario() -> Any:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # MPE imports pygame, which greets, to draw in windows
    try:
        from pettingzoo.mpe.simple_spread.simple_spread import Scenario
    except ImportError as error:
        raise UserError(f"PettingZoo's MPE is not installed ({error}): `make install` puts it into .venv") from error
    return Scenario
