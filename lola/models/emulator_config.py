"""The base class of all emulators' configurations."""

import abc
import dataclasses
from typing import Any

from lola.core.config import Config, added_field, require
from lola.models.transformer_config import TransformerConfig
from lola.models.unet_config import UNetConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmulatorConfig(Config, abc.ABC):
    """A model that completes windows.

    Arguments:
        network: The network.
        warm_start: The emulator whose weights it starts from: in a sweep another kind, whose emulator at the
            same rate is meant; else a finished stage's folder, name or fingerprint. By default none.
    """

    warm_start: str | None = added_field(None)
    network: TransformerConfig | UNetConfig = dataclasses.field(default_factory=TransformerConfig)

    def validate(self) -> None:
        require(self.warm_start != "", "--warm-start must name a kind of emulator or a finished stage")

    @property
    def random(self) -> bool:
        """Masks are drawn, and perhaps times and noise."""
        return True

    @abc.abstractmethod
    def build(self, channels: int, parameters: int, spatial: int, window: int) -> Any:
        """The model, an `lola.models.kinds.EmulatorModel`.

        Arguments:
            channels: Channels of a state.
            parameters: Parameters of a simulation, P.
            spatial: Grid axes.
            window: States of a window, L.
        """
