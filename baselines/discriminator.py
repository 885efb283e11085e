"""What DWBC and SafeDICE share: the settings of a classifier of steps."""

from __future__ import annotations

from dataclasses import dataclass

from safemil.config.overrides import Settings, setting


@dataclass(frozen=True)
class DiscriminatorConfig(Settings):
    """A classifier of steps of D_N (or of preferred trajectories) against D_U."""

    steps: int = setting(20_000, "gradient steps before the policy's begin", low=0)
    batch_size: int = setting(256, "steps of each class in an update", low=1)
    learning_rate: float = setting(1e-4, "AdamW's (DWBC's own; the paper's runs used 1e-5)", low=0.0)
    weight_decay: float = setting(0.0, "decoupled", low=0.0)
