"""Rollouts that are longer than any trajectory of the training, compared with the stationary flow.

No state can be predicted that far: what is compared are distributions (`scores.stationary`), in segments as
long as a trajectory. A rollout counts until it is unstable: until a value is not finite, or farther from the
values of the truth than these are apart; the share that is stable is a score of its own. The truth's own
sampling error is the distance of one half of its trajectories from the other half.

States are reduced as they are drawn: memory does not depend on the horizon.
"""

import dataclasses
import math
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from lola.core.config import require
from lola.core.waiting import PROGRESS_INTERVAL_S, Log, Reminder, describe_progress, reminding
from lola.data.domain import inside
from lola.data.well.splits import WellSplit, open_well_file
from lola.emulation.ensembles import Ensemble, open_ensemble
from lola.evaluation.long_rollout_config import LongRolloutConfig
from lola.evaluation.scores.stationary import Range, Statistics
from lola.evaluation.trajectory import axes_of
from lola.storage.stages import to_location

NUSSELT = ("Rayleigh", "Prandtl")


def compare_long_rollouts(config: LongRolloutConfig, log: Log = lambda _: None) -> dict[str, Any]:
    """Roll out, and compare with the truth.

    Returns:
        JSON values: `segments`, each with its `lead_times` (simulation steps, from and to), the share that is
        `stable` at its end, the number of `states` that count, distances by name and channel, and the `flux`;
        `truth`, with `states`, `flux` and the distances between halves of it; `flux`, what that is.

    Raises:
        LolaError: A file is missing, corrupt or unrecognised, or the configuration is impossible.
    """
    log(f"loading {config.emulator}")
    ensemble = open_ensemble(_with_states(config))
    split = ensemble.split
    truth = split if config.truth is None else open_well_file(to_location(config.truth), split.system)
    first = truth.steps // 2 if config.stationary is None else config.stationary
    path = config.truth or config.initial
    require(first < truth.steps, f"--stationary {first} must be less than the {truth.steps} states of {path}")
    log(f"reading {truth.steps - first} states of {len(truth.trajectories)} trajectories of the truth")
    flow = _Flow.of(truth, first, ensemble.stride, config.flux)
    found = _roll_out(ensemble, flow, log)
    one, other = flow.halves
    noise = one.compare(other, flow.channels) if one.states and other.states else {}
    whole = one + other
    for segment in found:
        statistics = segment.pop("statistics")
        segment |= statistics.compare(whole, flow.channels) | flow.flux_of(statistics)
        segment["states"] = statistics.states
    name = "" if config.flux is None else ("nusselt" if flow.nusselt else "flux")
    return _null_if_not_finite(
        {
            "segments": found,
            "truth": noise | {"states": whole.states} | flow.flux_of(whole),
            "flux": name,
            "config": config.to_json(),
        }
    )


