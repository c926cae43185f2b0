import dataclasses

import h5py
import numpy as np
import pytest

from lola.data.description import EULER, TURBULENCE_GRAVITY_COOLING
from lola.data.well.splits import open_split
from lola.data.well.writer import write_well_file
from lola.evaluation.page.figures import save_figure
from lola.evaluation.page.frames import FRAMES, simulation_section, trajectory_frames

FILE = "euler_multi_quadrants_openBC/data/test/euler_multi_quadrants_openBC_gamma_1.4.hdf5"


@pytest.fixture
def medium(tmp_path):
    """A folder with a trajectory of the interstellar medium, and its fields."""
    generator = np.random.default_rng(0)
    shape = (3, 4, 4, 4)
    fields = {name: generator.uniform(1, 2, shape) for name in ("density", "pressure", "temperature")}
    folder = tmp_path / "turbulence_gravity_cooling" / "data" / "test"
    folder.mkdir(parents=True)
    write_well_file(
        folder / "a.hdf5",
        dataset="turbulence_gravity_cooling",
        count=1,
        trajectories=[{**fields, "velocity": generator.normal(size=(*shape, 3))}],
        times=np.arange(3),
        axes=dict.fromkeys("xyz", np.arange(4)),
        scalars={"rho0": 44.5, "Z": 0.1, "T0": 10.0},
        boundary=np.ones((3, 2)),
    )
    return tmp_path, fields


def test_frames_are_states_of_the_file(well, tmp_path):
    figure = trajectory_frames(open_split(well, EULER, "test"))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts[:4] == ["log10 energy", "log10 density", "log10 pressure", "t = 0"]
    with h5py.File(well / FILE) as file:
        energy = file["t0_fields/energy"][0, -1]
    picture = np.asarray(figure.axes[0].collections[FRAMES - 1].get_array())
    np.testing.assert_allclose(picture, np.log10(energy.T), rtol=0, atol=1e-6)
    assert save_figure(figure, tmp_path / "frames.png").read_bytes().startswith(b"\x89PNG")


def test_three_dimensions_are_sliced(medium):
    root, fields = medium
    figure = trajectory_frames(open_split(root, TURBULENCE_GRAVITY_COOLING, "test"))
    picture = np.asarray(figure.axes[0].collections[FRAMES - 1].get_array())
    np.testing.assert_allclose(picture, np.log10(fields["density"][2, :, :, 2]).T, rtol=0, atol=1e-6)


def test_fields_of_both_signs_are_not_drawn_as_logarithms(medium):
    root, _ = medium
    first, *others = TURBULENCE_GRAVITY_COOLING.fields
    fields = (dataclasses.replace(first, transform="arcsinh"), *others)
    system = dataclasses.replace(TURBULENCE_GRAVITY_COOLING, fields=fields)
    with h5py.File(next((root / system.name / "data" / "test").iterdir()), "r+") as file:
        file["t0_fields/density"][...] -= 1.5
        values = np.asarray(file["t0_fields/density"])[0, -1, :, :, 2]
    figure = trajectory_frames(open_split(root, system, "test"))
    assert figure.axes[0].texts[0].get_text() == "arcsinh density"
    picture = np.asarray(figure.axes[0].collections[FRAMES - 1].get_array())
    np.testing.assert_allclose(picture, np.arcsinh(values).T, rtol=0, atol=1e-6)
    assert picture.min() < 0


def test_components_are_drawn_where_there_is_no_scalar_field(medium):
    root, _ = medium
    system = dataclasses.replace(TURBULENCE_GRAVITY_COOLING, fields=TURBULENCE_GRAVITY_COOLING.fields[-1:])
    figure = trajectory_frames(open_split(root, system, "test"))
    labels = [text.get_text() for text in figure.axes[0].texts[:3]]
    assert labels == ["velocity x", "velocity y", "velocity z"]


def test_a_page_shows_the_simulation(medium):
    root, _ = medium
    section = simulation_section(open_split(root, TURBULENCE_GRAVITY_COOLING, "test"))
    assert section.name == "simulation_turbulence_gravity_cooling"
    assert "a.hdf5#0, rho0 = 44.5, Z = 0.1, T0 = 10: states" in section.text
    assert len(section.figure.axes[0].collections) == 3 * FRAMES
