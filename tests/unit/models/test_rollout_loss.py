"""Objectives over windows that follow each other, against computations that are written out."""

import pytest
import torch
from gradients import without_gradient

from lola.core.errors import ConfigError
from lola.core.seeding import SampleGenerator
from lola.data.state import Batch
from lola.models.crps_ensemble_config import CRPSEnsembleConfig
from lola.models.diffusion_config import DiffusionConfig
from lola.models.ensemble_scores import almost_fair_crps
from lola.models.masks import draw_mask
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.transformer_config import TransformerConfig
from lola.training.counting import count_step

NETWORK = TransformerConfig(features=16, blocks=2, heads=2, modulation=8, patch_size=1, dropout=0.0)
LENGTH, SAMPLES, MEMBERS = 3, 6, 2
KEYS = [(6, i) for i in range(SAMPLES)]


def build(kind, windows, gradient="all", **options):
    """A model whose members, if it has any, differ."""
    torch.manual_seed(0)
    options |= {"network": NETWORK, "rollout_windows": windows, "rollout_gradient": gradient}
    if kind == "crps_ensemble":
        model = CRPSEnsembleConfig(members=MEMBERS, **options).build(2, 1, 1, LENGTH)
        torch.nn.init.normal_(model.embed_noise[-1].weight)
        return model
    return NeuralSolverConfig(**options).build(2, 1, 1, LENGTH)


def samples(windows):
    torch.manual_seed(1)
    states = torch.randn(SAMPLES, 2, windows * (LENGTH - 1) + 1, 4)
    return Batch(states=states, parameters=torch.randn(SAMPLES, 1))


def reference(model, batch, windows, gradient):
    """The objective, sample by sample and window by window."""
    generator = SampleGenerator(KEYS)
    masks = draw_mask(batch.states[:, :, :LENGTH], generator)
    ensemble = hasattr(model, "embed_noise")
    noise = [generator.normal(MEMBERS, 32) for _ in range(windows)] if ensemble else None
    losses = []
    for i in range(SAMPLES):
        states, mask, label = batch.states[i : i + 1], masks[i : i + 1], batch.parameters[i : i + 1]
        forward = bool(mask[0, 0, 0])
        scores = []
        starts = range(windows) if forward else range(windows - 1, -1, -1)
        known = [states] * MEMBERS if ensemble else [states]
        for number, start in enumerate(starts):
            truth = states[:, :, start * (LENGTH - 1) :][:, :, :LENGTH]
            given = [truth] * len(known) if number == 0 else known
            if ensemble:
                drawn = [model(x, mask, label, noise[number][i, j : j + 1]) for j, x in enumerate(given)]
                error = almost_fair_crps(torch.stack(drawn, dim=1), truth, 0.95)
            else:
                drawn = [model(given[0], mask, label)]
                error = (drawn[0] - truth).square()
            unknown = ~mask.expand_as(error)
            everything = number == 0 and not ensemble
            scores.append(error.mean() if everything else error[unknown].mean())
            mask = torch.zeros_like(mask)
            mask[:, :, 0 if forward else -1] = True
            end = -1 if forward else 0
            known = [x[:, :, [end] * LENGTH] for x in drawn]
            if gradient == "last" and number < windows - 1:
                known = [x.detach() for x in known]
        losses.append(torch.stack(scores).mean() if gradient == "all" else scores[-1])
    return torch.stack(losses).mean()


@pytest.mark.parametrize("gradient", ["all", "last"])
@pytest.mark.parametrize("windows", [2, 3])
@pytest.mark.parametrize("kind", ["neural_solver", "crps_ensemble"])
def test_the_objective_and_its_gradient_are_those_of_a_rollout(kind, windows, gradient):
    model, batch = build(kind, windows, gradient), samples(windows)
    masks = draw_mask(batch.states[:, :, :LENGTH], SampleGenerator(KEYS))[:, 0, 0].flatten()
    assert 0 < masks.sum() < SAMPLES  # some windows follow each other into the past
    expected = reference(model, batch, windows, gradient)
    expected.backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    loss, _ = model.loss(batch, SampleGenerator(KEYS))
    loss.backward()
    torch.testing.assert_close(loss, expected)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("gradient", "backward"), [("all", 3), ("last", 1)])
def test_gradients_go_through_all_windows_or_the_last(gradient, backward):
    model, batch = build("neural_solver", 3, gradient), samples(3)
    calls = []
    model.network.project_out.register_full_backward_hook(lambda *_: calls.append(1))
    model.loss(batch, SampleGenerator(KEYS))[0].backward()
    assert len(calls) == backward


def test_the_last_window_has_gradients_in_half_precision():
    """Autocast keeps the weights that the windows without gradients have cast."""
    model, batch = build("neural_solver", 2, "last"), samples(2)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = model.loss(batch, SampleGenerator(KEYS))
    loss.backward()
    assert not without_gradient(model)


def counts_of(kind, windows, gradient="all"):
    """Bytes that a sample keeps, and operations per forward pass."""
    model = build(kind, windows, gradient)
    shape = (2, windows * (LENGTH - 1) + 1, 64)
    counts = count_step(lambda: model.config.build(2, 1, 1, LENGTH), shape, 1, "bfloat16")
    return counts.activations.per_sample, counts.flops.per_sample / model.config.training_passes


@pytest.mark.parametrize("kind", ["neural_solver", "crps_ensemble"])
def test_activations_of_one_window_are_kept_of_every_member(kind):
    solver, forward = counts_of("neural_solver", 1)
    members = MEMBERS if kind == "crps_ensemble" else 1
    for windows, gradient in ((1, "all"), (3, "all"), (3, "last")):
        saved, operations = counts_of(kind, windows, gradient)
        assert 0.9 < saved / (members * solver) < 1.25, (windows, gradient)
        assert operations == pytest.approx(forward, rel=0.1), (windows, gradient)


def test_no_window_is_computed_twice_in_validations():
    model, batch = build("crps_ensemble", 3), samples(3)
    calls = []
    model.network.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        value, _ = model.loss(batch, SampleGenerator(KEYS))
    assert len(calls) == 3
    torch.testing.assert_close(value, model.loss(batch, SampleGenerator(KEYS))[0].detach())


def test_cells_outside_of_the_domain_are_never_fed_back():
    model, batch = build("neural_solver", 2), samples(2)
    valid = torch.tensor([True, True, True, False]).reshape(1, 1, 1, 4).expand(SAMPLES, -1, -1, -1)
    batch = Batch(states=torch.where(valid, batch.states, 0.0), parameters=batch.parameters, valid=valid)
    seen = []
    model.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    model.loss(batch, SampleGenerator(KEYS))
    assert len(seen) == 2
    assert all((fields[:, :2, :, 3] == 0).all() for fields in seen)
    assert (seen[1][:, :2] != 0).any()


def test_samples_of_another_number_of_states_are_refused():
    with pytest.raises(ConfigError, match="2 windows of 3 states need samples of 5 states, not 3"):
        build("neural_solver", 2).loss(samples(1), SampleGenerator(KEYS))


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ConfigError, match=r"--rollout-windows 2: diffusion models are only trained on sing"):
        DiffusionConfig(rollout_windows=2)
    with pytest.raises(ConfigError, match="--rollout-gradient last needs --rollout-windows above 1"):
        NeuralSolverConfig(rollout_gradient="last")
