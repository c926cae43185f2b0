import copy
import gc
import pickle
import warnings
import weakref

import pytest
import torch
from torch import nn
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


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x):
        return self.linear(x)

    def decode(self, x):
        return -self.linear(x)


def test_models_are_compiled_once_and_garbage_collected(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **options: lambda x: function(x))
    model, other = Model(), Model()
    functions = [compiled(model), compiled(model.decode), compiled(model, True), compiled(other)]
    assert len({id(each) for each in functions}) == 4
    assert compiled(model) is functions[0]
    assert compiled(model.decode) is functions[1]
    x = torch.ones(1, 2)
    assert torch.equal(functions[1](x), -functions[0](x))
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert compiled(copied).function is copied
    assert model.state_dict().keys() == {"linear.weight", "linear.bias"}
    gone = weakref.ref(model)
    del model, functions, copied
    gc.collect()
    assert gone() is None
