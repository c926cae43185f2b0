r"""The emulator: windows drawn one after another, and decoded.

A window holds `L` states, of which the first `K` are known; the model completes it. The next window knows the
last `overlap` states of the one before and adds `L - overlap` new ones (temporal bundling, Section 3):

    [x_1 ... x_K | x_{K+1} ... x_L]
                        [x_{L-overlap+1} ... x_L | x_{L+1} ... x_{2L-overlap}]

Backward in time, windows end with what is known instead, as a third of those in training do (Eq. 14):

    [x_{-L+1} ... x_{-K} | x_{-K+1} ... x_0]

The noise of a window is drawn from the stream named by the row's key and the number of the window, so that a
member of an ensemble is a function of its key alone, not of the rows that are computed together with it.

Windows of kinds that have sampler steps may be guided by observations of their physical states (Figure 6),
which the operator sees through the decoder and the inverse of the standardisation.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self

import torch
from azula.denoise import Denoiser
from azula.noise import Schedule
from azula.sample import Sampler
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lola.core.config import Config, require
from lola.core.errors import ConfigError, DataError
from lola.core.keys import Key
from lola.core.seeding import SampleGenerator
from lola.data.description import SYSTEMS
from lola.data.domain import inside
from lola.data.statistics import apply_statistics, statistics_of_model
from lola.data.systems import System
from lola.data.transforms import Standardisation
from lola.emulation.guidance import guided_sampler
from lola.emulation.guidance_config import GuidanceConfig
from lola.emulation.inference_config import InferenceConfig, Weights
from lola.emulation.observations import Observations, Observed
from lola.emulation.sampling_config import SamplerConfig
from lola.models.autoencoder import Autoencoder
from lola.models.autoencoder_config import AutoencoderConfig
from lola.models.binding import BoundNetwork
from lola.models.kinds import KINDS, EmulatorKind, kind_of, sampled_kind
from lola.models.masks import context_mask
from lola.models.transformer_autoencoder_config import TransformerAutoencoderConfig
from lola.models.unrolled import SamplerStep, unroll
from lola.nn.compiling import compiled, keeping
from lola.storage.remote import AnyPath, local_copy
from lola.storage.stages import EMA_WEIGHTS, WEIGHTS, read_manifest
from lola.training.checkpoint import load_weights

FILES: dict[Weights, str] = {"raw": WEIGHTS, "ema": EMA_WEIGHTS}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Emulator:
    """An emulator of trajectories; it puts its networks in evaluation mode.

    Arguments:
        model: Completes windows, in latent space if there is an autoencoder, else in pixel space.
        autoencoder: Maps states to latent states and back.
        sampler: How a model that has sampler steps draws; others have no use for it.
        system: The physical system, with the statistics that the model was trained on, where it is known.
        guidance: How a rollout with observations is guided by them.
    """

    model: Any  # an `EmulatorModel` and `nn.Module`
    autoencoder: Autoencoder | None = None
    sampler: SamplerConfig = dataclasses.field(default_factory=SamplerConfig)
    system: System | None = None
    inference: InferenceConfig = dataclasses.field(default_factory=InferenceConfig)
    guidance: GuidanceConfig = dataclasses.field(default_factory=GuidanceConfig)

    @property
    def standardisation(self) -> Standardisation:
        """The map from physical fields to what `encode` takes, and back from what `decode` gives.

        Raises:
            ConfigError: The emulator does not know its system.
        """
        if self.system is None:
            raise ConfigError("the emulator does not know its physical system; give it one")
        return Standardisation(self.system)

    def to(self, device: torch.device | str) -> Self:
        """Move the networks, in place."""
        for network in (self.model, self.autoencoder):
            if network is not None:
                network.to(device)
        return self

    @property
    def stochastic(self) -> bool:
        """Whether members of an ensemble differ."""
        return self.kind is not None and self.kind.stochastic

    @property
    def kind(self) -> EmulatorKind | None:
        """The kind of its model; None of a model that is of no kind."""
        return kind_of(getattr(self.model, "config", None))

    @property
    def _sampled(self) -> bool:
        return self.kind is not None and self.kind.sampler_steps

    def __post_init__(self) -> None:
        self.model.eval()
        if self.autoencoder is not None:
            self.autoencoder.eval()

    @property
    def device(self) -> torch.device:
        return next((weight.device for weight in self.model.parameters()), torch.device("cpu"))

    def bind(self, mask: Tensor, parameters: Tensor) -> BoundNetwork | None:
        """The model's network with what stays the same during a rollout computed once, as for `window`."""
        if self.kind is None:
            return None
        with self._precision():
            how = self.inference
            return self.model.bind(mask, parameters, compiled=how.compile, graphs=how.graphs)

    @torch.no_grad()
    def window(
        self,
        known: Tensor,
        mask: Tensor,
        parameters: Tensor,
        generator: SampleGenerator,
        bound: BoundNetwork | None = None,
        observed: Observed | None = None,
    ) -> Tensor:
        """Complete windows.

        Arguments:
            known: States, of which only those known matter, with shape `(B, C, L, *grid)`.
            mask: True where an element is known, with a shape that expands to that of `known`.
            parameters: Parameters of the simulations, with shape `(B, P)`.
            generator: One random stream per window.
            bound: The result of `bind` for this mask and these parameters, if windows share them.
            observed: The windows' observations, if any.

        Returns:
            Windows with known elements untouched, with shape `(B, C, L, *grid)`.

        Raises:
            ConfigError: A model without sampler steps cannot be guided by observations.
        """
        if observed is not None:
            return self._guided(known, mask, parameters, generator, observed)
        options = {} if bound is None else {"bound": bound}
        with self._precision():
            if self._sampled:
                if bound is not None and bound.unknown is not None and not self.sampler.stochastic:
                    steps = _steps(self.sampler, self.model.denoiser.schedule, self.model.flow_map)
                    return self.model.draw(known, generator, bound, steps)
                sampler = functools.partial(self.sampler.build, generator=generator)
                return self.model.predict(known, mask, parameters, generator, sampler, **options)
            return self.model.predict(known, mask, parameters, generator, **options)

    def _guided(
        self, known: Tensor, mask: Tensor, parameters: Tensor, generator: SampleGenerator, observed: Observed
    ) -> Tensor:
        require(self._sampled, "only models with sampler steps, diffusion models, can be guided")

        def physical(z: Tensor) -> Tensor:
            # Attention's fused kernels have no derivative along a direction
            with sdpa_kernel(SDPBackend.MATH):
                x = z if self.autoencoder is None else self.autoencoder.decode(z)
            return x if self.system is None else self.standardisation.inverse(x, axis=1)

        def operator(window: Tensor) -> Tensor:
            return observed.of_window(self.model.to_states(window, mask), physical)

        def guide(denoiser: Denoiser) -> Sampler:
            y = observed.whitened(len(known)).to(known)
            return guided_sampler(self.guidance, denoiser, y, operator, self.sampler, generator)

        # Guidance follows gradients, which inference mode cannot record
        with torch.inference_mode(False):
            known, mask, parameters = known.clone(), mask.clone(), parameters.clone()
            return self.model.predict(known, mask, parameters, generator, guide)

    @torch.no_grad()
    def rollout(
        self,
        context: Tensor,
        parameters: Tensor,
        states: int,
        keys: Sequence[Key],
        overlap: int = 1,
        backward: bool = False,
        observations: Observations | None = None,
    ) -> Iterator[Tensor]:
        """Emulate the states that follow a context, or those before it.

        In pixel space, fields that are constant in time keep their values in the first known state, and cells
        outside of the domain the mean of their channel, 0. In latent space both are what the model predicts.

        Rows are completed `inference.rows` at once, window by window: one window of each row is in memory.

        Arguments:
            context: The known states, latent or standardised, with shape `(B, C, K, *grid)`, 1 <= K < L.
            parameters: Parameters of the simulations, with shape `(B, P)`.
            keys: The key of each row, such as `(seed, trajectory, member)`.
            overlap: States that a window shares with the one before, at least 1 and below L.
            backward: Whether to emulate the past of the context.
            observations: Observations of the states to emulate, in physical units.

        Yields:
            The next states, without the context, with shape `(B, C, n, *grid)`; each part in the order of
            time, and backward in time the parts follow each other into the past.

        Raises:
            ConfigError: The context or the overlap leaves no state of a window to emulate, or the model
                cannot be guided by observations.
        """
        length = self.model.window
        for name, known in (("context", context.shape[2]), ("overlap", overlap)):
            require(1 <= known < length, f"{name} must be 1 to {length - 1} states of a window, not {known}")
        require(len(keys) == len(context), f"{len(context)} trajectories need as many keys, not {len(keys)}")

        require(not backward or observations is None, "rollouts back in time cannot be guided")
        rows = [slice(i, i + self.inference.rows) for i in range(0, len(context), self.inference.rows)]
        outside, constant = self._outside(context), self._constant(context)
        bound: list[BoundNetwork | None] = []
        bound_to = number = done = 0
        while states > 0:
            known = context.shape[2]
            rest = context.new_zeros(*context.shape[:2], length - known, *context.shape[3:])
            window = torch.cat((rest, context) if backward else (context, rest), dim=2)
            mask = context_mask(window[:1], known, last=backward)
            if known != bound_to:
                bound, bound_to = [self.bind(mask, parameters[part]) for part in rows], known
            new = min(states, length - known)
            window = torch.cat(
                [
                    self.window(
                        window[part],
                        mask,
                        parameters[part],
                        SampleGenerator([(*key, number) for key in keys[part]], context.device),
                        network,
                        self._observed(observations, part, done, known, new),
                    )
                    for part, network in zip(rows, bound, strict=True)
                ]
            )
            window = window if outside is None else window.masked_fill(outside, 0)
            for channel, values in constant.items():
                window[:, channel] = values
            first = length - known - new if backward else known
            yield window[:, :, first : first + new]
            context = window[:, :, :overlap] if backward else window[:, :, length - overlap :]
            states -= new
            done += new
            number += 1

    def _constant(self, context: Tensor) -> dict[int, Tensor]:
        """The fields that are constant in time, `(B, 1, *grid)`, by channel, in pixel space."""
        if self.system is None or self.autoencoder is not None:
            return {}
        return {channel: context[:, channel, :1] for channel in self.system.channels_of("constant")}

    def _outside(self, context: Tensor) -> Tensor | None:
        """Where a context `(B, C, K, *grid)` is filled, with shape `(B, C, 1, *grid)`, if anywhere."""
        if self.system is None or self.system.mask is None or self.autoencoder is not None:
            return None
        cells = inside(self.standardisation.inverse(context), self.system)
        assert cells is not None
        filled = torch.tensor(self.system.filled, device=context.device)
        return ~cells & filled.reshape(-1, *[1] * (context.ndim - 2))

    @staticmethod
    def _observed(
        observations: Observations | None, part: slice, done: int, known: int, new: int
    ) -> Observed | None:
        """The observations of some rows' windows, which add `new` states to `done` ones, if any."""
        seen = [] if observations is None else observations.within(done + 1, new)
        if observations is None or not seen:
            return None
        places = [known + i - done - 1 for i in seen]
        return Observed(observations=observations.rows(part), numbers=seen, places=places)

    def encode(self, x: Tensor, chunk: int | None = None) -> Tensor:
        """Latents of `(B, C, L, *grid)`, `chunk` states at a time; in pixel space `x`."""
        return x if self.autoencoder is None else self._map(self.autoencoder.encode, x, chunk)

    def decode(self, z: Tensor, chunk: int | None = None) -> Tensor:
        """States of `(B, C, L, *grid)`, `chunk` latents at a time; in pixel space `z`."""
        return z if self.autoencoder is None else self._map(self.autoencoder.decode, z, chunk)

    def _map(self, function: Callable[[Tensor], Tensor], x: Tensor, chunk: int | None) -> Tensor:
        with self._precision():
            if self.inference.compile and self.device.type != "cpu":
                function = keeping(compiled(function, self.inference.graphs))
            return map_states(function, x, chunk or self.inference.states).to(x)

    def _precision(self) -> torch.autocast:
        enabled = self.inference.precision == "bfloat16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)


