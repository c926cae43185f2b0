import pytest
import torch

from lola.core.errors import ConfigError, DataError
from lola.emulation.observation_config import ObservationConfig
from lola.emulation.observations import (
    Observations,
    Observed,
    block_mean,
    masked,
    of_domain,
    sensors,
    subsample,
)

CHANNELS = ("a", "b", "c")
GRID = (8, 12)


@pytest.fixture
def states():
    return torch.randn(2, 3, *GRID, generator=torch.Generator().manual_seed(0))


def test_operators_see_what_they_say(states):
    assert torch.equal(subsample(4)(states), states[:, :, ::4, ::4])
    blocks = states.unflatten(3, (3, 4)).unflatten(2, (2, 4)).mean((3, 5))
    torch.testing.assert_close(block_mean(4)(states), blocks)
    seen = sensors(torch.tensor([[1, 2], [7, 11]]))(states)
    assert torch.equal(seen, torch.stack((states[..., 1, 2], states[..., 7, 11]), dim=-1))
    mask = torch.zeros(GRID, dtype=torch.bool)
    mask[2, 3] = mask[5, 6] = True
    assert torch.equal(masked(mask)(states), states[:, :, mask].flatten(1))


def test_blocks_must_divide_the_grid(states):
    with pytest.raises(DataError, match="blocks of 5"):
        block_mean(5)(states)


@pytest.mark.parametrize("operator", ["subsample", "block_mean", "sensors", "mask"])
@pytest.mark.parametrize("grid", [GRID, (4, 8, 4)])
@pytest.mark.parametrize("fields", [(), ("c", "a")])
def test_operators_are_linear_with_a_gradient_for_an_adjoint_and_keep_rows_apart(operator, grid, fields):
    observe = ObservationConfig(operator=operator, factor=2, count=5, fields=fields).build(CHANNELS, grid)
    generator = torch.Generator().manual_seed(0)
    x, v = torch.randn(2, 2, 3, *grid, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(observe(2 * x - v), 2 * observe(x) - observe(v))
    y, adjoint = torch.func.vjp(observe, x)
    w = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close((observe(v) * w).sum(), (v * adjoint(w)[0]).sum())
    assert torch.equal(observe(x[1:]), y[1:])
    if fields:
        assert not adjoint(w)[0][:, 1].any()


def test_places_are_drawn_from_the_seed():
    def seen(config):
        grid = torch.arange(96.0).reshape(1, 1, *GRID)
        return config.build(("a",), GRID)(grid)

    for operator in ("sensors", "mask"):
        config = ObservationConfig(operator=operator, factor=4, count=6)
        assert len(seen(config).unique()) == 6
        assert torch.equal(seen(config), seen(config))
        others = [seen(config.replace(seed=seed)) for seed in range(1, 4)]
        assert not all(torch.equal(seen(config), other) for other in others)


def test_a_trajectory_is_observed_with_noise_in_proportion_to_each_field():
    scale = torch.tensor([1.0, 10.0, 100.0]).reshape(3, 1, 1, 1)
    truth = scale * torch.randn(3, 40, *GRID, generator=torch.Generator().manual_seed(0))
    config = ObservationConfig(factor=1, every=4, until=30, noise=0.1)
    observations = config.observe(truth, CHANNELS, "t")
    assert list(observations.values) == [4, 8, 12, 16, 20, 24, 28]
    assert observations.within(5, 4) == [8]
    error = torch.cat([y[0] - truth[:, i - 1] for i, y in observations.values.items()], dim=1)
    torch.testing.assert_close(error.flatten(1).std(1), 0.1 * scale.flatten(), rtol=0.1, atol=0)
    again = config.observe(truth, CHANNELS, "t")
    assert all(torch.equal(again.values[i], y) for i, y in observations.values.items())
    other = config.observe(truth, CHANNELS, "u")
    assert not torch.equal(other.values[4], observations.values[4])


def test_a_window_and_its_observations_are_laid_out_alike(states):
    observe, noise = subsample(4), torch.tensor([1.0, 2.0, 4.0]).reshape(1, 3, 1, 1)
    window = torch.stack([states + place for place in range(5)], dim=2)
    values = {n: observe(window[:, :, place]) for n, place in ((7, 2), (8, 3))}
    values[9] = observe(window[:1, :, 4])
    observations = Observations(operator=observe, values=values, noise=noise)
    observed = Observed(observations=observations, numbers=[7, 8], places=[2, 3])
    torch.testing.assert_close(observed.of_window(window, lambda x: x), observed.whitened(2))
    shared = Observed(observations=observations, numbers=[9], places=[4])
    assert shared.whitened(5).shape == (5, 3 * 2 * 3)
    row = Observed(observations=observations.rows(slice(1, 2)), numbers=[7, 9], places=[2, 4])
    torch.testing.assert_close(row.whitened(1)[:, :18], observed.whitened(2)[1:, :18])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"operator": "magic"}, "'magic'"),
        ({"factor": 0}, "factor"),
        ({"count": 0}, "count"),
        ({"every": 0}, "every"),
        ({"until": -1}, "until"),
        ({"noise": 0.0}, "noise"),
    ],
)
def test_impossible_configurations(values, message):
    with pytest.raises(ConfigError, match=message):
        ObservationConfig(**values)


