"""One window of a rollout, decoded: what emulation is timed by."""

from collections.abc import Callable

from torch import Tensor

from lola.emulation.emulator import Emulator


def decoded_window(
    emulator: Emulator, context: Tensor, parameters: Tensor, states: int
) -> Callable[[], Tensor]:
    """A call that emulates and decodes so many states after a context `(B, C, K, *grid)`."""
    keys = [("benchmark", row) for row in range(len(context))]

    def step() -> Tensor:
        (window,) = emulator.rollout(context, parameters, states, keys)
        return emulator.decode(window)

    return step
