"""Bags -> per-step cost network: the multiple-instance Bradley-Terry loss and its training.

    L = E[ -log sigmoid(S(B_N) - S(B_U)) ] = E[ softplus(S(B_U) - S(B_N)) ],   S(B) = mean over the bag of z,
    z = sum_{t<H} g^t c(s_t, a_t),   c = sigmoid(MLP(s, a)) in (0, 1)

(SafeMIL, arXiv 2511.08136, equations 6 to 9 as transcribed in public notes on the paper.) Where K or H is large the
public research code of the first author minimizes twice this loss without a shift in the exponent, which overflows
float32 for whole trajectories; softplus does not.

Variants: another S (safemil/algorithm/aggregators.py), several c and balanced bags
(safemil/algorithm/failure_modes.py), and a factor l in softplus (`scale`): for H = 1 the optimum is c = (K / l) log(d_N
/ d_U) + const, clipped to (0, 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from safemil.algorithm.aggregators import make_aggregator
from safemil.algorithm.bags import SegmentSampler
from safemil.algorithm.failure_modes import MultiHeadCostNetwork, find_modes
from safemil.config.settings import CostModelConfig
from safemil.data.splits import Split
from safemil.data.trajectories import Trajectories
from safemil.nn.networks import CostNetwork, StepScorer
from safemil.nn.streams import Streams, make_generators
from safemil.training.objectives import Batch, Info, Objective
from safemil.training.stopping import HeldOutLoss
from safemil.training.transitions import Shifts, Transitions

# Steps of all replicas whose hidden layers are kept for the backward pass: about 1.3 GB at 256-256, on a GPU 10 GB.
ROWS_KEPT = {"cpu": 2**18, "cuda": 2**21}
# Segments of each held-out set that the loss is measured on, fewer where they are long.
FEWEST_SEGMENTS, MOST_SEGMENTS, ROWS_HELD_OUT = 64, 1024, 2**17


def mil_loss(score_nonpreferred: Tensor, score_unlabeled: Tensor, scale: float = 1.0) -> Tensor:
    """softplus(scale (S(B_U) - S(B_N))), elementwise; log 2 where the scores are equal."""
    return torch.nn.functional.softplus(scale * (score_unlabeled - score_nonpreferred))


def drawn(samplers: Sequence[SegmentSampler], uniform: Tensor) -> Batch:
    """Uniform numbers ``(n, R, 2, items, 2)`` -> starts and trajectories of D_N's items, then of D_U's."""
    pairs = [sampler.sample(own) for sampler, own in zip(samplers, uniform.unbind(2), strict=True)]
    starts, trajectories = (torch.cat(own, dim=-1) for own in zip(*pairs, strict=True))
    return {"starts": starts, "trajectories": trajectories}


def make_cost_network(data: Trajectories, config: CostModelConfig, seeds: Sequence[int]) -> StepScorer:
    """One cost network per seed, of one head or several."""
    arguments = make_generators(seeds, "cost network"), data.observation_dim, data.action_dim, config.hidden
    if config.heads == 1:
        return CostNetwork(*arguments, config.initialization)
    return MultiHeadCostNetwork(*arguments, config.heads, config.initialization)


class CostModel:
    """Cost network (``CostNetwork`` unless another is given), bag sampler and objective of R replicas.

    One batch holds, per replica, ``pairs`` bags of K segments from D_N, then as many from D_U: all random numbers of a
    block of steps are drawn by ``draw``; ``prepare`` gathers the steps of one update.
    """

    def __init__(
        self,
        splits: Sequence[Split],
        config: CostModelConfig,
        steps: Transitions,
        seeds: Sequence[int],
        network: StepScorer | None = None,
    ) -> None:
        self.config, self.steps = config, steps
        device = steps.observations.device
        data = splits[0].trajectories
        self.streams, self.shifts = Streams(seeds, "bags", device), Shifts(steps, seeds, "bags")
        self.network = (network or make_cost_network(data, config, seeds)).to(device)
        self.aggregator = make_aggregator(config, seeds, self.network.embedding_dim).to(device)
        self.data, self.seeds = data, seeds
        nonpreferred = [split.nonpreferred for split in splits]
        unlabeled = [split.unlabeled for split in splits]
        self.longest = data.lengths[np.concatenate([*nonpreferred, *unlabeled])].max()
        self.samplers = [self.sampler(nonpreferred, find_modes(splits, config.modes, seeds)), self.sampler(unlabeled)]

    def sampler(self, sets: Sequence[np.ndarray], modes: Sequence[np.ndarray] | None = None) -> SegmentSampler:
        """Draws segments of each replica's set of trajectories as the settings say."""
        config = self.config
        return SegmentSampler(
            self.data.offsets,
            sets,
            config.segment_length,
            discount=config.discount,
            by=config.segment_by,
            length_normalized=config.segment_length == "full",
            modes=modes,
            longest=self.longest,
            device=self.steps.observations.device,
        )

    def objective(self) -> Objective:
        """The multiple-instance loss with its optimizer."""
        config = self.config
        return Objective(
            "mil",
            [*self.network.parameters(), *self.aggregator.parameters()],
            self.loss,
            config.learning_rate,
            schedule=config.schedule,
            weight_decay=config.weight_decay,
        )

    def draw(self, n_steps: int) -> Batch:
        """Start rows and trajectories of the bags of ``n_steps`` updates, ``(n_steps, R, 2 * pairs * K)`` each."""
        n = self.config.pairs * self.config.bag_size
        return drawn(self.samplers, self.streams.uniform(n_steps, 2, n, 2)) | self.shifts.draw(n_steps, 2 * n)

    def held_out_loss(self, splits: Sequence[Split]) -> HeldOutLoss:
        """The loss on bags of held-out trajectories, the same bags at each call: ``() -> (R,)``."""
        sets = [split.nonpreferred_held_out for split in splits], [split.unlabeled_held_out for split in splits]
        length = self.config.segment_length
        longest = int(self.data.lengths.max()) if length == "full" else int(length)
        segments = max(FEWEST_SEGMENTS, min(MOST_SEGMENTS, ROWS_HELD_OUT // longest))
        pairs = math.ceil(segments / self.config.bag_size)
        streams = Streams(self.seeds, "held-out bags", self.steps.observations.device)
        uniform = streams.uniform(1, 2, pairs * self.config.bag_size, 2)
        chosen = {name: values[0] for name, values in drawn([self.sampler(own) for own in sets], uniform).items()}

        @torch.no_grad()
        def loss() -> np.ndarray:
            return self.loss(self.prepare(chosen))[0].cpu().numpy()

        return loss

    def prepare(self, items: Batch) -> Batch:
        """Rows -> observations, actions ``(R, 2 * pairs * K, H, .)`` and discount factors ``(R, 2 * pairs * K, H)``."""
        rows, factors = self.samplers[0].expand(items["starts"], items["trajectories"])
        observations, actions = self.steps(rows, items.get(self.shifts.name))
        return {"observations": observations, "actions": actions, "factors": factors}

    def scores(self, batch: Batch) -> Tensor:
        """S of each drawn bag ``(R, 2 * pairs)``: in the paper ``bag_scores(segment_scores(costs, factors), K)``."""
        factors = batch["factors"]
        steps = batch["observations"].flatten(1, 2), batch["actions"].flatten(1, 2)
        if self.aggregator.reads_embeddings:
            embeddings = self.network.embed(*steps)
            costs, embeddings = self.network.score(embeddings), embeddings.unflatten(1, factors.shape[1:])
        else:
            costs, embeddings = self.costs(*steps), None
        return self.aggregator(costs.unflatten(-1, factors.shape[1:]), factors, embeddings)

    def costs(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Cost of each step ``(R, n)`` (of each head, if several: ``(M, R, n)``).

        Long trajectories in large bags come in parts, whose layers are computed again in the backward pass rather than
        kept: the memory then does not grow with K times H.
        """
        size = max(1, ROWS_KEPT[observations.device.type] // len(observations))
        if observations.shape[1] <= size:
            return self.network.scores(observations, actions)
        parts = zip(observations.split(size, dim=1), actions.split(size, dim=1), strict=True)
        costs = [checkpoint(self.network.scores, *own, use_reentrant=False, preserve_rng_state=False) for own in parts]
        return torch.cat(costs, dim=-1)

    def loss(self, batch: Batch) -> tuple[Tensor, Info]:
        """Mean over the pairs, ``(R,)``."""
        nonpreferred, unlabeled = self.scores(batch).chunk(2, dim=1)
        info = {
            "score_nonpreferred": nonpreferred.detach().mean(1),
            "score_unlabeled": unlabeled.detach().mean(1),
        }
        return mil_loss(nonpreferred, unlabeled, self.config.loss_scale).mean(1), info
