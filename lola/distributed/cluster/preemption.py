"""The notice that a node is about to be taken away, as training processes see it.

Ray Train's answer is the same for all workers of a run, who must ask together, and asking costs them a few
milliseconds. So they ask every few steps: the first worker times them, and tells the others after how many
to ask again. What a notice asks for is a checkpoint at once, and another shortly before the node goes, so
that little of what is trained in between is lost.
"""

import time

import ray.train
import torch
import torch.distributed
from ray.train import PreemptionInfo

INTERVAL = 2.0  # seconds between questions, where steps are shorter than that
MARGIN = 5.0  # seconds that the last checkpoint must be done before the node goes


class PreemptionMonitor:
    """Tells after each step whether to save it at once; every worker of the run asks after the same steps.

    Arguments:
        device: Where workers exchange numbers.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pause, self.steps = 1, 0
        self.since = time.monotonic()
        self.nodes: set[str] = set()
        self.saving = 0.0  # seconds that the last checkpoint of a notice took
        self.near = self.saved = False

    def __call__(self) -> bool:
        """Whether to save now."""
        now = time.monotonic()
        if self.saved:  # by the call before this one
            self.saving, self.saved = now - self.since, False
            self.since, self.steps = now, 0
        self.steps += 1
        if self.steps < self.pause:
            return False
        info = ray.train.get_preemption_info()
        pace = (now - self.since) / self.steps
        pause = max(1, min(2 * self.pause, int(INTERVAL / max(pace, 1e-6))))
        self.saved, self.pause = self._agree(info is not None and self._due(info), pause)
        self.since, self.steps = time.monotonic(), 0
        return self.saved

    def _due(self, info: PreemptionInfo) -> bool:
        """Whether a notice is new, or its end is near and nothing was saved since."""
        if not self.nodes.issuperset(info.preempted_node_ids):
            self.nodes.update(info.preempted_node_ids)
            self.near = False
            return True
        if self.near or info.deadline_ms is None:
            return False
        left = info.deadline_ms / 1000 - time.time()
        self.near = left < MARGIN + 2 * self.saving + INTERVAL
        return self.near

    def _agree(self, due: bool, pause: int) -> tuple[bool, int]:
        """What the first worker decides."""
        if not torch.distributed.is_initialized():
            return due, pause
        answer = torch.tensor([int(due), pause], device=self.device)
        torch.distributed.broadcast(answer, 0)
        due, pause = answer.tolist()  # a GPU is waited for once
        return bool(due), pause
