r"""What a window's known states are to its network: a reference that it predicts the change from, and noisy.

**Change.** With `x_k` the state of a window at k, `x_r` the known one nearest to it and `s` a deviation per
channel, that of `x_k - x_0` over windows of the training set,

    x_k = x_r + s y_k

and the network makes `y`, about 1 in size, where it would make `x`. If it answers 0 it predicts persistence.

**Noise on the context.** In training the network is given `x_k + a n_k` for known states, with `n` normal and
one level `a` per sample, uniform up to the configured one; the level is part of the modulation. Rollouts,
whose contexts the model has made itself, have the level 0, or a configured one, whose noise they add.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from lola.core.seeding import SampleGenerator
from lola.data.state import Batch
from lola.models.emulator_config import EmulatorConfig
from lola.nn.embedding import SineEncoding, mlp, zero_last

ENCODED_RANGE = 30.0  # radians of the fastest sine over the range of levels


class StateChange(nn.Module):
    """The map between states and changes.

    Arguments:
        channels: Channels of a state.
    """

    scale: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(channels))

    @torch.no_grad()
    def fit(self, batches: Iterable[Batch], window: int) -> None:
        """Set `s` by the first `window` states of samples; 1 for a channel that is constant in time."""
        total = torch.zeros_like(self.scale, dtype=torch.float64)
        count = 0.0
        for batch in batches:
            x = batch.states[:, :, :window]
            square = (x[:, :, 1:] - x[:, :, :1]).double().square()
            inside = torch.ones_like(square[:, :1]) if batch.valid is None else batch.valid.to(square)
            inside = inside.expand_as(square[:, :1])
            total += (square * inside).transpose(0, 1).flatten(1).sum(dim=1)
            count += float(inside.sum())
        deviation = (total / max(count, 1.0)).sqrt()
        self.scale.copy_(torch.where(deviation > 0, deviation, 1.0))

    def to_states(self, changes: Tensor, known: Tensor, mask: Tensor) -> Tensor:
        """The states `x` of changes `y`.

        Arguments:
            changes: With shape `(B, C, L, *grid)`.
            known: States, of which only those known matter, with the same shape.
            mask: True where a state is known, with shape `(B, 1, L, 1, ...)`; B may be 1 for any batch.
        """
        return _nearest(known, mask) + self._scale(known) * changes

    def to_changes(self, x: Tensor, known: Tensor, mask: Tensor) -> Tensor:
        """The changes `y` of states `x`, with the shapes of `to_states`."""
        return (x - _nearest(known, mask)) / self._scale(x)

    def _scale(self, x: Tensor) -> Tensor:
        return self.scale.reshape(-1, *[1] * (x.ndim - 2))


def _nearest(x: Tensor, mask: Tensor) -> Tensor:
    """The known state that is nearest to each state of windows `(B, C, L, *grid)`."""
    known = mask.flatten(1)
    place = torch.arange(known.shape[1], device=known.device)
    far = (place[:, None] - place).abs()
    nearest = torch.where(known[:, None], far, len(place)).argmin(dim=-1)
    index = nearest.reshape(len(known), 1, -1, *[1] * (x.ndim - 3))
    return x.gather(2, index.expand_as(x))


def state_change(config: EmulatorConfig, channels: int) -> StateChange | None:
    """The map of a model that predicts the change."""
    return StateChange(channels) if config.predicts == "change" else None


def level_embedding(config: EmulatorConfig) -> nn.Module | None:
    """The embedding `(B, modulation)` of levels `(B)`, which starts at zero, if known states are noisy."""
    if not config.context_noise:
        return None
    width = config.network.modulation
    return nn.Sequential(SineEncoding(width), *zero_last(mlp(width, width)))


def embed(
    config: EmulatorConfig, parameters: nn.Module | None, level: nn.Module | None
) -> Callable[[Tensor], Tensor] | None:
    """The embedding of labels: parameters of simulations `(B, P)`, and the level, if there are any.

    Arguments:
        parameters: The embedding of parameters, if there are any.
        level: That of levels, if known states are noisy.
    """
    if level is None:
        return parameters

    def embed_both(label: Tensor) -> Tensor:
        embedded: Tensor = level(label[:, -1] * (ENCODED_RANGE / config.context_noise))
        return embedded if parameters is None else embedded + parameters(label[:, :-1])

    return embed_both


class ContextNoise:
    """The noise of the known states of some windows.

    Arguments:
        level: Of each sample, with shape `(B)`; None for a model whose known states have none.
        noise: Normal numbers for each window that follows, with shape `(B, C, L, *grid)`; none for level 0.
    """

    def __init__(self, level: Tensor | None = None, noise: Sequence[Tensor] = ()) -> None:
        self.level, self.noise = level, noise

    @classmethod
    def of_training(
        cls, config: EmulatorConfig, shape: Sequence[int], generator: SampleGenerator, members: int = 1
    ) -> "ContextNoise":
        """That of a training batch of windows `(C, L, *grid)`, which all `members` of a sample share."""
        if not config.context_noise:
            return cls()
        level = config.context_noise * generator.uniform()
        noise = [generator.normal(*shape) for _ in range(config.rollout_windows)]
        level, *noise = (each.repeat_interleave(members, dim=0) for each in (level, *noise))
        return cls(level, noise)

    @classmethod
    def of_rollout(cls, config: EmulatorConfig, known: Tensor, generator: SampleGenerator) -> "ContextNoise":
        """That of windows `(B, C, L, *grid)` of a rollout."""
        if not config.context_noise:
            return cls()
        level = known.new_full((len(known),), config.rollout_noise)
        return cls(level, [generator.normal(*known.shape[1:]).to(known)] if config.rollout_noise else [])

    def add(self, x: Tensor, number: int = 0) -> Tensor:
        """The states of a window `(B, C, L, *grid)` as the network is given them."""
        if self.level is None or not self.noise:
            return x
        return x + self.level.reshape(-1, *[1] * (x.ndim - 1)) * self.noise[number]

    def label(self, parameters: Tensor) -> Tensor:
        """What the network is given of parameters `(B, P)` and the level."""
        return parameters if self.level is None else torch.cat((parameters, self.level[:, None]), dim=1)


def rollout_label(config: EmulatorConfig, parameters: Tensor) -> Tensor:
    """`ContextNoise.label` of parameters `(B, P)` in rollouts."""
    level = parameters.new_full((len(parameters),), config.rollout_noise)
    return ContextNoise(level if config.context_noise else None).label(parameters)
