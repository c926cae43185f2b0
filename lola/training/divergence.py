r"""When training ends because values are not finite, and which samples are at fault.

A step is skipped if the norm of its gradient is not finite; the norm is taken after workers have exchanged
gradients, so that all of them skip together. Training ends with an error

- after `MAX_SKIPPED_IN_A_ROW` skipped steps in a row;
- when at least `MAX_SKIPPED_IN_A_ROW` steps, and more than `MAX_SKIPPED_SHARE` of all steps so far, were
  skipped;
- at its last step, if more than `MAX_SKIPPED_SHARE` of all steps were skipped, however few they are;
- at a validation loss that is not finite.

The first `MAX_TRACED_STEPS` skipped steps of a process, and the one that ends training, are traced: the
samples of the batch go through the model one by one, and those whose input, loss or gradient is not finite
are named. If this is so for all of them, it is the model that has diverged. Other steps cost nothing.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed
from torch import Tensor, nn

from lola.core.errors import DivergedError
from lola.core.keys import Key
from lola.core.seeding import SampleGenerator
from lola.data.state import Batch
from lola.training.buffers import WindowSource
from lola.training.checkpoint import Position
from lola.training.precision import precision
from lola.training.stream import BatchStream, fixed_batches

if TYPE_CHECKING:
    from lola.training.config import TrainingConfig

MAX_SKIPPED_IN_A_ROW = 10
MAX_SKIPPED_SHARE = 0.1  # of all steps
MAX_TRACED_STEPS = 3

Samples = Iterable[tuple[Batch, Key, str]]
"""Batches of one sample, the keys of their random numbers, and where they are from."""


@dataclasses.dataclass(frozen=True)
class Trace:
    """Faults found in the samples of one rank."""

    samples: int
    faults: tuple[str, ...]  # what is wrong with some of them, and where they are from
    data: bool  # whether an input is not finite


class DivergenceCheck:
    """Checks one training run; every rank comes to the same result.

    Arguments:
        model: The model in training, without a wrapper that exchanges gradients; on `device`.
        stream, validation: This rank's share of the batches, and the validation set.
        log: Called on every rank with a line for each skipped step that is traced.
    """

    def __init__(
        self,
        model: nn.Module,
        stream: BatchStream,
        validation: WindowSource,
        config: "TrainingConfig",
        device: torch.device,
        log: Callable[[str], None],
    ) -> None:
        self.model, self.stream, self.source = model, stream, validation
        self.config, self.device, self.log = config, device, log
        self.in_a_row = self.traced = 0
        self.cause = "in an earlier part of the training"
        # Options of this training have a prefix in the command, which is not known here
        rate = f"its learning rate ({config.optimizer.learning_rate:g})"
        self.remedy = f"the model has diverged; lower {rate} or its largest gradient ({config.clip:g})" + (
            "" if config.precision == "float32" else ", or train in float32"
        )

    def step(self, position: Position, skipped: bool, batch: Batch, keys: list[Key]) -> None:
        """Check a step, of which `batch` are this rank's samples, and `keys` those of their random numbers.

        Raises:
            DivergedError: Too many steps were skipped.
        """
        self.in_a_row = self.in_a_row + 1 if skipped else 0
        over = position.skipped > MAX_SKIPPED_SHARE * position.step
        ends = over and position.step == self.config.steps
        if skipped:
            ends |= self.in_a_row >= MAX_SKIPPED_IN_A_ROW or (
                over and position.skipped >= MAX_SKIPPED_IN_A_ROW
            )
            if ends or self.traced < MAX_TRACED_STEPS:
                self.traced += 1
                self.cause = self._cause(self._step_samples(position.step - 1, batch, keys), self.model)
                self.log(f"step {position.step} was skipped, since its gradient is not finite: {self.cause}")
        if ends:
            raise DivergedError(
                f"training diverged: {position.skipped} of {position.step} steps were skipped, since their "
                f"gradients are not finite: {self.cause}"
            )

    def validation(self, name: str, value: float, position: Position, objective: nn.Module) -> None:
        """Check a validation loss of a module, which may be in a wrapper.

        Raises:
            DivergedError: It is not finite.
        """
        if math.isfinite(value):
            return
        model = cast(nn.Module, getattr(objective, "module", objective).model)
        cause = self._cause(self._validation_samples(), model, gradients=False)
        raise DivergedError(f"training diverged: {name} is {value:g} after {position.step} steps: {cause}")

    def _step_samples(self, step: int, batch: Batch, keys: list[Key]) -> Iterator[tuple[Batch, Key, str]]:
        for i, (key, window) in enumerate(zip(keys, self.stream.windows(step), strict=True)):
            yield batch.rows(i, i + 1), key, self.stream.source.describe(window)

    def _validation_samples(self) -> Iterator[tuple[Batch, Key, str]]:
        config, (rank, world) = self.config, _ranks()
        for batch, (key,) in fixed_batches(
            self.source, seed=config.seed, samples=config.valid_samples, batch_size=1, rank=rank, world=world
        ):
            yield batch, key, self.source.describe(cast(int, key[-1]))

    def _cause(self, samples: Samples, model: nn.Module, gradients: bool = True) -> str:
        """Why a step is not finite, from the samples of all ranks; the same on every rank."""
        for name, weight in model.named_parameters():
            if not weight.isfinite().all():
                return f"the weight {name} is not finite: {self.remedy}"
        traces = _gather(self._trace(samples, model, gradients))
        faults = [fault for trace in traces for fault in trace.faults]
        count = sum(trace.samples for trace in traces)
        if not faults:
            return f"each of its {count} samples is finite when computed alone: {self.remedy}"
        if len(faults) == count > 1 and not any(trace.data for trace in traces):
            return f"none of its {count} samples is finite when computed alone: {self.remedy}"
        more = f" and {len(faults) - 1} more of {count} samples" if len(faults) > 1 else ""
        return f"{faults[0]}{more}; leave that trajectory out with --exclude and its name, FILE#NUMBER"

    def _trace(self, samples: Samples, model: nn.Module, gradients: bool) -> Trace:
        faults, count, data = [], 0, False
        model.eval()  # so that no buffer changes; every step and every validation sets its own mode
        with torch.compiler.set_stance("force_eager"):  # batches of one sample would be compiled again
            for batch, key, place in samples:
                count += 1
                finite = bool(batch.states.isfinite().all() & batch.parameters.isfinite().all())
                data |= not finite
                fault = (
                    self._describe_fault(model, batch, key, gradients) if finite else "an input is not finite"
                )
                if fault:
                    faults.append(f"{place} ({fault})")
        return Trace(count, tuple(faults), data)

    def _describe_fault(self, model: nn.Module, batch: Batch, key: Key, gradients: bool) -> str:
        """A message if a sample's loss or gradient is not finite, else empty."""
        largest = f"its largest input is {batch.states.abs().max().item():.3g}"
        with torch.set_grad_enabled(gradients), precision(self.config.precision, self.device):
            generator = SampleGenerator([key], self.device)
            loss: Tensor = cast(Any, model).loss(batch.to(self.device), generator)[0]
        if not loss.isfinite():
            return f"its loss is {loss.item():g}, {largest}"
        if gradients:
            parameters = [weight for weight in model.parameters() if weight.requires_grad]
            parts = torch.autograd.grad(loss, parameters, allow_unused=True)
            if not nn.utils.get_total_norm([part for part in parts if part is not None]).isfinite():
                return f"its gradient is not finite, {largest}"
        return ""


def _ranks() -> tuple[int, int]:
    """This process's rank and the number of ranks."""
    if not torch.distributed.is_initialized():
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def _gather(trace: Trace) -> list[Trace]:
    if not torch.distributed.is_initialized():
        return [trace]
    traces: list[Trace] = [trace] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(traces, trace)
    return traces
