r"""Ensembles of trajectories from given initial states, written as The Well's files.

From `K` states of trajectory `i`, a stride apart, an emulator draws `M` members of the states that follow
(or came before). Sample `i M + m` of the file is member `m`: the known states and those emulated, in the
order of time and in physical units. Windows of all members are decoded and written as soon as they are drawn,
to a temporary file that is renamed when it is complete. A member is a function of (seed, trajectory,
member), as in the evaluation.
"""

import dataclasses
import itertools
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor
from upath import UPath

from lola.core.config import require
from lola.core.errors import ConfigError, DivergedError
from lola.core.waiting import PROGRESS_INTERVAL_S, Log, Reminder, describe_progress, reminding
from lola.data.hdf5 import SUFFIXES, file_name, list_files, open_hdf5
from lola.data.systems import SPLITS
from lola.data.well.fields import location
from lola.data.well.selection import advising
from lola.data.well.splits import ANOTHER_FILE, WellSplit, open_well_file
from lola.data.well.writer import (
    create_constant_field,
    create_fields,
    create_varying_scalars,
    write_layout,
    writing,
)
from lola.emulation.emulator import Emulator, load_emulator, trained_system
from lola.emulation.ensemble_config import EnsembleConfig
from lola.storage.registry import find_emulator, find_root
from lola.storage.remote import AnyPath, is_same_file, require_new, require_writable, to_path
from lola.storage.stages import atomic_path, read_manifest, to_location