def _null_if_not_finite(value: Any) -> Any:
    """JSON values with None for numbers that are not finite, as where no rollout is stable."""
    if isinstance(value, dict):
        return {key: _null_if_not_finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_null_if_not_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _with_states(config: LongRolloutConfig) -> LongRolloutConfig:
    """With a number of states; those of the file times the horizon need the file."""
    if config.states is not None:
        return config
    ensemble = open_ensemble(config.replace(states=1))
    return config.replace(states=max(1, int(config.horizon * ensemble.split.steps / ensemble.stride)))


@dataclasses.dataclass(frozen=True, eq=False)
class _Flow:
    """The stationary flow.

    Arguments:
        first: From which state on it is stationary.
        halves: Statistics of both halves of its trajectories, or of the times of a single one.
        empty: Statistics without any state.
        evolving: The numbers of the channels that count.
    """

    first: int
    halves: tuple[Statistics, Statistics]
    empty: Statistics
    evolving: list[int]
    channels: list[str]
    nusselt: bool

    @classmethod
    def of(cls, split: WellSplit, first: int, stride: int, flux: tuple[str, str] | None) -> "_Flow":
        """Read all trajectories of a file from a state on, twice: first for the range of values."""
        evolving = list(split.system.evolving)
        channels = [split.system.channels[number] for number in evolving]
        for name in flux or ():
            require(name in channels, f"--flux: there is no {name}; channels are {', '.join(channels)}")
        valid = inside(split.read(0, first, first + 1), split.system)
        valid = None if valid is None else valid[0, 0]
        parts = [
            (index, first, each.steps) for index, each in enumerate(split.trajectories) if each.steps > first
        ]
        if len(parts) == 1:
            index, _, steps = parts[0]
            middle = max(first + 1, (first + steps) // 2)
            parts = [(index, first, middle), (index, middle, steps)]

        def states(part: tuple[int, int, int]) -> Tensor:
            index, start, stop = part
            return split.read(index, start, stop, stride)[evolving].movedim(1, 0)

        smallest, largest = [], []
        for part in parts:
            cells = states(part) if valid is None else states(part)[..., valid]
            smallest.append(cells.transpose(0, 1).flatten(1).amin(1))
            largest.append(cells.transpose(0, 1).flatten(1).amax(1))
        bounds = Range.around(torch.stack(smallest).amin(0), torch.stack(largest).amax(0))
        numbers = None if flux is None else (channels.index(flux[0]), channels.index(flux[1]))
        axes = axes_of(split, split.trajectories[parts[0][0]])
        nusselt = flux is not None and set(NUSSELT) <= set(split.constants)
        empty = Statistics(bounds, axes, valid, numbers)
        halves = empty + empty, empty + empty
        for number, part in enumerate(parts):
            x = states(part)
            halves[number % 2].add(x, _scale(split, split.trajectories[part[0]].scalars, len(x), nusselt))
        return cls(first, halves, empty, evolving, channels, nusselt)

    def flux_of(self, statistics: Statistics) -> dict[str, float]:
        """The flux, or the Nusselt number; empty without any."""
        if statistics.flux is None:
            return {}
        return {"flux": statistics.mean_flux + (1 if self.nusselt else 0)}


def _scale(split: WellSplit, scalars: Any, count: int, nusselt: bool) -> Tensor | None:
    """What makes heat fluxes of `count` states with some constants a Nusselt number, less 1."""
    if not nusselt:
        return None
    rayleigh, prandtl = (float(scalars[split.constants.index(name)]) for name in NUSSELT)
    return torch.full((count,), (rayleigh * prandtl) ** 0.5, dtype=torch.float64)


def _roll_out(ensemble: Ensemble, flow: _Flow, log: Log) -> list[dict[str, Any]]:
    """The segments of rollouts, with their `statistics`."""
    config, stride, length = ensemble.config, ensemble.stride, ensemble.split.steps
    known = config.start + stride * (config.context - 1)
    count, last = len(config.trajectories) * ensemble.members, stride * ensemble.states
    segments: list[dict[str, Any]] = [
        {
            "lead_times": [low + 1, min(low + length, last)],
            "stable": 1.0,
            "statistics": flow.empty + flow.empty,
        }
        for low in range(0, last, length)
    ]
    alive, done, total = torch.ones(count, dtype=torch.bool), 0, count * ensemble.states
    stable = torch.zeros(len(segments), count, dtype=torch.bool)
    reminder: Reminder
    log(f"emulating {ensemble.states} states of {count} rollouts on {ensemble.emulator.device}")
    describe = lambda: f"emulated {describe_progress(done, total, 'states', reminder.elapsed)}"  # noqa: E731
    with reminding(describe, log, PROGRESS_INTERVAL_S, PROGRESS_INTERVAL_S) as reminder:
        for number, (row, place, states) in enumerate(ensemble.emulate()):
            if number == 0:
                continue  # the known states
            rows = torch.arange(row, row + len(states))
            for i, x in enumerate(states[:, flow.evolving].unbind(2)):
                step = config.start + stride * (place + i)
                segment = (step - known - 1) // length
                alive[rows] &= flow.empty.bounds.contains(_inside(x, flow))
                stable[segment, rows] = alive[rows]
                if step >= flow.first and alive[rows].any():
                    kept = rows[alive[rows]]
                    scales = [
                        _scale(ensemble.split, ensemble.scalars[r // ensemble.members], 1, flow.nusselt)
                        for r in kept.tolist()
                    ]
                    scale = torch.cat(scales) if flow.nusselt else None  # type: ignore[arg-type]
                    segments[segment]["statistics"].add(x[alive[rows]], scale)
            done += len(states) * states.shape[2]
    for found, each in zip(segments, stable, strict=True):
        found["stable"] = float(each.double().mean())
    return segments


def _inside(x: Tensor, flow: _Flow) -> Tensor:
    """States whose cells outside of the domain have a value that is inside of the range."""
    if flow.empty.valid is None:
        return x
    return torch.where(flow.empty.valid, x, flow.empty.bounds.low.view(-1, *[1] * (x.ndim - 2)))


def describe(found: dict[str, Any]) -> pd.DataFrame:
    """What `compare_long_rollouts` gives, segment by segment, with distances averaged over channels."""
    names = [name for name, value in found["truth"].items() if isinstance(value, dict)]
    names = names or [name for name, value in found["segments"][0].items() if isinstance(value, dict)]
    rows = []
    for row in (*found["segments"], found["truth"]):
        span = row.get("lead_times")
        cells = {"lead times": f"{span[0]}–{span[1]}" if span else "truth, half against half"}
        cells |= {"stable": _text(row.get("stable"), ".2f"), "states": str(row["states"])}
        for name in names:
            values = list(row.get(name, {}).values())
            lost = not values or None in values
            cells[name] = "" if lost else _text(sum(values) / len(values), ".3f")
        rows.append(cells | ({found["flux"]: _text(row["flux"], ".3g")} if found["flux"] else {}))
    return pd.DataFrame(rows)


def _text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
