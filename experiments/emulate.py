"""Emulate from initial states: `emulate.py EMULATOR WELL_FILE [--option value ...]`."""

import dataclasses
import functools

from lola.core.cli import launch_alone
from lola.core.config import runtime_field
from lola.core.waiting import loading
from lola.emulation.ensemble_config import EnsembleConfig
from lola.emulation.film_config import FilmConfig
from lola.storage.stages import to_location


@dataclasses.dataclass(frozen=True, kw_only=True)
class Emulation(EnsembleConfig):
    """An emulation and its output files.

    Arguments:
        output: Path or URL of the Well file to write; films are written next to it, under the same name.
        film: Options of the films.
        films: Whether to write films.
    """

    output: str = runtime_field("ensemble.hdf5")
    film: FilmConfig = dataclasses.field(default_factory=FilmConfig)
    films: bool = runtime_field(True)


def main(config: Emulation) -> None:
    """Draw an ensemble of trajectories and write it as a Well file, with a film as MP4 and GIF."""
    with loading():
        from lola.emulation.ensembles import write_ensemble
        from lola.emulation.film import check_film, film_paths, write_film
        from lola.storage.remote import require_new, to_path

    for film in film_paths(to_path(config.output)) if config.films else ():
        require_new(film, config.overwrite)
    check = functools.partial(check_film, config.film) if config.films else lambda _: None
    path = write_ensemble(config, config.output, print, check)
    print(f"ensemble: {path}")
    if config.films:
        for film in write_film(path, config.film, to_location(config.initial), print):
            print(f"film: {film}")


if __name__ == "__main__":
    launch_alone(main, Emulation)
