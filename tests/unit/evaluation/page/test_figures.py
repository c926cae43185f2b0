import matplotlib
import numpy as np

from lola.evaluation.page.figures import Example, example_states, save_figure


def example():
    truth = np.linspace(0, 1, 3 * 8 * 12).reshape(3, 8, 12)
    return Example("one", [("truth", truth), ("wrong", truth + 10)], [4, 8, 12])


def test_pictures_share_the_truths_scale():
    figure = example_states(example())
    images = figure.axes[0].images
    assert len(images) == 6
    assert len({image.get_clim() for image in images}) == 1
    assert images[0].get_clim()[1] < 1.01
    # x runs to the right and y upwards
    np.testing.assert_array_equal(images[0].get_array(), example().rows[0][1][0].T)
    assert images[0].origin == "lower"


def test_saving_leaves_one_png_and_no_trace(tmp_path):
    before = dict(matplotlib.rcParams)
    path = save_figure(example_states(example()), tmp_path / "figure.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in tmp_path.iterdir()] == ["figure.png"]
    assert dict(matplotlib.rcParams) == before
