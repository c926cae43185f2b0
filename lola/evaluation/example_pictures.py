"""Pictures of one scored trajectory: the truth, the prediction and its error, as a still and as a film.

They stand with the run of an evaluation and take a moment to draw. The report has more of them, side by side.
Colours are fixed: those of states hold 99 % of the truth, and errors are shown up to half of that range, so
that the pictures of different models compare.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw

from lola.evaluation.page.film_player import shrink

STATES, ERRORS = "inferno", "RdBu_r"
STILLS, FRAMES = 6, 50  # lead times at most, evenly spaced
SIZE, MOST = 160, 256  # pixels along the longest side of a picture, about the least and at most
MARGIN, LINE = 6, 14  # pixels around a picture, and of a line of text
FRAME_MS = 150


def write_pictures(
    truth: np.ndarray,
    predicted: np.ndarray,
    lead_times: Sequence[int],
    titles: tuple[str, str],
    still: Path,
    film: Path | None = None,
) -> None:
    """Write a field of a trajectory and of its prediction as PNG, and as GIF.

    Arguments:
        truth, predicted: The field, `(L, X, Y)`, x to the right and y upwards, NaN outside of the domain.
        lead_times: Simulation steps, `(L,)`.
        titles: Names of the field and of the prediction.
        still: A column of pictures for each of a few lead times.
        film: A frame per lead time, of pictures side by side.
    """
    truth, predicted = (shrink(values, MOST) for values in (truth, predicted))
    low, high = np.nanquantile(truth, [0.005, 0.995])
    high = high if high > low else low + 1.0
    field, name = titles
    rows = (
        (f"{field}, truth", truth, STATES, low, high),
        (name, predicted, STATES, low, high),
        (f"error, to {(high - low) / 2:.3g}", predicted - truth, ERRORS, (low - high) / 2, (high - low) / 2),
    )

    def column(number: int) -> list[Image.Image]:
        return [_picture(each[number], *look) for _, each, *look in rows]

    few = _spaced(len(truth), STILLS)
    columns = [column(number) for number in few]
    lines = [*zip(*columns, strict=True)]
    names, times = [row[0] for row in rows], [f"lead time {lead_times[number]}" for number in few]
    _sheet(lines, names, times).save(still, "PNG")
    if film is not None:
        frames = []
        for number in _spaced(len(truth), FRAMES):
            frames.append(_sheet([column(number)], [f"lead time {lead_times[number]}"], names))
        first, *others = (frame.quantize(dither=Image.Dither.NONE) for frame in frames)
        first.save(film, "GIF", save_all=True, append_images=others, duration=FRAME_MS, loop=0)


def _spaced(count: int, most: int) -> list[int]:
    return np.unique(np.linspace(0, count - 1, most).round().astype(int)).tolist()


def _picture(values: np.ndarray, colours: str, low: float, high: float) -> Image.Image:
    """Values `(X, Y)` in colours; what is not finite is grey."""
    scaled = np.nan_to_num((values - low) / (high - low), nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1)
    pixels = (255 * colormaps[colours](scaled)[..., :3]).round().astype(np.uint8)
    pixels[~np.isfinite(values)] = 128
    factor = max(1, SIZE // max(values.shape))
    picture = Image.fromarray(np.ascontiguousarray(pixels.swapaxes(0, 1)[::-1]))
    return picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.NEAREST)


def _sheet(
    pictures: Sequence[Sequence[Image.Image]], rows: Sequence[str], columns: Sequence[str]
) -> Image.Image:
    """Pictures of one size in a grid, with titles of its rows, each above its row, and of its columns."""
    width, height = (side + MARGIN for side in pictures[0][0].size)
    sheet = Image.new(
        "RGB", (width * len(columns) + MARGIN, (height + LINE) * len(rows) + LINE + MARGIN), "white"
    )
    draw = ImageDraw.Draw(sheet)
    for number, title in enumerate(columns):
        draw.text((MARGIN + number * width, 1), title, "black")
    for line, (title, each) in enumerate(zip(rows, pictures, strict=True)):
        top = LINE + line * (height + LINE)
        draw.text((MARGIN, top + 1), title, "black")
        for number, picture in enumerate(each):
            sheet.paste(picture, (MARGIN + number * width, top + LINE))
    return sheet
