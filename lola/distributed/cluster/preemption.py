"""Preemption: saving checkpoints when a node is about to be taken away.

Ray Train's answer is the same for all workers of a run, who must ask together, and asking costs them a few
milliseconds; a worker that trains alone asks Ray. So they ask every few steps: the first worker times them,
and sends the others the number of steps until the next question. A preemption asks for a checkpoint at once,
and another shortly before the node goes, so that little of what is trained in between is lost.
"""

import time
from collections.abc import Callable

import ray
import torch
import torch.distributed
from ray.train import PreemptionInfo

CHECK_INTERVAL_S = 2.0  # between questions, where steps are shorter than that
SAVE_MARGIN_S = 5.0  # between the end of the last checkpoint and that of the node


class PreemptionMonitor:
    """Decides after each step whether to save it at once; every worker of the run asks after the same steps.

    Arguments:
        device: Where workers exchange numbers.
        read: What is known of a preemption; every worker calls it after the same steps.
    """

    def __init__(self, device: torch.device, read: Callable[[], PreemptionInfo | None]) -> None:
        self.device, self.read = device, read
        self.steps_between_checks, self.steps = 1, 0
        self.checked_at = time.monotonic()
        self.nodes: set[str] = set()
        self.save_duration = 0.0  # seconds that the last checkpoint of a notice took
        self.saved_near_end = self.saved = False

    def __call__(self) -> bool:
        now = time.monotonic()
        if self.saved:  # by the call before this one
            self.save_duration, self.saved = now - self.checked_at, False
            self.checked_at, self.steps = now, 0
        self.steps += 1
        if self.steps < self.steps_between_checks:
            return False
        info = self.read()
        seconds_per_step = (now - self.checked_at) / self.steps
        steps_between_checks = max(
            1, min(2 * self.steps_between_checks, int(CHECK_INTERVAL_S / max(seconds_per_step, 1e-6)))
        )
        self.saved, self.steps_between_checks = self._agree(
            info is not None and self._due(info), steps_between_checks
        )
        self.checked_at, self.steps = time.monotonic(), 0
        return self.saved

    def _due(self, info: PreemptionInfo) -> bool:
        """Whether a notice is new, or its end is near and nothing was saved since."""
        if not self.nodes.issuperset(info.preempted_node_ids):
            self.nodes.update(info.preempted_node_ids)
            self.saved_near_end = False
            return True
        if self.saved_near_end or info.deadline_ms is None:
            return False
        left = info.deadline_ms / 1000 - time.time()
        self.saved_near_end = left < SAVE_MARGIN_S + 2 * self.save_duration + CHECK_INTERVAL_S
        return self.saved_near_end

    def _agree(self, due: bool, steps_between_checks: int) -> tuple[bool, int]:
        """What the first worker decides."""
        if not torch.distributed.is_initialized():
            return due, steps_between_checks
        answer = torch.tensor([int(due), steps_between_checks], device=self.device)
        torch.distributed.broadcast(answer, 0)
        due, steps_between_checks = answer.tolist()  # a GPU is waited for once
        return bool(due), steps_between_checks


def preemption_of(node: str) -> PreemptionInfo | None:
    """The notice of a node, for a worker that trains there alone."""
    deadlines = draining_nodes()
    if node not in deadlines:
        return None
    return PreemptionInfo(deadline_ms=deadlines[node] or None, preempted_node_to_ranks={node: [0]})


def draining_nodes() -> dict[str, int]:
    """Nodes that are about to go, and when: milliseconds of the clock, 0 if that is not known."""
    found: dict[str, int] = ray._private.state.state.get_draining_nodes()
    return found
