import warnings

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed

from lola.nn.compiling import Compiled, compiled


def double(x):
    return 2 * x


def test_where_nothing_compiles_it_warns_once_and_goes_on():
    def refuse(*inputs):
        raise BackendCompilerFailed(refuse, RuntimeError("no compiler is found"), None)

    function = Compiled(double)
    function.compiled = refuse
    x = torch.ones(3)
    with pytest.warns(UserWarning, match="networks are not compiled.*no compiler is found"):
        assert torch.equal(function(x), 2 * x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(function(x), 2 * x)


def test_other_errors_are_not_swallowed():
    def fail(*inputs):
        raise ValueError("shape")

    function = Compiled(double)
    function.compiled = fail
    with pytest.raises(ValueError, match="shape"):
        function(torch.ones(3))


def test_a_function_is_compiled_once_for_all():
    assert compiled(double) is compiled(double)
    assert compiled(double, True) is not compiled(double)
