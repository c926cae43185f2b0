import h5py
import imageio.v2 as imageio
import numpy as np
import pytest
from matplotlib import colormaps

from lola.core.errors import ConfigError, DataError, StorageError
from lola.data.description import EULER
from lola.data.well.writer import create_fields, write_layout
from lola.emulation.film import EnsembleFrames, FrameRenderer, GifWriter, write_film
from lola.emulation.film_config import FilmConfig

DATASET = "euler_multi_quadrants_openBC"
STEPS, GRID = 4, (8, 6)


def write(path, count, steps=STEPS, members=None):
    generator = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        axes = {name: np.arange(size) / size for name, size in zip("xy", GRID, strict=True)}
        write_layout(
            file, DATASET, count, np.linspace(0, 1, steps), axes, {"gamma": 1.4}, np.ones((2, 2), int)
        )
        orders = {field.name: field.order for field in EULER.fields}
        create_fields(file, count, orders, (steps, *GRID))
        for field in EULER.fields:
            array = file[f"t{field.order}_fields/{field.name}"]
            array[:] = generator.uniform(1, 2, array.shape)
        if members:
            file.attrs.update(
                lola_members=members,
                lola_steps=[0, 2, 4, 6],
                lola_trajectories=list(range(count // members)),
                lola_shown="density",
            )
    return path


@pytest.fixture
def ensemble(tmp_path):
    return write(tmp_path / "ensemble.hdf5", count=6, members=3)


# imageio leaves the pipes of ffmpeg to be closed by the collector, which runs at the end of the test.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("known", [True, False])
def test_a_film_has_a_frame_per_state_in_both_formats(tmp_path, ensemble, known):
    truth = write(tmp_path / "truth.hdf5", count=2, steps=5) if known else None
    config = FilmConfig(fields=("density", "momentum_x"), size=64, rate=4, trajectory=1)
    films = write_film(ensemble, config, truth)
    assert [film.name for film in films] == ["ensemble.mp4", "ensemble.gif"]
    assert not list(tmp_path.glob(".*"))
    for film in films:
        with imageio.get_reader(film) as reader:
            frames = [frame for frame in reader]  # noqa: C416, of unknown length
        assert len(frames) == STEPS
        assert frames[0].shape[0] % 2 == frames[0].shape[1] % 2 == 0
        assert np.abs(frames[0].astype(float) - frames[1]).max() > 50


def test_a_gif_has_the_colours_of_its_maps(tmp_path, ensemble):
    with h5py.File(ensemble) as file:
        renderer = FrameRenderer(EnsembleFrames(file, EULER, FilmConfig(size=64), None), FilmConfig(size=64))
        frame = renderer.draw(1)
        bar = renderer.figure.axes[-1].get_window_extent()
    with GifWriter(tmp_path / "film.gif", 5) as film:
        film.append_data(frame)
    with imageio.get_reader(tmp_path / "film.gif") as reader:
        written = reader.get_data(0)[..., :3].astype(float)
    assert (np.abs(written - frame).max(-1) <= 4).mean() > 0.95  # but for letters and edges
    top, bottom = (round(renderer.figure.bbox.height - edge) for edge in (bar.y1, bar.y0))
    seen = written[top + 2 : bottom - 2, round((bar.x0 + bar.x1) / 2)]
    inferno = 255 * colormaps["inferno"](np.linspace(0, 1, 256))[:, :3]
    apart = np.abs(seen[:, None] - inferno).max(-1)
    assert apart.min(1).max() < 1
    places = apart.argmin(1)
    assert (np.diff(places) <= 0).all()
    assert len(set(places)) > 0.8 * len(places)
    assert places[0] > 240
    assert places[-1] < 10


def test_frames_show_the_chosen_trajectory(tmp_path, ensemble):
    with h5py.File(ensemble) as file:
        frames = EnsembleFrames(file, EULER, FilmConfig(trajectory=1), None)
        assert frames.fields == ("density",)
        np.testing.assert_array_equal(
            frames.ensemble("momentum_y", 2), file["t1_fields/momentum"][3:6, 2, ..., 1]
        )
        low, high, spread = frames.scales("density")
        means = file["t0_fields/density"][3:6].mean(axis=0)
        deviations = file["t0_fields/density"][3:6].std(axis=0)
        assert (low, high) == pytest.approx(np.quantile(means, [0.005, 0.995]))
        assert spread == pytest.approx(np.quantile(deviations, 0.995))


def test_one_cell_does_not_decide_the_colours(tmp_path, ensemble):
    with h5py.File(ensemble, "r+") as file:
        file["t0_fields/density"][3:6, 1, 0, 0] = 1e6
        low, high, _ = EnsembleFrames(file, EULER, FilmConfig(trajectory=1), None).scales("density")
    assert high - low < 1e5  # of 192 values, quantiles are between the two greatest


def test_pictures_keep_their_places_when_the_title_changes(ensemble):
    with h5py.File(ensemble) as file:
        frames = EnsembleFrames(file, EULER, FilmConfig(), None)
        frames.times = np.array([1.0, -1.2345e-7, *frames.times[2:]])
        renderer = FrameRenderer(frames, FilmConfig())
        renderer.draw(0)
        places = [axes.get_position().bounds for axes in renderer.figure.axes]
        renderer.draw(1)
        assert [axes.get_position().bounds for axes in renderer.figure.axes] == places
        tops = {round(axes.get_position().y1, 6) for axes in renderer.figure.axes[: len(renderer.columns)]}
        assert len(tops) == 1  # the pictures of a row line up


def test_what_a_film_cannot_show(tmp_path, ensemble):
    for options, message in (
        ({"fields": ("heat",)}, "no field heat"),
        ({"trajectory": 2}, "--trajectory 2: the ensemble has 2 trajectories"),
    ):
        with pytest.raises(ConfigError, match=message):
            write_film(ensemble, FilmConfig(**options))
    with pytest.raises(DataError, match="no ensemble"):
        write_film(write(tmp_path / "plain.hdf5", count=1), FilmConfig())
    for options in ({"rate": 0}, {"members": -1}, {"trajectory": -1}, {"size": 8}):
        with pytest.raises(ConfigError):
            FilmConfig(**options)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_a_film_that_was_cut_by_a_full_disk_is_an_error(tmp_path, ensemble, monkeypatch):
    genuine = imageio.get_writer

    class Cut:
        """Writes half a film without a word, as ffmpeg does where the disk is full."""

        def __init__(self, path, **options):
            self.path, self.film = path, genuine(path, **options)

        def __enter__(self):
            return self.film

        def __exit__(self, *error):
            self.film.close()
            self.path.write_bytes(self.path.read_bytes()[: self.path.stat().st_size // 2])

    monkeypatch.setattr(imageio, "get_writer", Cut)
    with pytest.raises(StorageError, match=r"ensemble\.mp4 could not be written completely; free some space"):
        write_film(ensemble, FilmConfig(fields=("density",), size=64, rate=4))
    assert {path.name for path in tmp_path.iterdir()} <= {"ensemble.hdf5", "ensemble.gif"}
