import numpy as np
import pytest

from lola.data.window_numbering import WindowNumbering


def test_windows_are_numbered_trajectory_by_trajectory():
    numbering = WindowNumbering([6, 2, 4], span=3)
    assert numbering.starts.tolist() == [4, 0, 2]
    assert (len(numbering), numbering.short) == (6, 1)
    trajectory, start = numbering.locate(np.arange(6))
    assert trajectory.tolist() == [0, 0, 0, 0, 2, 2]
    assert start.tolist() == [0, 1, 2, 3, 0, 1]
    assert numbering.locate(4) == (2, 0)


@pytest.mark.parametrize("number", [-1, 6])
def test_there_are_no_other_windows(number):
    with pytest.raises(IndexError, match="of 6"):
        WindowNumbering([6, 2, 4], span=3).locate(number)
