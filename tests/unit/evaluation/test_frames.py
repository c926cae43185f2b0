import h5py
import numpy as np
import pytest

from lola.data.systems import EULER, TURBULENCE_GRAVITY_COOLING
from lola.data.well_writer import write_well_file
from lola.errors import DataError
from lola.evaluation.figures import save
from lola.evaluation.frames import trajectory_frames

FILE = "euler_multi_quadrants_openBC/data/test/euler_multi_quadrants_openBC_gamma_1.4.hdf5"


def test_frames_are_states_of_the_file(well, tmp_path):
    figure = trajectory_frames(well / FILE, EULER, 1, steps=(0, 7), channels=("density", "momentum_y"))
    panels = figure.axes[:4]
    assert [axes.get_title(loc="left") for axes in panels] == ["t = 0", "t = 0.35", "", ""]
    with h5py.File(well / FILE) as file:
        density, momentum = file["t0_fields/density"][1, 7], file["t1_fields/momentum"][1, 7, ..., 1]
    pictures = [np.asarray(axes.collections[0].get_array()) for axes in panels]
    np.testing.assert_allclose(pictures[1], np.log10(density.T), rtol=0, atol=1e-6)
    np.testing.assert_allclose(pictures[3], momentum.T, rtol=0, atol=1e-6)
    assert save(figure, tmp_path / "frames.png").read_bytes().startswith(b"\x89PNG")


def test_three_dimensions_are_sliced(tmp_path):
    generator = np.random.default_rng(0)
    shape = (3, 4, 4, 4)
    fields = {name: generator.uniform(1, 2, shape) for name in ("density", "pressure", "temperature")}
    write_well_file(
        tmp_path / "a.hdf5",
        dataset="turbulence_gravity_cooling",
        count=1,
        trajectories=[{**fields, "velocity": generator.normal(size=(*shape, 3))}],
        times=np.arange(3),
        axes=dict.fromkeys("xyz", np.arange(4)),
        scalars={},
        boundary=np.ones((3, 2)),
    )
    figure = trajectory_frames(tmp_path / "a.hdf5", TURBULENCE_GRAVITY_COOLING, steps=(2,))
    picture = np.asarray(figure.axes[0].collections[0].get_array())
    np.testing.assert_allclose(picture, np.log10(fields["density"][2, :, :, 2]).T, rtol=0, atol=1e-6)


@pytest.mark.parametrize("wrong", [{"index": 9}, {"steps": (99,)}, {"channels": ("vorticity",)}])
def test_what_is_not_there_is_named(well, wrong):
    with pytest.raises(DataError, match="gives no pictures"):
        trajectory_frames(well / FILE, EULER, **wrong)