def test_what_cannot_be_observed_is_refused():
    with pytest.raises(ConfigError, match="--fields: there is no field d to observe; there are a, b, c"):
        ObservationConfig(fields=("d",)).build(CHANNELS, GRID)
    with pytest.raises(ConfigError, match="97 sensors"):
        ObservationConfig(operator="sensors", count=97).build(CHANNELS, GRID)
    with pytest.raises(ConfigError, match="count from 1"):
        Observations(operator=subsample(1), values={0: torch.zeros(1)}, noise=1.0)
    with pytest.raises(ConfigError, match="positive"):
        Observations(operator=subsample(1), values={}, noise=torch.tensor([1.0, 0.0]))


def test_observations_meet_windows_on_the_device_of_these():
    observations = Observations(
        operator=subsample(2), values={1: torch.ones(1, 3, 4, 4)}, noise=torch.ones(3, 1, 1)
    )
    observed = Observed(observations=observations, numbers=[1], places=[1])
    window = torch.empty(2, 3, 5, 8, 8, device="meta")
    assert observed.of_window(window, lambda x: x).device == window.device


@pytest.mark.parametrize("operator", ["subsample", "block_mean", "sensors", "mask"])
@pytest.mark.parametrize("fields", [(), ("c",)])
def test_cells_outside_of_the_domain_are_not_observed(states, operator, fields):
    """Neither what they hold changes observations, nor do these push on them."""
    valid = torch.ones(GRID, dtype=torch.bool)
    valid[:5, :7] = False
    config = ObservationConfig(operator=operator, factor=2, count=20, fields=fields)
    observe = config.build(CHANNELS, GRID, valid=valid)
    land = torch.where(valid, 0, torch.nan)
    x, y = states, observe(states)
    assert torch.equal(observe(x + land), y)
    assert 0 < y.shape[1] < config.build(CHANNELS, GRID)(x).flatten(1).shape[1] or operator == "sensors"
    _, adjoint = torch.func.vjp(observe, x)
    assert not adjoint(torch.ones_like(y))[0][..., ~valid].any()
    if operator == "sensors":
        assert y.shape[1] == 20 * (len(fields) or 3)  # as many as were asked for
    deviation = torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    uniform = observe(deviation.expand(1, 3, *GRID))
    assert set(uniform.flatten().tolist()) == ({3.0} if fields else {1.0, 2.0, 3.0})


def test_means_of_blocks_are_of_the_cells_inside(states):
    valid = torch.ones(GRID, dtype=torch.bool)
    valid[0, 1:4] = valid[:4, 4:8] = False
    seen = of_domain(block_mean(4), valid, 3)(states).reshape(2, 3, -1)
    assert seen.shape[2] == 5
    corner = states[:, :, :4, :4][:, :, valid[:4, :4]]
    torch.testing.assert_close(seen[:, :, 0], corner.mean(-1))
    torch.testing.assert_close(seen[:, :, 1], states[:, :, :4, 8:].mean((2, 3)))


def test_noise_has_the_scale_of_the_domain(states):
    truth = torch.stack([states[0], states[1]], 1)
    valid = torch.ones(GRID, dtype=torch.bool)
    valid[2:6] = False
    filled = torch.where(valid, truth, 1e9)
    config = ObservationConfig(operator="subsample", factor=1)
    observed, other = (config.observe(x, CHANNELS, "t", valid=valid) for x in (filled, truth))
    assert torch.equal(observed.noise, other.noise)
    assert torch.equal(observed.values[1], other.values[1])
    deviation = truth[..., valid].flatten(1).std(1)
    assert torch.allclose(observed.noise.reshape(3, -1)[:, 0], 0.05 * deviation)


def test_what_is_given_is_not_observed(states):
    operator = ObservationConfig(factor=2).build(CHANNELS, GRID, given=("b",))
    assert torch.equal(operator(states), subsample(2)(states[:, [0, 2]]))
    with pytest.raises(ConfigError, match="--fields: b is given and not emulated"):
        ObservationConfig(factor=2, fields=("b",)).check(CHANNELS, GRID, 3, ("b",))


def test_a_mask_without_points_to_observe_is_refused():
    nothing = torch.zeros(GRID, dtype=torch.bool)
    with pytest.raises(ConfigError, match="no observation is of cells in the domain"):
        ObservationConfig(factor=2).build(CHANNELS, GRID, valid=nothing)
    with pytest.raises(ConfigError, match="--count 16 sensors do not fit on 0 points"):
        ObservationConfig(operator="sensors").build(CHANNELS, GRID, valid=nothing)
