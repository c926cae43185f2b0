r"""Emulation, encoding and scoring at the paper's sizes.

A window of a rollout is emulated and decoded; reported are milliseconds per state and member, for one member
and for a batch that fills the GPU. The paper's Table 1 has the same on an A100.
"""

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any, Literal

import torch
from benchmarks.decoded import decoded_window
from benchmarks.figures import Figure
from benchmarks.gpu_target import Target
from benchmarks.paper import Trained
from torch import Tensor

from lola.data.casting import cast_checked
from lola.data.description import EULER
from lola.data.transforms import Standardisation
from lola.emulation.emulator import Emulator
from lola.emulation.inference_config import InferenceConfig
from lola.emulation.sampling_config import SamplerConfig
from lola.evaluation.predicted import Predicted
from lola.evaluation.scores.ensemble import EPS
from lola.evaluation.scoring import Truth, score_prediction
from lola.evaluation.tables.paper import SECONDS
from lola.nn.compiling import compiled
from lola.training.precision import precision

Way = Literal["eager", "compiled", "graphs"]
GAIN = 5.0  # of a member in a full batch
SCORING_SHARE = 0.1
ENCODING_SHARE = 0.9  # of the bare encoder
MEMBERS = 16
DIFFERENCE = 5e-3  # from the CPU, in float32: a sampler starts from noise of deviation 1000


@dataclasses.dataclass(frozen=True)
class EmulationCase:
    """An emulator to time.

    Arguments:
        trained: Its model.
        codec: The autoencoder that decodes, if it is in latent space.
        way: How it is run.
        batch: Members that fill a GPU.
        goals: Seconds per state of one member, by the sampler's steps, 0 for a model without a sampler.
    """

    trained: Trained
    codec: Trained | None
    way: Way
    batch: int
    goals: dict[int, float]

    def __call__(self, target: Target) -> Iterator[Figure]:
        whole = build_emulator(target, self.trained, self.codec)
        kind = whole.kind.name if whole.kind else ""
        paper = SECONDS.get((kind, "pixel" if self.codec is None else "latent"))
        note = f"{1e3 * paper:.0f} ms on an A100 in the paper" if paper else ""
        for steps, goal in self.goals.items():
            suffix = f", {steps} evaluations" if steps else ""
            seconds = {}
            for rows in (1, 2 if target.small else self.batch):
                how = InferenceConfig(
                    precision=target.precision,
                    rows=rows,
                    compile=self.way != "eager",
                    graphs=self.way == "graphs",
                )
                sampler = SamplerConfig(steps=steps or 1)
                emulator = dataclasses.replace(whole, inference=how, sampler=sampler)
                context, parameters = start(target, self.trained, rows)
                states = emulator.model.window - 1
                window = decoded_window(emulator, context, parameters, states)
                window()
                seconds[rows] = target.seconds(window) / (states * rows)
            (_, alone), (rows, together) = seconds.items()
            best = self.way == "graphs"  # the goals are those of the fastest way
            most = 1e3 * goal if best else None
            yield Figure(f"a state of one member{suffix}", 1e3 * alone, "ms", most=most, note=note)
            yield Figure(f"a state of a member of {rows}{suffix}", 1e3 * together, "ms")
            yield Figure(f"gain of a batch{suffix}", alone / together, "x", least=GAIN if best else None)
            if whole.stochastic:
                name = f"{kind}{suffix}"
                target.drawing[name] = min(together, target.drawing.get(name, together))


def build_emulator(target: Target, trained: Trained, codec: Trained | None) -> Emulator:
    """An emulator with random weights, the same each time."""
    torch.manual_seed(0)
    return Emulator(
        model=target.build(target.sized(trained)),
        autoencoder=None if codec is None else target.build(target.sized(codec)),
    )


def start(target: Target, trained: Trained, rows: int) -> tuple[Tensor, Tensor]:
    """One known state of each row, and parameters."""
    channels, _, *grid = target.sized(trained).shape
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(rows, channels, 1, *grid, generator=generator)
    parameters = torch.randn(rows, trained.sizes["parameters"], generator=generator)
    return context.to(target.device), parameters.to(target.device)


@dataclasses.dataclass(frozen=True)
class EqualityCase:
    """An emulator on the device against the same on the CPU, in float32."""

    trained: Trained
    codec: Trained | None

    def __call__(self, target: Target) -> Iterator[Figure]:
        emulator = build_emulator(target, self.trained, self.codec)
        context, parameters = start(target, self.trained, 1)
        states = emulator.model.window - 1
        found = decoded_window(emulator, context, parameters, states)().cpu()
        on_cpu = copy.deepcopy(emulator).to("cpu")
        expected = decoded_window(on_cpu, context.cpu(), parameters.cpu(), states)()
        difference = float((found - expected).abs().max() / expected.abs().max())
        yield Figure("largest difference from the CPU, float32", difference, "", most=DIFFERENCE)


@dataclasses.dataclass(frozen=True)
class EncodingCase:
    """States of the host that become latents on the host, against the encoder alone."""

    codec: Trained
    compiled: bool
    states: int = 64

    def __call__(self, target: Target) -> Iterator[Figure]:
        trained = target.sized(self.codec)
        autoencoder = target.build(trained).eval()
        channels, _, *grid = trained.shape
        count = 4 if target.small else self.states
        fields = 1 + torch.rand(count, channels, *grid)  # densities and pressures are positive
        standardise = Standardisation(EULER)

        network = compiled(autoencoder.encode) if self.compiled else autoencoder.encode

        @torch.inference_mode()
        def encode(x: Tensor) -> Tensor:
            with precision(target.precision, target.device):
                return network(x)

        @torch.inference_mode()
        def whole() -> Any:
            x = standardise.forward(fields.to(target.device), axis=1)
            return cast_checked(encode(x).float().cpu().numpy(), "float16", "a latent")

        resident = standardise.forward(fields.to(target.device), axis=1)
        whole()
        bare = count / target.seconds(lambda: encode(resident))
        rate = count / target.seconds(whole)
        yield Figure("bare encoder", bare, "states/s")
        yield Figure("states to latents", rate, "states/s", least=ENCODING_SHARE * bare)
        size = fields[0].nbytes
        yield Figure("storage must deliver", rate * size / 1e9, "GB/s", note=f"{size / 1e6:.3g} MB a state")


@dataclasses.dataclass(frozen=True)
class ScoringCase:
    """Scores of an ensemble as an evaluation computes them, against the time to draw it.

    They are against the truth and against the auto-encoded truth, with increments in time and anomalies.
    """

    codec: Trained
    states: int = 4

    def __call__(self, target: Target) -> Iterator[Figure]:
        channels, _, *grid = target.sized(self.codec).shape
        first, truth, other, climate = torch.randn(4, channels, self.states, *grid, device=target.device)
        members = torch.randn(MEMBERS, channels, self.states, *grid, device=target.device)
        predicted = Predicted(MEMBERS, lambda times: members[:, :, times], target.device)
        targets = {"truth": truth, "autoencoded": other}
        against = Truth(first[:, 0], targets, climate, None, (), torch.full((channels,), EPS))
        score = lambda: score_prediction(predicted, against, range(channels), self.states)  # noqa: E731
        score()
        seconds = target.seconds(score) / self.states
        yield Figure(f"scores of a state of {MEMBERS} members", 1e3 * seconds, "ms")
        for name, drawing in target.drawing.items():
            share = seconds / (MEMBERS * drawing)
            yield Figure(f"share of the time to draw them, {name}", share, "%", most=SCORING_SHARE)
