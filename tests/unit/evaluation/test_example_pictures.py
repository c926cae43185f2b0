"""Pictures of a scored trajectory, in colours that do not depend on the prediction."""

from types import SimpleNamespace

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image

from lola.data.description import EULER
from lola.evaluation.evaluation_config import EvaluationConfig
from lola.evaluation.example_pictures import LINE, MARGIN, write_pictures
from lola.evaluation.record import RECONSTRUCTION, record_pictures
from lola.storage.event_log import read_events

TIMES = [4, 8, 12, 16, 20, 24, 28, 32]


def pixel(picture, column, row, size):
    """The colour of the middle of a picture of a sheet."""
    x = MARGIN + column * (size + MARGIN) + size // 2
    y = LINE + row * (size + MARGIN + LINE) + LINE + size // 2
    return np.array(picture.convert("RGB"))[y, x] / 255


def test_colours_are_those_of_the_truth_whatever_is_predicted(tmp_path):
    truth = np.linspace(0, 1, 8 * 16 * 16).reshape(8, 16, 16)
    still, film = tmp_path / "still.png", tmp_path / "film.gif"
    write_pictures(truth, np.full_like(truth, 50.0), TIMES, ("density", "prediction"), still, film)
    with Image.open(still) as sheet:
        assert np.allclose(pixel(sheet, 5, 1, 160), colormaps["inferno"](1.0)[:3], atol=0.01)
        assert np.allclose(pixel(sheet, 5, 2, 160), colormaps["RdBu_r"](1.0)[:3], atol=0.01)
        assert sheet.width == 6 * 166 + MARGIN
    write_pictures(truth, truth, TIMES, ("density", "prediction"), still, film)
    with Image.open(still) as sheet:
        assert np.allclose(pixel(sheet, 0, 2, 160), colormaps["RdBu_r"](0.5)[:3], atol=0.01)
    with Image.open(film) as frames:
        assert frames.n_frames == len(TIMES)
        frames.seek(7)
        first, second = (pixel(frames, column, 0, 160) for column in (0, 1))
        assert np.allclose(first, second)


def test_uniform_fields_and_rollouts_that_diverged_are_drawn(tmp_path):
    predicted = np.full((2, 8, 8), np.nan)
    predicted[0] = np.inf
    write_pictures(np.ones((2, 8, 8)), predicted, [1, 2], ("density", "p"), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as sheet:
        assert np.allclose(pixel(sheet, 1, 1, 160), 128 / 255)


class Split:
    """A split of one trajectory of a known system."""

    system = EULER
    trajectories = (SimpleNamespace(steps=9),)

    def read(self, index, start, stop, stride):
        return torch.rand(5, len(range(start, stop, stride)), 8, 8)


def test_a_reconstruction_stands_with_the_run_of_the_autoencoder_too(tmp_path):
    codec, stage = tmp_path / "codec", SimpleNamespace(folder=tmp_path / "scores", what="autoencoder")
    for folder in (codec, stage.folder):
        folder.mkdir()
    config = EvaluationConfig(subject="autoencoder", stride=2)
    record_pictures(stage, config, Split(), (0, 0), np.random.rand(5, 4, 8, 8), codec)
    (event,) = [event for _, event in read_events(codec)]
    assert (event["kind"], event["path"]) == ("artifact", f"../scores/{RECONSTRUCTION}")
    assert (codec / event["path"]).samefile(stage.folder / RECONSTRUCTION)
    assert [path.name for path in codec.iterdir()] == ["events.jsonl"]
    record_pictures(stage, EvaluationConfig(stride=2), Split(), (0, 0), np.random.rand(5, 4, 8, 8), codec)
    averaged = config.replace(weights="ema")
    record_pictures(stage, averaged, Split(), (0, 0), np.random.rand(5, 4, 8, 8), codec)
    assert len(list(read_events(codec))) == 1
