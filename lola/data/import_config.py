"""What is imported from files of arrays, and what their axes are."""

import dataclasses

import tyro

from lola.core.config import Config, Distinct, DistinctOrNone, require
from lola.core.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportConfig(Config):
    """The files to import, the dataset to write, and what the axes and variables of the files are.

    Arguments:
        inputs: Files .npz or NetCDF, or Zarr folders, each of one or more trajectories with the same
            variables; or files .npy, one per field.
        output: The folder of datasets to write into.
        name: The name of the dataset.
        boundaries: wall, open or periodic for all axes; or one each, AXIS=KIND, or AXIS=KIND,KIND for both
            ends.
        dimensions: The axes of the fields in .npz and .npy, in order, such as: trajectory time x y. Vectors
            and tensors have one or two more.
        trajectory: The axis of trajectories; files without it hold one trajectory each.
        time: The axis of states.
        component: The axis of a vector's components in NetCDF and Zarr.
        space: The grid axes in the order to write; default: the others of the fields, as stored.
        fields: The variables that are fields; default: all that have the time and the grid axes.
        vectors: Vectors made of variables, by grid axis: NAME=VARIABLE,VARIABLE.
        constants: The variables that are fields constant in time.
        scalars: Variables or attributes that are constants of the simulation, or NAME=VALUE for all
            trajectories; default: the variables with one value per trajectory.
        shares: The shares of trajectories for training, validation and tests.
        seed: Of the random assignment.
        overwrite: Whether to replace a dataset of this name.
    """

    inputs: tyro.conf.Positional[tuple[str, ...]]
    output: str
    name: str
    boundaries: Distinct[str]
    dimensions: DistinctOrNone[str] = ()
    trajectory: str = "trajectory"
    time: str = "time"
    component: str = "component"
    space: DistinctOrNone[str] = ()
    fields: DistinctOrNone[str] = ()
    vectors: DistinctOrNone[str] = ()
    constants: DistinctOrNone[str] = ()
    scalars: DistinctOrNone[str] = ()
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1)
    seed: int = 0
    overwrite: bool = False

    def validate(self) -> None:
        require(bool(self.inputs), "name the files to import; see --help")
        require(len(set(self.inputs)) == len(self.inputs), "the files to import contain duplicates")
        if self.dimensions:
            require(
                self.time in self.dimensions,
                f"--dimensions must contain {self.time}, or name the axis of states by --time",
            )
        self.compositions()

    def compositions(self) -> dict[str, tuple[str, ...]]:
        """The variables of each vector that is made of some."""
        pairs = [each.partition("=") for each in self.vectors]
        for name, _, variables in pairs:
            require(bool(name and variables), f"--vectors takes NAME=VARIABLE,VARIABLE, not {name}")
        return {name: tuple(variables.split(",")) for name, _, variables in pairs}

    def given_scalars(self) -> dict[str, float]:
        """The scalars that are given as numbers."""
        found = {}
        for name, equals, value in (each.partition("=") for each in self.scalars):
            if equals:
                try:
                    found[name] = float(value)
                except ValueError as error:
                    raise ConfigError(f"--scalars {name}={value}: {value!r} is no number") from error
        return found

    def ends(self) -> dict[str, tuple[str, ...]] | str:
        """The boundaries as `write_well` takes them."""
        if len(self.boundaries) == 1 and "=" not in self.boundaries[0]:
            return self.boundaries[0]
        pairs = [each.partition("=") for each in self.boundaries]
        for axis, equals, kinds in pairs:
            require(
                bool(equals and kinds), f"--boundaries takes one KIND, or AXIS=KIND for each axis, not {axis}"
            )
        return {axis: tuple(kinds.split(",")) if "," in kinds else (kinds, kinds) for axis, _, kinds in pairs}
