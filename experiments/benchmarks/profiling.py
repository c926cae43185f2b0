r"""What the time of a step on a device goes to, by the kind of work.

A profile's pieces are kernels of a GPU, or operations of a CPU. A piece belongs to the first kind that names
it or an operation that it was launched in:

    optimiser        the optimiser's step, the norm of gradients, the average of weights
    data movement    copies, casts and concatenations that are kernels of their own
    attention        fused attention, without its projections
    convolutions, normalisation, products
    element-wise     all else, what compilers fuse included

The kernels of a step run one after another: what is left of the time from the first to the last is `gaps`,
when the GPU waited for the host to launch the next one.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity

OPTIMISER = re.compile(r"Optimizer\.step|_foreach_|fused_adam|multi_tensor")
MOVES = re.compile(r"^(memcpy|memset|aten::(copy_|_to_copy|cat|clone|fill_|zero_)$)", re.IGNORECASE)
KINDS = {
    "attention": re.compile(r"flash|fmha|attention|sdpa|softmax", re.IGNORECASE),
    "convolutions": re.compile(r"conv(?!ert)|cudnn|[wd]grad|fprop", re.IGNORECASE),
    "normalisation": re.compile(r"(layer|rms|group|vector)_?norm|GammaBeta|RowwiseMoments", re.IGNORECASE),
    "products": re.compile(r"gemm|nvjet|cutlass|cublas|::(addmm|mm|bmm|matmul|linear)\b", re.IGNORECASE),
}
GROUPS = (*KINDS, "element-wise", "optimiser", "data movement")
FUSED = "triton_"


@dataclasses.dataclass(frozen=True)
class Piece:
    """A kernel or an operation.

    Arguments:
        name: Its name.
        within: The operations that it was launched in, the innermost first.
        seconds: How long it took, without what it launched.
    """

    name: str
    within: tuple[str, ...]
    seconds: float

    @property
    def group(self) -> str:
        """The kind of its work."""
        names = (self.name, *self.within)
        if any(map(OPTIMISER.search, names)):
            return "optimiser"
        if self.name.startswith(FUSED):  # its name lists what was fused
            return "normalisation" if KINDS["normalisation"].search(self.name) else "element-wise"
        if any(map(MOVES.search, names[:2])):
            return "data movement"
        for group, pattern in KINDS.items():
            if any(map(pattern.search, names)):
                return group
        return "element-wise"


@dataclasses.dataclass(frozen=True)
class Profile:
    """A profile of some steps.

    Arguments:
        pieces: Kernels or operations.
        span: Seconds from the first to the last.
        busy: Seconds of these in which at least one ran.
    """

    pieces: Sequence[Piece]
    span: float
    busy: float

    def shares(self) -> dict[str, float]:
        """The shares of the span of each kind of work and of the gaps; they add up to 1."""
        seconds = dict.fromkeys(GROUPS, 0.0)
        for piece in self.pieces:
            seconds[piece.group] += piece.seconds
        total = sum(seconds.values()) or 1.0
        shares = {group: self.busy / self.span * value / total for group, value in seconds.items()}
        return shares | {"gaps": 1 - self.busy / self.span}


def union(intervals: Iterable[tuple[float, float]]) -> float:
    """The length of the union of intervals."""
    length, end = 0.0, float("-inf")
    for first, last in sorted(intervals):
        length += max(0.0, last - max(first, end))
        end = max(end, last)
    return length


def profile(work: Callable[[], object], device: torch.device) -> Profile:
    """Profile a call."""
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with torch.profiler.profile(activities=activities) as profiled:
        work()
        if on_gpu:
            torch.cuda.synchronize(device)
    events = profiled.events() or []
    pieces: list[Piece] = []
    intervals: list[tuple[float, float]] = []
    for event in events:
        if event.device_type != DeviceType.CPU:
            if not event.is_user_annotation:  # those span the gaps between kernels
                intervals.append((1e-6 * event.time_range.start, 1e-6 * event.time_range.end))
            continue
        within: list[str] = []
        parent = event.cpu_parent
        while parent is not None:
            within.append(parent.name)
            parent = parent.cpu_parent
        if on_gpu:
            launched = (event.name, *within)
            pieces += [Piece(each.name, launched, 1e-6 * each.duration) for each in event.kernels]
        else:
            pieces.append(Piece(event.name, tuple(within), 1e-6 * event.self_cpu_time_total))
    if not on_gpu:
        intervals = [(0.0, sum(piece.seconds for piece in pieces))]
    if not intervals:
        raise RuntimeError("the profiler saw no kernel")
    span = max(last for _, last in intervals) - min(first for first, _ in intervals)
    return Profile(pieces, span, union(intervals))
