import base64
import io

import numpy as np
import pytest
from PIL import Image

from lola.evaluation.page.film_player import COLUMNS, FRAMES, Film, Row, colour_map, pack, sheet, shrink


def decode(source):
    head, data = source.split(",", 1)
    assert head == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("L")).astype(int)


def test_frames_are_tiles_with_x_to_the_right_and_y_upwards():
    frames = np.zeros((12, 16, 8))
    frames[11, :8, 4:] = 1  # the left half of the upper half
    grid = decode(sheet(frames, 0, 1))
    assert grid.shape == (2 * 8, COLUMNS * 16)
    tile = grid[8:, 16:32]
    assert tile[1:3, 1:7].min() > 230
    assert tile[5:, :].max() < 25
    assert tile[:, 10:].max() < 25
    assert grid[:8].max() < 25


def test_values_are_kept_to_a_few_grey_levels():
    x = np.linspace(0, 1, 64)
    wave = 0.5 + 0.4 * np.sin(2 * np.pi * (x[:, None] + x))
    grid = decode(sheet(wave[None], 0, 1))[:, :64]
    np.testing.assert_allclose(grid[::-1].T / 255, wave, atol=0.04)


def test_what_is_not_finite_or_out_of_range_is_clipped():
    grid = decode(sheet(np.array([[[np.nan] * 8] * 8, [[np.inf] * 8] * 8, [[9.0] * 8] * 8]), 0, 1))
    means = [grid[:, 8 * i : 8 * i + 8].mean() for i in range(3)]
    assert means[0] < 25
    assert min(means[1:]) > 230


@pytest.mark.parametrize(
    ("grid", "expected"), [((64, 64), (64, 64)), ((512, 128), (128, 32)), ((200, 130), (100, 65))]
)
def test_fine_grids_are_averaged_over_blocks(grid, expected):
    states = np.random.default_rng(0).random((2, 3, *grid))
    small = shrink(states)
    assert small.shape == (2, 3, *expected)
    assert small.mean() == pytest.approx(states.mean())


def test_a_film_tells_the_player_what_it_holds():
    states = np.random.default_rng(0).random((2, 120, 8, 6))
    deviation = Row("Long, deviation", 16.0, states, "spread", "Long")
    rows = [Row("Truth", None, states), Row("Long, mean", 16.0, states, method="Long"), deviation]
    packed = pack(Film("one", ("density", "momentum_x"), range(4, 484, 4), rows, "momentum_x"))
    assert (packed["width"], packed["height"], packed["shown"]) == (8, 6, 1)
    assert packed["fields"] == ["density", "momentum x"]
    assert len(packed["lead_times"]) == FRAMES
    assert (packed["lead_times"][0], packed["lead_times"][-1]) == (4, 480)
    assert [row["rate"] for row in packed["rows"]] == [None, "16", "16"]
    assert [row["method"] for row in packed["rows"]] == ["Truth", "Long", "Long"]
    assert [len(row["sheets"]) for row in packed["rows"]] == [2, 2, 2]
    assert len(colour_map("inferno")) == 256 * 6
