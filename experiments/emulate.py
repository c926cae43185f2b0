"""Emulate from initial states: `emulate.py EMULATOR WELL_FILE [--option value ...]`, or `--pretrained`."""

import dataclasses
import functools
from pathlib import Path

from tyro.conf import Positional

from lola.core.cli import launch_alone
from lola.core.config import require, runtime_field
from lola.core.waiting import loading
from lola.emulation.ensemble_config import EnsembleConfig
from lola.emulation.film_config import FilmConfig
from lola.storage.stages import to_location


@dataclasses.dataclass(frozen=True, kw_only=True)
class Emulation(EnsembleConfig):
    """An emulation and its output files.

    Arguments:
        pretrained: Take the emulator from those kept in experiments/results/models, by its kind
            (diffusion, neural-solver, ...), else the ensemble of the least CRPS; initial states are
            there too.
        output: Path or URL of the Well file to write; films are written next to it, under the same name.
        film: Options of the films.
        films: Whether to write films.
    """

    emulator: Positional[str] = ""
    initial: Positional[str] = ""
    pretrained: bool = runtime_field(False)
    output: str = runtime_field("ensemble.hdf5")
    film: FilmConfig = dataclasses.field(default_factory=FilmConfig)
    films: bool = runtime_field(True)

    def validate(self) -> None:
        super().validate()
        named = bool(self.emulator and self.initial)
        require(named or self.pretrained, "give emulator and initial, or --pretrained; see --help")


def main(config: Emulation) -> None:
    """Draw an ensemble of trajectories and write it as a Well file, with a film as MP4 and GIF."""
    with loading():
        from lola.emulation.ensembles import write_ensemble
        from lola.emulation.film import check_film, film_paths, write_film
        from lola.storage.remote import require_new, to_path

        if config.pretrained:
            from lola.workflows.pretrained import choose_pretrained

    if config.pretrained:
        config = choose_pretrained(Path(__file__).parent / "results" / "models", config)
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
