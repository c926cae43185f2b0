"""What a command's CPU seconds were used for: its processes by their titles, and clocks inside of them.

Clocks (`benchmarks.clocks`) count what simulates, trains, encodes, emulates and scores, writes the report or
copies to MLflow, and what imports, in whichever process that happens; what else a process uses counts for
what it is by its title.
"""

import os
import re
import shlex
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from benchmarks import clocks
from benchmarks.configs import AccountConfig
from benchmarks.processes import Account, Process, account

from lola.core.config import require
from lola.core.errors import ConfigError
from lola.core.filesystem import expand
from lola.storage.remote import require_new

IMPORTING = "importing"
STARTING = "idle Ray workers: starting, waiting"
OVERHEAD = (
    (r"ray::IDLE|default_worker\.py", STARTING),
    (
        r"ray::(TrainController|PlacementGroupCleaner|TrainState|SynchronizationActor)",
        "Ray Train's controllers",
    ),
    (r"ray::(RayTrainWorker|_train)", "training workers outside of steps"),
    (r"ray::(ImplicitFunc|FunctionTrainable|_?run_trial|bundle)", "processes of trials"),
    (r"ray::(\w*Agent|_StatsActor|AutoscalingRequester|JobSupervisor|_?ProxyActor)", "Ray's own processes"),
    (r"ray::", "tasks outside of their work"),
    (
        r"raylet|gcs_server|/ray/(_private|dashboard|autoscaler|util)/|ray_process_reaper",
        "Ray's own processes",
    ),
    (r"\bmlflow\b|resource_tracker", "MLflow"),
    (r"still_child", "report"),
    (r"timing_process", "timing steps before trainings"),
)
"""What a process is, by the first pattern that its title has; the command itself is the driver."""
DRIVER, OTHERS, UNSEEN = "driver", "other processes", "ended between two samples"


def run_account(config: AccountConfig) -> tuple[str, int]:
    """Run a command; returns the table of what it used, and its exit code.

    Raises:
        ConfigError: The file for the table exists, or the command does not.
    """
    try:
        command = shlex.split(config.command)
    except ValueError as error:  # a quote that does not end
        raise ConfigError(f"{config.command!r} is not a command: {error}") from error
    require(
        shutil.which(command[0]) is not None, f"{command[0]} is not a program; give one, with its options"
    )
    if config.output:
        require_new(expand(config.output), config.overwrite)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "clocks").mkdir()
        shutil.copy(clocks.__file__, folder / "sitecustomize.py")
        environment = {clocks.VARIABLE: str(folder / "clocks")}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (name, os.environ.get("PYTHONPATH"))))
        found = account(command, os.environ | environment)
        times = {path.name: clocks.read(path) for path in (folder / "clocks").iterdir()}
    text = describe(found, times)
    if config.output:
        expand(config.output).write_text(text + "\n")
    return text, found.code


Times = Mapping[str, Mapping[str, tuple[float, float, float]]]
"""What clocks have counted: CPU seconds, first start and last stop, by process and clock."""


def describe(found: Account, times: Times) -> str:
    """The tables of purposes and of processes, and what else is to say."""
    purposes, kinds = by_purpose(found, times)
    stages = [*clocks.FUNCTIONS][: [*clocks.FUNCTIONS].index("report")]
    work = [name for name in (*stages, "report") if purposes[name]]
    rest = sorted(purposes.keys() - {*work}, key=lambda name: -purposes[name])
    overhead = sum(purposes[name] for name in rest)
    rows = [(name, purposes[name]) for name in work]
    rows += [("**all else**", overhead), *((name, purposes[name]) for name in rest)]
    rows.append(("**total**", found.seconds))
    lines = ["| purpose | CPU s | share |", "| --- | ---: | ---: |"]
    lines += [f"| {name} | {used:.1f} | {used / max(found.seconds, 1e-9):.1%} |" for name, used in rows]
    lines += [
        "",
        "| processes | number | CPU s | of it imports | largest, MB |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for kind, (number, used, imports, resident) in sorted(kinds.items(), key=lambda item: -item[1][1]):
        lines.append(f"| {kind} | {number} | {used:.1f} | {imports:.1f} | {resident / 1e6:.0f} |")
    lines += ["", _summary(found, [own[name] for own in times.values() for name in stages if name in own])]
    return "\n".join(lines)


def _summary(found: Account, stages: list[tuple[float, float, float]]) -> str:
    from lola.training.peak import processor_name  # here, since it imports torch

    cores = os.cpu_count() or 1
    parts = [
        f"{processor_name()}, {cores} cores. {found.seconds:.0f} CPU s in {found.wall:.0f} s",
        f"{len(found.processes)} processes seen, {found.most} at once",
        f"at most {found.resident / 1e9:.2f} GB resident, summed over processes, where shared pages count "
        f"for each ({found.proportional / 1e9:.2f} GB where they are divided among them)",
    ]
    if stages:
        start, end = min(first for _, first, _ in stages if first), max(last for *_, last in stages)
        inside = [entry for entry in found.timeline if start <= entry[0] <= end]
        if len(inside) > 1 and (wall := inside[-1][0] - inside[0][0]) > 0:
            own, all_of_it = ((inside[-1][i] - inside[0][i]) / (cores * wall) for i in (1, 2))
            parts.append(
                f"from the first stage's begin to the last one's end ({wall:.0f} s) the cores were busy with "
                f"this command for {own:.0%} of the time, and with all programs for {all_of_it:.0%}"
            )
    return "; ".join(parts) + "."


def by_purpose(
    found: Account, times: Times
) -> tuple[dict[str, float], dict[str, tuple[int, float, float, int]]]:
    """CPU seconds by purpose; and of every kind of process, by its last title, their number, CPU seconds,
    those of imports, and the largest one's resident bytes."""
    purposes: defaultdict[str, float] = defaultdict(float, {UNSEEN: found.unseen} if found.unseen else {})
    kinds: defaultdict[str, list[tuple[Process, float]]] = defaultdict(list)
    for i, (key, process) in enumerate(found.processes.items()):
        own = {name: entry[0] for name, entry in times.get(key, {}).items()}
        imports = own.pop(clocks.IMPORTS, 0.0)
        for name, seconds in own.items():
            purposes[name] += seconds
        purposes[IMPORTING] += imports
        # What no clock counts goes to the titles in proportion to what the process used under each
        left = max(0.0, process.total - imports - sum(own.values()))
        for title, seconds in process.seconds.items():
            purposes[_kind(title, first=i == 0)] += left * seconds / process.total if process.total else 0.0
        kinds[_shown(process.title, first=i == 0)].append((process, imports))
    return purposes, {
        kind: (
            len(members),
            sum(process.total for process, _ in members),
            sum(imports for _, imports in members),
            max(process.resident for process, _ in members),
        )
        for kind, members in kinds.items()
    }


def _kind(title: str, *, first: bool) -> str:
    if first:
        return DRIVER
    return next((kind for pattern, kind in OVERHEAD if re.search(pattern, title)), OTHERS)


def _shown(title: str, *, first: bool) -> str:
    """A process's title as a table has it: a program's file, without folders and options."""
    if first:
        return DRIVER
    if title.startswith("ray::"):
        return f"`{title.split('(')[0]}`"
    words = title.split()
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
    programs = [Path(word).name for word in words if word.endswith(".py")]
    return f"`{module or (programs or [Path(word).name for word in words[:1]] or ['?'])[0]}`"