@functools.lru_cache(maxsize=32)
def _steps(sampler: SamplerConfig, schedule: Schedule, flow_map: bool) -> tuple[SamplerStep, ...]:
    return unroll(sampler.build, schedule, sampler.steps, flow_map)


@torch.no_grad()
def map_states(function: Callable[[Tensor], Tensor], x: Tensor, chunk: int) -> Tensor:
    """Apply a function of states `(N, C, *grid)` to those of `(B, C, L, *grid)`, `chunk` at a time."""
    rows = x.transpose(1, 2)
    y = torch.cat([function(part) for part in rows.flatten(0, 1).split(chunk)])
    return y.unflatten(0, rows.shape[:2]).transpose(1, 2)


def load_autoencoder(folder: AnyPath, weights: Weights = "raw") -> Autoencoder:
    """The trained autoencoder of a finished stage's folder, in evaluation mode.

    Arguments:
        folder: The stage's folder.
        weights: The last weights, or their moving average.

    Raises:
        StorageError: The folder is no finished stage.
        DataError: Its weights are corrupt or of another network.
    """
    model = _load_model(folder, weights, (AutoencoderConfig, TransformerAutoencoderConfig))
    assert isinstance(model, Autoencoder)
    return model


def load_emulator(
    folder: AnyPath, sampler: SamplerConfig | None = None, weights: Weights = "raw"
) -> Emulator:
    """The trained emulator of a finished stage's folder, with the autoencoder that it was trained on.

    Arguments:
        folder: The stage's folder; its autoencoder's is found in the same storage root.
        weights: The emulator's last weights, or their moving average. The autoencoder's are always
            those that encoded what the emulator learned from.

    Raises:
        StorageError: A folder is no finished stage.
        DataError: Weights are corrupt or of another network.
    """
    manifest = read_manifest(folder)
    name, kind = manifest["autoencoder"], sampled_kind(manifest["model"])
    own = SamplerConfig(name=kind.sampler) if kind and kind.sampler else SamplerConfig()
    return Emulator(
        model=_load_model(folder, weights, [kind.config for kind in KINDS.values()]),
        autoencoder=load_autoencoder(folder.parents[1] / "autoencoders" / name) if name else None,
        sampler=sampler or own,
        system=_system(folder, manifest),
    )


