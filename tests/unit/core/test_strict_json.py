import math

import pytest

from lola.core.errors import DivergedError
from lola.core.strict_json import dumps, loads, null_if_not_finite


def test_what_is_finite_comes_back():
    value = {"a": [1.5, None, True], "b": {"c": "NaN"}}
    assert loads(dumps(value, indent=2)) == value


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_named_and_not_written(number):
    with pytest.raises(DivergedError, match=rf"metrics.train/loss\[1\] is {number}"):
        dumps({"a": 1.0, "metrics": {"train/loss": [0.0, number]}})
    assert null_if_not_finite({"a": number, "b": 2.0}) == {"a": None, "b": 2.0}


@pytest.mark.parametrize("text", ['{"a": NaN}', "[-Infinity]", "Infinity"])
def test_tokens_that_are_no_json_are_refused(text):
    with pytest.raises(ValueError, match="is no JSON"):
        loads(text)
