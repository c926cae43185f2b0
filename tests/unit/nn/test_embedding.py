import math

import torch

from lola.nn.embedding import SineEncoding, coordinates

CPU = torch.device("cpu")


def test_sine_encoding_is_that_of_the_definition():
    s = torch.tensor([0.0, 1.5, -40.0])
    w = [1000 ** (-j / 3) for j in range(4)]
    expected = [[f(w_j * float(value)) for f in (math.sin, math.cos) for w_j in w] for value in s]
    torch.testing.assert_close(SineEncoding(8)(s), torch.tensor(expected))


def test_sine_encoding_keeps_no_state():
    assert not SineEncoding(8).state_dict()


def test_coordinates_run_over_the_last_axis_first():
    expected = [[i, j] for i in range(2) for j in range(3)]
    assert coordinates((2, 3), CPU).tolist() == expected


def test_coordinates_first_seen_in_inference_serve_training():
    with torch.inference_mode():
        coordinates((7, 11), CPU)
    theta = torch.ones(2, 1, requires_grad=True)
    (coordinates((7, 11), CPU) @ theta).sum().backward()
    assert theta.grad.flatten().tolist() == [7 * 6 / 2 * 11, 11 * 10 / 2 * 7]