@dataclasses.dataclass(frozen=True, eq=False)
class Ensemble:
    """Initial states and what is emulated from them.

    Arguments:
        split: The trajectories of the initial file.
        stride: Simulation steps between states.
        scalars: The constants of each trajectory, with shape `(trajectories, constants)`.
    """

    config: EnsembleConfig
    emulator: Emulator
    split: WellSplit
    members: int
    stride: int
    states: int
    scalars: np.ndarray

    @property
    def steps(self) -> np.ndarray:
        """The simulation steps of all states, known and emulated, in the file's counting."""
        first = self.config.start - (self.stride * self.states if self.config.backward else 0)
        return first + self.stride * np.arange(self.config.context + self.states)

    def times(self) -> np.ndarray:
        """The times of all states: the file's, continued evenly; a file with one state has steps instead."""
        times = self.split.axis(self.config.trajectories[0], "time").astype(np.float64)
        if len(times) == 1:
            return times[0] + self.steps
        step = (times[-1] - times[0]) / (len(times) - 1)
        inside = (self.steps >= 0) & (self.steps < len(times))
        even = times[0] + step * self.steps
        return np.where(inside, times[np.clip(self.steps, 0, len(times) - 1)], even)

    def emulate(self) -> Iterator[tuple[int, int, Tensor]]:
        """The known states, then those emulated, window by window and few samples at a time.

        Fields that are constant in time keep their known values.

        Yields:
            The numbers of the first sample and of its first state, and states in physical units, with shape
            `(samples, C, n, *grid)`, on the CPU.
        """
        config, emulator = self.config, self.emulator
        place = self.states if config.backward else 0
        x = torch.stack([self._known(i) for i in config.trajectories])
        yield 0, place, x.repeat_interleave(self.members, dim=0)
        constants = list(self.split.system.channels_of("constant"))
        constant = x[:, constants, :1].repeat_interleave(self.members, dim=0)
        x = x.to(emulator.device)
        z = emulator.encode(emulator.standardisation.forward(x)).repeat_interleave(self.members, dim=0)
        parameters = torch.stack([self._parameters(row) for row in range(len(config.trajectories))])
        keys = [
            (config.seed, self.split.trajectories[i].id, member)
            for i in config.trajectories
            for member in range(self.members)
        ]
        place += 0 if config.backward else config.context
        for part in emulator.rollout(
            z,
            parameters.repeat_interleave(self.members, dim=0).to(z),
            self.states,
            keys,
            overlap=config.overlap,
            backward=config.backward,
        ):
            place -= part.shape[2] if config.backward else 0
            count = max(1, emulator.inference.states // part.shape[2])
            for row, rows in zip(itertools.count(step=count), part.split(count), strict=False):
                states = emulator.standardisation.inverse(emulator.decode(rows)).float().cpu()
                states[:, constants] = constant[row : row + count]
                yield row, place, states
            place += 0 if config.backward else part.shape[2]

    def _known(self, index: int) -> Tensor:
        start, count = self.config.start, self.config.context
        with advising(ANOTHER_FILE):
            return self.split.read(index, start, start + self.stride * (count - 1) + 1, self.stride)

    def _parameters(self, row: int) -> Tensor:
        index = self.config.trajectories[row]
        source = dataclasses.replace(self.split.trajectories[index], scalars=self.scalars[row])
        return dataclasses.replace(self.split, trajectories=(source,)).parameters(0)


def open_ensemble(config: EnsembleConfig) -> Ensemble:
    """Find the emulator, open the initial file, and check that they fit each other and the configuration.

    Raises:
        LolaError: A file is missing, corrupt or unrecognised, or the configuration is impossible.
    """
    folder = find_emulator(find_root(config.storage, config.emulator), config.emulator)
    initial = to_location(config.initial)
    with advising(ANOTHER_FILE), open_hdf5(initial):  # a wrong file is found before the model is loaded
        pass
    emulator = load_emulator(folder, config.sampler, config.weights)
    emulator = dataclasses.replace(emulator, inference=config.inference)
    system = trained_system(folder)
    split, manifest = open_well_file(initial, system), read_manifest(folder)
    count = manifest["sizes"]["parameters"]
    require(
        count in (0, split.parameter_count),  # some networks take none
        f"{config.initial} has the constants {', '.join(split.constants) or 'none'}, and {config.emulator} "
        f"takes {count - 2 * system.dimensions}; name a file of the simulations that it was trained on",
    )
    device = torch.device(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        emulator.to(device)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device {device} cannot be used ({reason}); choose another") from error
    trained = manifest["config"].get("stride", config.stride or system.stride)
    stride = config.stride or trained
    require(
        stride == trained,
        f"--stride {stride}: {config.emulator} was trained on states {trained} steps apart; leave it out",
    )
    return Ensemble(
        config=config,
        emulator=emulator,
        split=split,
        members=config.members if emulator.stochastic else 1,
        stride=stride,
        states=_states(config, emulator, split, stride),
        scalars=_scalars(config, split),
    )


def _states(config: EnsembleConfig, emulator: Emulator, split: WellSplit, stride: int) -> int:
    for index in config.trajectories:
        require(
            0 <= index < len(split.trajectories),
            f"--trajectories {index}: {config.initial} has {len(split.trajectories)}, which count from 0",
        )
    length = emulator.model.window
    require(config.context < length, f"--context must be 1 to {length - 1} states, not {config.context}")
    require(config.overlap < length, f"--overlap must be 1 to {length - 1} states, not {config.overlap}")
    last = config.start + stride * (config.context - 1)
    require(
        last < split.steps,
        f"{config.initial} has {split.steps} states and none of number {last}; choose an earlier --start, a "
        "smaller --stride or a shorter --context",
    )
    left = config.start // stride if config.backward else (split.steps - 1 - last) // stride
    require(
        config.states is not None or left > 0,
        f"{config.initial} has no states {'before' if config.backward else 'after'} those known; "
        "give the number to emulate with --states",
    )
    return config.states or left


def _scalars(config: EnsembleConfig, split: WellSplit) -> np.ndarray:
    """The constants of each trajectory, some overridden."""
    scalars = np.stack([split.trajectories[i].scalars for i in config.trajectories]).astype(np.float64)
    for name, value in config.overrides().items():
        require(
            name in split.constants,
            f"--parameters: {config.initial} has no {name}; there are {', '.join(split.constants) or 'none'}",
        )
        positive = name not in split.system.log_parameters or value > 0
        require(math.isfinite(value) and positive, f"--parameters: {name} cannot be {value:g}")
        scalars[:, split.constants.index(name)] = value
    return scalars


def write_ensemble(
    config: EnsembleConfig,
    path: str | Path,
    log: Log = lambda _: None,
    check: Callable[[Ensemble], None] = lambda _: None,
) -> AnyPath:
    """Emulate, and write a file of The Well's layout, state by state; it is renamed to `path` when complete.

    Arguments:
        path: The file, or a URL; a file for a URL is uploaded when complete. It must be new, or
            `config.overwrite` allows to replace it.
        log: Called with messages about what is done, and with the progress every few seconds.
        check: Called with the ensemble before anything is drawn; may raise.

    Returns:
        The file's absolute path, or the URL's.

    Raises:
        LolaError: A file is missing, corrupt or unrecognised, the configuration is impossible, or the storage
            is full.
    """
    target = to_path(path)
    require(target.suffix in SUFFIXES, f"{target} must end in {' or '.join(SUFFIXES)}")
    require(
        not is_same_file(target, to_path(config.initial)),
        f"--output {target} is the file of the initial states, which would be lost; give another --output",
    )
    others = set(list_files(to_location(str(target.parent)))) - {to_location(str(target))}
    require(
        not (target.parent.name in SPLITS and target.parent.parent.name == "data" and others),
        f"--output {target} is in the folder of a dataset's {target.parent.name} split, of which it would be "
        "a file; give another --output",
    )
    require_new(target, config.overwrite)
    if isinstance(target, UPath):  # before the emulation, which may take hours
        require_writable(target.parent, "output")
    log(f"loading {config.emulator}")
    with reminding(lambda: f"still loading {config.emulator}", log, PROGRESS_INTERVAL_S, PROGRESS_INTERVAL_S):
        ensemble = open_ensemble(config)
    check(ensemble)
    _check_free_space(ensemble, target)
    split, count = ensemble.split, len(config.trajectories) * ensemble.members
    with atomic_path(target) as tmp_path, writing(tmp_path, "w") as file:
        axes = dict(zip(split.axes, split.coordinates, strict=True))
        scalars: dict[str, Any] = {
            name: np.repeat(values, ensemble.members)
            for name, values in zip(split.constants, ensemble.scalars.T, strict=True)
        }
        boundary = split.trajectories[0].boundary
        dataset, times = split.system.datasets[0], ensemble.times()
        write_layout(file, dataset, count, times, axes, scalars, boundary, split.grid_type)
        _create_fields(file, count, ensemble)
        write_provenance(file, ensemble)
        total, done = count * ensemble.states, 0
        log(f"emulating {ensemble.states} states of {count} samples on {ensemble.emulator.device}")
        reminder: Reminder
        describe = lambda: f"emulated {describe_progress(done, total, 'states', reminder.elapsed)}"  # noqa: E731
        with reminding(describe, log, PROGRESS_INTERVAL_S, PROGRESS_INTERVAL_S) as reminder:
            for number, (row, place, states) in enumerate(ensemble.emulate()):
                _write(file, ensemble, states.numpy(), row, place)
                done += len(states) * states.shape[2] if number else 0  # the first are known
        log(f"all {total} states are drawn")
    return target


def _check_free_space(ensemble: Ensemble, target: AnyPath) -> None:
    """Raise `ConfigError` if an ensemble is larger than what is free where it is written."""
    config, split = ensemble.config, ensemble.split
    samples = len(config.trajectories) * ensemble.members
    size = 4.0 * samples * len(ensemble.steps) * len(split.system.channels) * math.prod(split.grid)
    folder = next((parent for parent in target.parents if isinstance(parent, Path) and parent.is_dir()), None)
    free = math.inf if folder is None else shutil.disk_usage(folder).free
    require(
        size <= free,
        f"the ensemble takes {size / 1e9:.3g} GB and {folder} has {free / 1e9:.3g} free; emulate fewer "
        "--members, --states or --trajectories, or give another --output",
    )


def _create_fields(file: h5py.File, count: int, ensemble: Ensemble) -> None:
    split, steps = ensemble.split, len(ensemble.steps)
    by_role = {
        role: [f for f in split.system.fields if f.role == role] for role in ("state", "constant", "scalar")
    }
    create_fields(file, count, {field.name: field.order for field in by_role["state"]}, (steps, *split.grid))
    d = len(split.grid)
    for field in by_role["constant"]:
        create_constant_field(file, field.name, field.order, (count, *split.grid, *[d] * field.order), d)
    create_varying_scalars(file, (count, steps), [field.name for field in by_role["scalar"]])


def _write(file: h5py.File, ensemble: Ensemble, states: np.ndarray, row: int, place: int) -> None:
    """Write states `(rows, C, n, *grid)`: components come last in The Well.

    Raises:
        DivergedError: A value is not finite; names the first field, trajectory, member and step.
    """
    rows, steps = slice(row, row + len(states)), slice(place, place + states.shape[2])
    system, channel = ensemble.split.system, 0
    for field, size in zip(system.fields, system.sizes, strict=True):
        values = np.moveaxis(states[:, channel : channel + size], 1, -1)
        shape = values.shape[:-1] + (system.dimensions,) * field.order
        if not np.isfinite(values).all():
            lost = ~np.isfinite(values.reshape(*values.shape[:2], -1)).all(-1)
            i, state = np.argwhere(lost)[0]
            number, member = divmod(row + int(i), ensemble.members)
            raise DivergedError(
                f"{field.name} of trajectory {ensemble.config.trajectories[number]}, member {member}, is not "
                f"finite at step {ensemble.steps[place + state]}: the emulator has diverged; emulate fewer "
                "--states, or choose another emulator"
            )
        if field.role == "scalar":  # networks see it as a uniform field
            file[location(field)][rows, steps] = values.reshape(*shape[:2], -1).mean(-1, dtype=np.float64)
        elif field.role == "constant":
            file[location(field)][rows] = values.reshape(shape)[:, 0]
        else:
            file[location(field)][rows, steps] = values.reshape(shape)
        channel += size


def write_provenance(file: h5py.File, ensemble: Ensemble) -> None:
    """Record how a file was made: as attributes, and lists, which may be longer than these, as arrays."""
    config, mask = ensemble.config, ensemble.split.system.mask
    file.attrs.update(
        lola_emulator=Path(config.emulator).name,
        lola_initial=file_name(config.initial),
        lola_members=ensemble.members,
        lola_context=config.context,
        lola_backward=config.backward,
        lola_seed=config.seed,
        lola_shown=ensemble.split.system.shown,
        **({"lola_mask": mask.field, "lola_outside": mask.outside} if mask else {}),
    )
    group = file.create_group("lola")
    group["trajectories"] = np.asarray(config.trajectories)
    group["steps"] = ensemble.steps


def read_provenance(file: h5py.File, name: str) -> list[int]:
    """The `trajectories` or the simulation `steps` of an ensemble's file; earlier ones have attributes."""
    found = file[f"lola/{name}"] if "lola" in file else file.attrs[f"lola_{name}"]
    return [int(each) for each in found[:]]
