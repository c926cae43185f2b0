"""The base class of all emulators' configurations."""

import abc
import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, Literal

from lola.core.config import Config, DistinctOrNone, Size, Within, added_field, require
from lola.models.transformer_config import TransformerConfig
from lola.models.unet_config import UNetConfig

if TYPE_CHECKING:
    from lola.nn.embedding import ParameterEmbedding

Masks = Literal["published", "forward"]
Predicts = Literal["state", "change"]
LossStates = Literal["published", "unknown"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmulatorConfig(Config, abc.ABC):
    """A model that completes windows.

    Arguments:
        network: The network.
        warm_start: The emulator whose weights it starts from: in a sweep another kind or arm, whose emulator
            at the same rate is meant; else a finished stage's folder, name or fingerprint. By default none.
        masks: Which states are known in training: the first or the last of a window (published), or the first
            alone (forward).
        strides: Strides of training samples, of which each draws one that the network is told. Validation and
            rollouts are at the evaluation's stride, which is one of them. By default that is the only one.
        predicts: What the network makes of a window: its states (published), or their change from the nearest
            known state, over a deviation per channel of the training set's.
        context_noise: The largest deviation of the noise on known states in training; its level is given to
            the network.
        rollout_noise: The level in rollouts, where noise of it is added.
        rollout_windows: Windows that a training sample has, each continued from the one before it.
        rollout_gradient: Whether gradients go through all of these windows, or the last one alone counts.
    """

    warm_start: str | None = added_field(None)
    masks: Masks = added_field("published")
    strides: DistinctOrNone[Size] = added_field(())
    predicts: Predicts = added_field("state")
    context_noise: Annotated[float, Within("[0, 10]")] = added_field(0.0)
    rollout_noise: Annotated[float, Within("[0, 10]")] = added_field(0.0)
    rollout_windows: Annotated[int, Within("[1, 8]")] = added_field(1)
    rollout_gradient: Literal["all", "last"] = added_field("all")
    network: TransformerConfig | UNetConfig = dataclasses.field(default_factory=TransformerConfig)

    def validate(self) -> None:
        require(
            self.warm_start != "", "--warm-start must name a kind of emulator, an arm or a finished stage"
        )
        require(
            self.rollout_noise <= self.context_noise,
            f"--rollout-noise {self.rollout_noise} is above --context-noise {self.context_noise}, the most "
            "that the network is trained on",
        )
        require(
            self.rollout_windows > 1 or self.rollout_gradient == "all",
            f"--rollout-gradient {self.rollout_gradient} needs --rollout-windows above 1",
        )

    @property
    def random(self) -> bool:
        """Masks are drawn, and perhaps times and noise."""
        return True

    @property
    def training_passes(self) -> float:
        """What a training sample costs in forward passes of the network on one window; a backward pass costs
        two, and windows before the last one are computed again for it."""
        if self.rollout_gradient == "last":
            return self.rollout_windows + 2
        return 4 * self.rollout_windows - 1

    def labels(self, parameters: int) -> int:
        """The numbers that the network is told of a sample: `parameters`, and its stride if that is drawn."""
        return parameters + bool(self.strides)

    def embedding(self, parameters: int) -> "ParameterEmbedding | None":
        """The embedding of these numbers, if there are any; without a stride, that of rollouts is meant."""
        from lola.nn.embedding import ParameterEmbedding

        labels = self.labels(parameters)
        return ParameterEmbedding(labels, self.network.modulation, bool(self.strides)) if labels else None

    def training_states(self, window: int) -> int:
        """The states of a training sample, of windows of `window` states."""
        return self.rollout_windows * (window - 1) + 1

    @abc.abstractmethod
    def build(self, channels: int, parameters: int, spatial: int, window: int) -> Any:
        """The model, an `lola.models.kinds.EmulatorModel`.

        Arguments:
            channels: Channels of a state.
            parameters: Parameters of a simulation, P.
            spatial: Grid axes.
            window: States of a window, L.
        """
