import numpy as np
import pytest
import scipy.stats
import torch

from lola.core.keys import derive, numpy_generator
from lola.core.seeding import SampleGenerator, splitmix64

KEYS = [(0, "step", 3, i) for i in range(6)]
POISSON = [[2, 1, 1, 0, 1, 2, 1, 1], [1, 0, 1, 0, 1, 0, 1, 2]]
UNIFORM = [[8148057, 1746488], [6193795, 607953]]
NORMAL = [[-0.325328, -0.368419, 2.428454], [-0.442353, 0.397979, -1.131361]]


def test_a_sample_does_not_depend_on_its_batch():
    whole = SampleGenerator(KEYS)
    parts = [SampleGenerator(KEYS[:1]), SampleGenerator(KEYS[1:4]), SampleGenerator(KEYS[4:])]
    for draw in (
        lambda g: g.normal(2, 3),
        lambda g: g.uniform(4),
        lambda g: g.poisson(1.0, 5),
        lambda g: g.normal(),
        lambda g: g.normal(3, 41, 7),
        lambda g: g.uniform(quantile=np.square),
    ):
        assert torch.equal(draw(whole), torch.cat([draw(part) for part in parts]))


def test_words_are_those_of_the_published_generator():
    """The first words of two seeds, as its author's code prints them, and any others by whole numbers."""
    words = splitmix64(torch.tensor([1234567, 0]), 1, 5).numpy().view(np.uint64)
    assert words[0].tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert words[1, :3].tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    seed, first = derive("any"), 10**9
    found = splitmix64(torch.tensor([seed]), first, 3).numpy().view(np.uint64)[0].tolist()
    assert found == [plain_word(seed, number) for number in range(first, first + 3)]


def plain_word(seed, number):
    x = (seed + number * 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


def test_streams_keep_their_numbers():
    """A change of these changes trained models: then `lola.storage.stages.STREAMS` needs another name."""
    generator = SampleGenerator([(0, "step", 3, 1), ("observation", 7)])
    assert generator.poisson(1.0, 8).tolist() == POISSON
    assert (generator.uniform(2) * 2**24).long().tolist() == UNIFORM
    torch.testing.assert_close(generator.normal(3), torch.tensor(NORMAL), rtol=1e-5, atol=1e-6)


def test_numbers_are_distributed_as_they_should():
    generator = SampleGenerator([(0, i) for i in range(400)])
    normal, uniform = generator.normal(501).double().flatten(), generator.uniform(500).double().flatten()
    assert scipy.stats.kstest(normal, "norm").pvalue > 1e-3
    assert scipy.stats.kstest(uniform, "uniform").pvalue > 1e-3
    assert scipy.stats.normaltest(normal).pvalue > 1e-3  # skewness and kurtosis
    counts = torch.bincount(generator.poisson(1.0, 500).flatten(), minlength=8)[:8].numpy()
    expected = 400 * 500 * scipy.stats.poisson(1.0).pmf(np.arange(8))
    assert ((counts - expected) ** 2 / expected).sum() < scipy.stats.chi2(8).ppf(0.999)
    assert abs(SampleGenerator([(0,)]).poisson(50.0, 20000).double().mean() - 50) < 0.25
    with pytest.raises(ValueError, match="rates of counts"):
        generator.poisson(101.0)


@pytest.mark.parametrize("draw", [lambda g, n: g.normal(n), lambda g, n: g.uniform(n)])
def test_neighbours_are_not_correlated(draw):
    """Streams of neighbouring keys, and neighbouring numbers of a stream."""
    keys, numbers = 200, 1000
    x = draw(SampleGenerator([(5, i) for i in range(keys)]), numbers).double()
    x = (x - x.mean()) / x.std()
    limit = 4 / np.sqrt(keys * numbers)  # of a mean of products: 1 in 16,000
    for shift in (1, 2, 3, numbers // 2):  # the halves are cosines and sines of the same words
        assert abs((x[:, shift:] * x[:, :-shift]).mean()) < 4 / np.sqrt(keys * (numbers - shift))
        assert abs((x.square()[:, shift:] * x[:, :-shift]).mean()) < 8 / np.sqrt(keys * (numbers - shift))
    assert abs((x[1:] * x[:-1]).mean()) < limit * 1.01
    spectrum = np.linalg.eigvalsh(np.cov(x.numpy()))  # Marchenko and Pastur: no direction stands out
    assert spectrum.max() < (1 + np.sqrt(keys / numbers)) ** 2 + 0.15


def test_every_bit_of_a_word_is_fair():
    words = splitmix64(torch.tensor([derive(i) for i in range(500)]), 1, 400).numpy().view(np.uint64)
    ones = [int(((words >> np.uint64(bit)) & np.uint64(1)).sum()) for bit in range(64)]
    assert np.abs(np.array(ones) - words.size / 2).max() < 4.5 * np.sqrt(words.size) / 2


def test_different_keys_have_different_seeds():
    seeds = {derive(a, b) for a in range(50) for b in range(50)}
    assert len(seeds) == 2500
    assert derive(1, 23) != derive(12, 3)
    assert derive("1") != derive(1)
    assert numpy_generator(0, "a").integers(1 << 60) != numpy_generator(0, "b").integers(1 << 60)
