"""How long tasks take together: list scheduling onto limited resources.

At any moment the tasks whose needs are finished start, in the given order, if their resources are free.
With one kind of resource this takes at most twice the best possible time (Graham's bound); it is also how a
sweep starts its trials.
"""

import collections
import dataclasses
import heapq
from collections.abc import Mapping, Sequence

from lola.core.config import require


@dataclasses.dataclass(frozen=True)
class Task:
    """A task with a duration, dependencies and resources."""

    name: str  # several tasks may have the same name; a task that needs it needs all of them
    seconds: float  # how long it takes
    # names of tasks that must finish first; names without a task count as finished
    needs: frozenset[str] = frozenset()
    # amounts that it occupies while it runs, by resource
    takes: Mapping[str, float] = dataclasses.field(default_factory=dict)


def makespan(tasks: Sequence[Task], capacity: Mapping[str, float]) -> float:
    """Seconds until all tasks are done.

    Arguments:
        tasks: The tasks; their needs have no cycle.
        capacity: The amount of each resource.

    Raises:
        ConfigError: A task needs more than the capacity.
    """
    for task in tasks:
        for resource, amount in task.takes.items():
            available = capacity.get(resource, 0)
            require(
                amount <= available,
                f"{task.name} needs {amount:g} {resource}, but the cluster has {available:g}",
            )
    plan = _Schedule(tasks, capacity)
    while plan.left:
        plan.start()
        if not plan.running:
            raise ValueError(f"{plan.left} tasks wait for each other")
        plan.finish()
    return plan.now


def critical_path(tasks: Sequence[Task]) -> float:
    """Seconds until all tasks are done with unlimited resources."""
    return makespan([dataclasses.replace(task, takes={}) for task in tasks], {})


class _Schedule:
    """The state of the schedule: ready tasks, by the resources that they take, and running ones."""

    def __init__(self, tasks: Sequence[Task], capacity: Mapping[str, float]) -> None:
        self.tasks, self.free, self.now, self.left = tasks, dict(capacity), 0.0, len(tasks)
        self.count = collections.Counter(task.name for task in tasks)
        self.after: dict[str, list[int]] = collections.defaultdict(list)
        self.blocked = [len(task.needs & self.count.keys()) for task in tasks]
        self.ready: dict[tuple, list[int]] = collections.defaultdict(list)
        self.running: list[tuple[float, int]] = []
        for number, task in enumerate(tasks):
            for name in task.needs & self.count.keys():
                self.after[name].append(number)
            if not self.blocked[number]:
                self._enqueue(number)

    def _enqueue(self, number: int) -> None:
        heapq.heappush(self.ready[tuple(sorted(self.tasks[number].takes.items()))], number)

    def start(self) -> None:
        while fitting := [queue for takes, queue in self.ready.items() if queue and self._fits(takes)]:
            number = heapq.heappop(min(fitting))
            for resource, amount in self.tasks[number].takes.items():
                self.free[resource] -= amount
            heapq.heappush(self.running, (self.now + self.tasks[number].seconds, number))

    def _fits(self, takes: tuple[tuple[str, float], ...]) -> bool:
        return all(self.free[resource] >= amount - 1e-9 for resource, amount in takes)

    def finish(self) -> None:
        """Advance the time to the next end of a task."""
        self.now, number = heapq.heappop(self.running)
        task = self.tasks[number]
        self.left -= 1
        for resource, amount in task.takes.items():
            self.free[resource] += amount
        self.count[task.name] -= 1
        if not self.count[task.name]:
            for other in self.after[task.name]:
                self.blocked[other] -= 1
                if not self.blocked[other]:
                    self._enqueue(other)