def trained_system(folder: AnyPath) -> System:
    """The physical system that a finished stage's model was trained on, with its statistics.

    Raises:
        StorageError: The folder is no finished stage.
        DataError: The stage does not record it; it was imported without its data.
    """
    system = _system(folder, read_manifest(folder))
    if system is None:
        raise DataError(
            f"{folder} does not record the data of its model; import a run whose configuration does"
        )
    return system


def _system(folder: AnyPath, manifest: dict[str, Any]) -> System | None:
    """The system of a stage: that of its name, with the statistics that were computed or imported, if any."""
    system = SYSTEMS.get(manifest["system"])
    if "data" in manifest:
        system = None if manifest["data"] is None else System.from_json(manifest["data"])
    found = statistics_of_model(folder.parents[1], manifest)
    return system if system is None or found is None else apply_statistics(system, found)


def _load_model(folder: AnyPath, weights: Weights, configs: Iterable[type[Config]]) -> nn.Module:
    kinds = {config.__name__: config for config in configs}
    manifest = read_manifest(folder)
    kind: Any = kinds.get(manifest["model"]["type"])
    if kind is None:
        raise DataError(f"{folder} is a model of {manifest['model']['type']}, not of {' or '.join(kinds)}")
    if weights == "ema" and not (folder / EMA_WEIGHTS).exists():
        raise DataError(f"{folder} has no averaged weights: its training had ema 0")
    model: nn.Module = kind.from_json(manifest["model"]).build(**manifest["sizes"])
    load_weights(local_copy(folder / FILES[weights]), model)
    return model.eval()
