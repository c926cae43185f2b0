import torch

from lola.seeding import SampleGenerator, derive, numpy_generator


def test_a_sample_does_not_depend_on_its_batch():
    keys = [(0, "step", 3, i) for i in range(6)]
    whole = SampleGenerator(keys)
    parts = [SampleGenerator(keys[:2]), SampleGenerator(keys[2:])]
    for draw in (
        lambda g: g.normal(2, 3),
        lambda g: g.uniform(4),
        lambda g: g.poisson(1.0, 5),
        lambda g: g.normal(),
    ):
        assert torch.equal(draw(whole), torch.cat([draw(part) for part in parts]))


def test_moments():
    generator = SampleGenerator([(0, i) for i in range(200)])
    normal, poisson = generator.normal(500), generator.poisson(1.0, 500)
    assert abs(normal.mean()) < 0.02
    assert abs(normal.std() - 1) < 0.02
    assert abs(poisson.double().mean() - 1) < 0.02
    assert abs(poisson.double().var() - 1) < 0.03


def test_keys_are_told_apart():
    seeds = {derive(a, b) for a in range(50) for b in range(50)}
    assert len(seeds) == 2500
    assert derive(1, 23) != derive(12, 3)
    assert derive("1") != derive(1)
    assert numpy_generator(0, "a").integers(1 << 60) != numpy_generator(0, "b").integers(1 << 60)
