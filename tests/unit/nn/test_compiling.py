import copy
import gc
import pickle
import warnings
import weakref

import pytest
import torch
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed
from torch._dynamo.testing import CompileCounterWithBackend

from lola.nn.compiling import Compiled, compile_blocks, compiled
from lola.nn.recompute import Block


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


class Half(Block):
    """A block whose gradients depend on those of the block after it."""

    def __init__(self, features):
        super().__init__()
        self.linear = nn.Linear(features, features)

    def forward(self, x):
        return x + torch.tanh(self.linear(x))


@pytest.fixture
def compiler():
    """A compiler that counts what it is given."""
    before = torch._dynamo.config.recompile_limit
    torch._dynamo.reset()
    yield CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()
    torch._dynamo.config.recompile_limit = before


def test_blocks_of_equal_shapes_share_what_is_compiled(compiler):
    torch.manual_seed(0)
    widths = (4, 4, 4, 8, 8, 12, 16, 20, 24, 28, 32, 36, 40)  # more shapes than torch compiles by default
    network = nn.ModuleList(Half(width) for width in widths)
    plain = copy.deepcopy(network)
    compile_blocks(network, compiler)
    for blocks in (network, network, plain, plain):
        for block, width in zip(blocks, widths, strict=True):
            block(torch.ones(2, width)).square().sum().backward()
    assert compiler.frame_count == len(set(widths))
    for ours, theirs in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    assert network.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.filterwarnings("ignore")  # torch looks at gradients of activations, and hides its own warning
def test_gradients_are_complete_block_by_block(compiler):
    """Workers exchange those of the last block while the first one's are computed."""
    network = nn.Sequential(Half(4), Half(4), nn.Linear(4, 2))
    compile_blocks(network, compiler)
    order = []
    for number in (0, 1):
        weight = network[number].linear.weight
        weight.register_post_accumulate_grad_hook(lambda _, number=number: order.append(f"block {number}"))
    between = network[0](torch.ones(3, 4))
    between.register_hook(lambda gradient: order.append("between"))
    network[2](network[1](between)).sum().backward()
    assert order == ["block 1", "between", "block 0"]


def test_a_network_without_blocks_is_compiled_whole(compiler):
    network = nn.Sequential(nn.Linear(2, 3), nn.Tanh())
    compile_blocks(network, compiler)
    network(torch.ones(1, 2))
    assert compiler.frame_count == 1
