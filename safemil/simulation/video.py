"""Videos of a policy at work: a policy and a task come in; an mp4 or gif with the running return and cost goes out.

Every episode is drawn by a fresh simulator of its own. gymnasium's RecordVideo is no help: it refuses DSRL's
environments, and from its second video on the frames are black.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from safemil.config.errors import UserError
from safemil.data.tasks import Task
from safemil.simulation.rollouts import Act, Actor, Episode, one_torch_thread, play
from safemil.simulation.simulators import make

FRAMES_PER_SECOND = 25
# Drawing without a graphics card takes about 0.1 s a frame, so long episodes show every second or fourth step.
FRAMES_PER_EPISODE = 250
STRIP_HEIGHT = 24
RED, WHITE, BLACK = (220, 30, 30), (255, 255, 255), (0, 0, 0)


def check_video_path(path: Path) -> None:
    """Raise ``UserError`` unless ``path`` is an mp4 or gif file in a folder that exists."""
    if path.suffix not in (".mp4", ".gif"):
        raise UserError(f"{path}: a video's name ends in .mp4 or .gif, found {path.suffix or 'no ending'!r}")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}; make it first")


def record(
    policy: Act | Actor, task: Task, indices: Iterable[int], evaluation_seed: int, path: Path, cost_limit: float
) -> list[Episode]:
    """Play the episodes ``indices`` and write one video of them, whole or not at all; gives the episodes.

    They are the very episodes of an evaluation under the same seed. Frames whose steps cost have a red border.
    """
    import imageio.v2 as imageio

    check_video_path(path)
    part = path.with_name(f".part-{path.name}")
    options = {"loop": 0, "duration": 1000 / FRAMES_PER_SECOND} if path.suffix == ".gif" else {"fps": FRAMES_PER_SECOND}
    stride = -(-task.horizon // FRAMES_PER_EPISODE)
    episodes = []
    video: Any  # imageio's stub leaves out append_data
    try:
        with (
            make(task, render=True) as simulator,
            imageio.get_writer(part, **options) as video,
            one_torch_thread(),
        ):
            for index in indices:
                drawn_cost = 0.0

                def draw(episode: Episode) -> None:
                    nonlocal drawn_cost
                    if episode.length % stride == 0 or episode.terminated:
                        costs = episode.cost > drawn_cost
                        drawn_cost = episode.cost
                        caption = (
                            f"{task.name}  episode {episode.index}  step {episode.length}"
                            f"  return {episode.return_:.1f}  cost {episode.cost:g} (limit {cost_limit:g})"
                        )
                        video.append_data(annotate(simulator.render(), caption, costs))

                episodes.append(play(policy, simulator, index, evaluation_seed, draw))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return episodes


def annotate(frame: np.ndarray, caption: str, costs: bool) -> np.ndarray:
    """``frame`` (height, width, 3) with a caption in a strip above the scene and, if ``costs``, a red border."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(np.ascontiguousarray(frame))
    canvas = ImageDraw.Draw(image)
    if costs:
        canvas.rectangle([0, 0, image.width - 1, image.height - 1], outline=RED, width=6)
    canvas.rectangle([0, 0, image.width, STRIP_HEIGHT], fill=RED if costs else BLACK)
    canvas.text((8, 4), caption, fill=WHITE, font=ImageFont.load_default(size=14))
    return np.asarray(image)
