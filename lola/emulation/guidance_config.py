"""Configurations of guidance, whose formulas `lola.emulation.guidance` gives."""

import dataclasses
from typing import Annotated, Any, Literal, get_args

from lola.core.config import Config, Within, require
from lola.emulation.sampling_config import SamplerConfig

GuidanceName = Literal["mmps", "pgdm", "jfps", "dps"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuidanceConfig(Config):
    """How draws are guided by observations. An option that is not given is the method's own.

    Arguments:
        name: The method.
        solver: What solves the linear systems; gmres.
        iterations: Iterations of the solver; 3. Each of mmps costs a gradient of the network.
        strength: The strength of dps; 1.
    """

    name: GuidanceName = "mmps"
    solver: Literal["gmres", "cg"] | None = None
    iterations: Annotated[int, Within("[1, 1000]")] | None = None
    strength: Annotated[float, Within("(0, 1e6]")] | None = None

    def validate(self) -> None:
        require(self.name in get_args(GuidanceName), f"no guidance is called {self.name!r}")
        for option in ("solver", "iterations", "strength"):
            given = getattr(self, option) is not None
            require(option in self.options or not given, f"the guidance {self.name} takes no --{option}")
        require(self.solver in (None, "gmres", "cg"), f"no solver is called {self.solver!r}")

    def to_json(self) -> dict[str, Any]:
        """The fingerprinted fields, with the method's own options."""
        return {"name": self.name, **self.options}

    @property
    def options(self) -> dict[str, Any]:
        if self.name == "dps":
            return {"strength": self.strength or 1.0}
        return {"solver": self.solver or "gmres", "iterations": self.iterations or 3}

    def check(self, sampler: SamplerConfig) -> None:
        """Raise `ConfigError` unless the method can guide this sampler."""
        require(
            self.name != "dps" or sampler.name == "ddpm",
            f"dps guides the sampler ddpm alone, not {sampler.name}",
        )
