import math

import pytest
import torch

from lola.core.errors import ConfigError
from lola.core.seeding import SampleGenerator
from lola.models.masks import context_mask, draw_mask, unknown_mean


def draw(n, window=5):
    states = torch.empty(n, 2, window, 3, 4)
    return draw_mask(states, SampleGenerator([(0, i) for i in range(n)]))


def test_masks_follow_the_published_distribution():
    n, rho = 8000, 0.66
    mask = draw(n)
    assert mask.shape == (n, 1, 5, 1, 1)
    mask = mask.reshape(n, 5)
    poisson = [math.exp(-1) / math.factorial(k) for k in range(30)]
    for known in range(1, 5):
        p = sum(poisson[known - 1 :: 4])
        opens = torch.arange(5) < known
        for pattern, probability in ((opens, p * rho), (opens.flip(0), p * (1 - rho))):
            seen = (mask == pattern).all(dim=1).float().mean().item()
            deviation = math.sqrt(probability * (1 - probability) / n)
            assert abs(seen - probability) < 4 * deviation


def test_some_state_is_known_and_some_is_not():
    for window in (2, 3, 7):
        known = draw(200, window).sum(dim=2)
        assert known.min() == 1
        assert known.max() <= window - 1


def test_the_mask_of_a_sample_is_its_own():
    states = torch.empty(3, 2, 5, 4)
    keys = [(7, 0), (7, 1), (7, 2)]
    together = draw_mask(states, SampleGenerator(keys))
    alone = draw_mask(states[1:2], SampleGenerator(keys[1:2]))
    assert torch.equal(together[1:2], alone)


def test_a_window_of_one_state_is_refused():
    with pytest.raises(ConfigError, match="at least 2 states"):
        draw(1, window=1)


def test_context_mask_opens_the_window():
    assert context_mask(torch.empty(2, 3, 4, 5, 6), 3)[:, 0, :, 0, 0].tolist() == [[True] * 3 + [False]] * 2


def test_unknown_mean_is_the_mean_over_samples_of_their_own_means():
    error = torch.randn(2, 3, 4, 5)
    mask = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 0]], dtype=torch.bool)[:, None, :, None]
    expected = (error[0, :, 1:].mean() + error[1, :, 3:].mean()) / 2
    torch.testing.assert_close(unknown_mean(error, mask), expected)
