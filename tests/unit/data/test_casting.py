import numpy as np
import pytest

from lola.core.errors import DataError
from lola.data.casting import cast_checked


def test_values_that_a_dtype_holds_are_cast():
    values = np.linspace(-6e4, 6e4, 7)
    cast = cast_checked(values, "float16", "x")
    assert cast.dtype == np.float16
    np.testing.assert_allclose(cast, values, rtol=1e-3)
    assert cast_checked(cast, np.float16, "x") is cast


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (1e39, "float32", r"x holds 1e\+39, beyond the largest float32, 3.40282e\+38"),
        (-7e4, "float16", r"x holds -70000, beyond the largest float16, 65504"),
        (np.nan, "float32", "x is not finite"),
        (np.inf, "float64", "x is not finite"),
    ],
)
def test_a_value_that_does_not_survive_is_an_error(value, dtype, message):
    with pytest.raises(DataError, match=message):
        cast_checked(np.array([[1.0, 2.0], [value, 3.0]]), dtype, "x")
