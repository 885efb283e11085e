"""Where pretrained agents lie, and how a missing one is fetched. In: a ``PretrainedAgent``. Out: its network.

The agents are those of RL Baselines3 Zoo (https://github.com/DLR-RM/rl-trained-agents, MIT), which are not part of this
project. An agent's files are taken from the first of these that has them:

1. the folder that ``$SAFEMIL_AGENTS`` names, laid out as the public repository;
2. ``agents`` in the dataset folder, where downloads are kept, laid out likewise;
3. a download: the public repository, then the organization ``sb3`` on the Hugging Face hub (``$HF_ENDPOINT`` is
   honored).

The checksum is one of the numbers in the files, which are all that is used of them: the hub's copies were saved anew by
another version of the library, so that their bytes may differ.
"""

from __future__ import annotations

import functools
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from safemil.collection.agent_reading import read_agent
from safemil.collection.recipes.networks import Network
from safemil.config.errors import UserError
from safemil.data.download import FileKind, SourceError, download, forget
from safemil.data.locate import HUGGING_FACE, dataset_folder, lock

logger = logging.getLogger(__name__)

REPOSITORY = "https://github.com/DLR-RM/rl-trained-agents/raw/cd35bde"
ZIP = FileKind("a zip file", b"PK\x03\x04")
PICKLE = FileKind("a pickle", b"\x80")


@dataclass(frozen=True)
class PretrainedAgent:
    """One agent of the public repository."""

    algorithm: str  # "trpo"
    environment: str  # "Ant-v3"
    digest: str  # SHA-256 of its numbers, see ``Network.digest``
    normalized: bool = True  # observation statistics lie beside the policy

    @property
    def name(self) -> str:
        return f"{self.algorithm} {self.environment}"

    @property
    def files(self) -> dict[str, FileKind]:
        """Path in the public repository -> kind, the policy first."""
        folder = f"{self.algorithm}/{self.environment}_1"
        statistics = {f"{folder}/{self.environment}/vecnormalize.pkl": PICKLE} if self.normalized else {}
        return {f"{folder}/{self.environment}.zip": ZIP} | statistics

    @property
    def sources(self) -> list[dict[str, str]]:
        """Path in the public repository -> address, for each place on the net."""
        hub = (os.environ.get("HF_ENDPOINT") or HUGGING_FACE).rstrip("/")
        name = f"{self.algorithm}-{self.environment}"
        copies = (f"{hub}/sb3/{name}/resolve/main/{file}" for file in (f"{name}.zip", "vec_normalize.pkl"))
        return [{path: f"{REPOSITORY}/{path}" for path in self.files}, dict(zip(self.files, copies, strict=False))]


@functools.lru_cache(maxsize=8)
def find_agent(agent: PretrainedAgent) -> Network:
    """The agent's network, fetched if need be. Two processes that want the same agent download it once.

    Raises:
        UserError: no source gave it, or a file in one of the folders is damaged or another agent's.
    """
    named = os.environ.get("SAFEMIL_AGENTS")
    kept = dataset_folder() / "agents"
    for folder in [Path(named).expanduser(), kept] if named else [kept]:
        if all((folder / path).exists() for path in agent.files):
            return _read_checked(agent, [folder / path for path in agent.files])
        logger.debug("%s is not in %s", agent.name, folder)
    with lock(kept, agent.name.replace(" ", "-")):
        if all((kept / path).exists() for path in agent.files):  # another process has downloaded it meanwhile
            return _read_checked(agent, [kept / path for path in agent.files])
        answers = []
        for addresses in agent.sources:
            try:
                return _download_checked(agent, addresses, kept)
            except SourceError as error:
                logger.info("%s", error)
                answers.append(f"  {error}")
    looked = f"{named} (SAFEMIL_AGENTS), {kept}" if named else str(kept)
    raise UserError(
        f"no pretrained agent {agent.name}: {' or '.join(agent.files)} is missing in {looked}, and no source gave it:\n"
        + "\n".join(answers)
        + "\nWays out: name a folder that holds these paths (SAFEMIL_AGENTS=folder, a checkout of"
        + " https://github.com/DLR-RM/rl-trained-agents), or a hub that can be reached (HF_ENDPOINT=address)"
    )


def _download_checked(agent: PretrainedAgent, addresses: dict[str, str], folder: Path) -> Network:
    """Download an agent's files to temporary names, check their numbers, and only then give them their names."""
    parts = {path: folder / f"{path}.part" for path in agent.files}
    for path, part in parts.items():
        part.parent.mkdir(parents=True, exist_ok=True)
        logger.info("downloading %s", addresses[path])
        try:
            download(addresses[path], part, kind=agent.files[path])
        except SourceError as error:
            raise SourceError(f"{addresses[path]}: {error}") from error
    try:
        network = _read_checked(agent, list(parts.values()))
    except UserError as error:
        for part in parts.values():
            forget(part)
        raise SourceError(f"{next(iter(addresses.values()))}: what came is not the agent: {error}") from error
    for path, part in parts.items():
        os.replace(part, folder / path)
        forget(part)
    return network


def _read_checked(agent: PretrainedAgent, files: list[Path]) -> Network:
    """The network in an agent's files; raises ``UserError`` when its numbers are not those of the agent."""
    network = read_agent(files[0], files[1] if agent.normalized else None)
    if network.digest != agent.digest:
        raise UserError(
            f"{files[0]}: its numbers are not those of {agent.name} (SHA-256 {network.digest[:16]}..., expected"
            f" {agent.digest[:16]}...): put the right file there, or remove it"
        )
    return network
