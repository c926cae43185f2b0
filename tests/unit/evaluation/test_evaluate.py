import copy
import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from lola.core.config import fingerprint
from lola.core.errors import ConfigError, DataError, DivergedError
from lola.data.description import EULER
from lola.data.transforms import Standardisation
from lola.data.well.splits import open_split
from lola.emulation.emulator import Emulator, map_states
from lola.emulation.guidance_config import GuidanceConfig
from lola.emulation.observation_config import ObservationConfig
from lola.emulation.sampling_config import SamplerConfig
from lola.evaluation.evaluation_config import EvaluationConfig
from lola.evaluation.scores.rows import Subject
from lola.evaluation.trajectory import choose_parts, evaluate_trajectory
from lola.models.autoencoder_config import AutoencoderConfig
from lola.models.diffusion_config import DiffusionConfig
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.transformer_config import TransformerConfig

SUBJECT = Subject(system="euler", dataset="d", fingerprint="f", model="m", space="latent", compression=20.0)
TRANSFORMER = TransformerConfig(features=16, blocks=1, heads=2, modulation=16, dropout=0.0)


@pytest.fixture(scope="module")
def split(well):
    return open_split(well, EULER, "test")


@pytest.fixture(scope="module")
def autoencoder():
    torch.manual_seed(0)
    return AutoencoderConfig(latent_channels=4, channels=(8, 8), blocks=(1, 1)).build(5, 2).eval()


def column(table, **where):
    rows = [row for row in table.to_pylist() if all(row[key] == value for key, value in where.items())]
    return {(row["field"], row["lead_time"]): row["value"] for row in rows}


def test_persistence_holds_the_last_known_state(split):
    config = EvaluationConfig(subject="persistence", trajectories=1, context=2, stride=4)
    scores = evaluate_trajectory(config, SUBJECT, split, 0, 1, autoencoder=None, emulator=None)
    truth = split.read(0, 1, 21, 4).double().numpy()
    found = column(scores.metrics, metric="vrmse", target="truth")
    assert {lead for _, lead in found} == {4, 8, 12}
    for (field, lead), value in found.items():
        u = truth[EULER.channels.index(field)]
        state = u[1 + lead // 4]
        expected = np.sqrt(np.mean((u[1] - state) ** 2) / (state.var(ddof=1) + 1e-6))
        assert value == pytest.approx(expected, rel=1e-5)


def test_persistence_with_an_autoencoder_holds_the_last_known_state_as_decoded(split, autoencoder):
    config = EvaluationConfig(subject="persistence", trajectories=1, context=2, stride=4, eps="published")
    scores = evaluate_trajectory(config, SUBJECT, split, 0, 1, autoencoder=autoencoder, emulator=None)
    scale = Standardisation(EULER)
    known = split.read(0, 5, 6)
    held = scale.inverse(
        map_states(autoencoder.decode, map_states(autoencoder.encode, scale.forward(known[None]), 1), 1)
    )
    for (field, lead), value in column(scores.metrics, metric="skill", target="truth").items():
        channel = EULER.channels.index(field)
        error = split.read(0, 5 + lead, 6 + lead)[channel] - held[0, channel]
        assert value == pytest.approx(error.square().mean().sqrt().item(), rel=1e-4)


def test_climatology_is_of_training_trajectories_at_the_same_times(well, split):
    config = EvaluationConfig(subject="climatology", trajectories=1, members=3, stride=4, chunk=6)
    training = open_split(well, EULER, "train")
    options = {"autoencoder": None, "emulator": None, "training": training}
    scores = evaluate_trajectory(config, SUBJECT, split, 1, 2, **options)
    assert set(scores.metrics["members"].to_pylist()) == {min(3, len(training.trajectories))}
    means = [
        np.mean([training.read(i, 2 + lead, 3 + lead)[0].numpy() for i in order], axis=0)
        for lead, order in ((4, range(len(training.trajectories))),)
    ]
    if len(training.trajectories) <= 3:
        np.testing.assert_allclose(scores.moments[0][0, :1], means[0], rtol=1e-5)
    again = evaluate_trajectory(config.replace(chunk=64), SUBJECT, split, 1, 2, **options)
    assert scores.metrics.equals(again.metrics)
    other = evaluate_trajectory(config, SUBJECT, split, 0, 2, **options)
    assert len(column(other.metrics, metric="crps")) == len(column(scores.metrics, metric="crps"))


def test_climatology_of_shorter_trajectories_stays_in_their_last_states(well, split):
    training = open_split(well, EULER, "train")
    short = dataclasses.replace(
        training, trajectories=tuple(dataclasses.replace(each, steps=10) for each in training.trajectories)
    )
    config = EvaluationConfig(subject="climatology", members=1, stride=4)
    options = {"autoencoder": None, "emulator": None}
    scores = evaluate_trajectory(config, SUBJECT, split, 0, 0, **options, training=short)
    whole = evaluate_trajectory(config, SUBJECT, split, 0, 0, **options, training=training)
    np.testing.assert_array_equal(scores.example[0][:, :2], whole.example[0][:, :2])  # steps 4 and 8
    last = scores.example[0][:, 2]
    assert any(np.array_equal(last, training.read(i, 9, 10)[:, 0]) for i in range(len(training.trajectories)))
    np.testing.assert_array_equal(scores.example[0][:, 3:], np.broadcast_to(last[:, None], (5, 2, 16, 16)))


def test_climatology_without_training_data_is_an_error(split):
    config = EvaluationConfig(subject="climatology")
    assert config.random
    with pytest.raises(DataError, match=r"climatology at .* needs the training data"):
        evaluate_trajectory(config, SUBJECT, split, 0, 0, autoencoder=None, emulator=None)


def test_increments_are_those_between_successive_states_whatever_the_chunks(split):
    config = EvaluationConfig(subject="persistence", stride=4)
    scores = evaluate_trajectory(config, SUBJECT, split, 0, 0, autoencoder=None, emulator=None)
    chunked = evaluate_trajectory(
        config.replace(chunk=2), SUBJECT, split, 0, 0, autoencoder=None, emulator=None
    )
    assert scores.metrics.num_rows == chunked.metrics.num_rows
    truth = split.read(0, 0, 21, 4).double().numpy()
    for each in (scores, chunked):
        for (field, lead), value in column(each.metrics, metric="increments").items():
            u = truth[EULER.channels.index(field)]
            change = u[lead // 4] - u[lead // 4 - 1]
            assert value == pytest.approx(np.abs(change).mean() / change.std(ddof=1), rel=1e-3)
        for (field, lead), value in column(each.metrics, metric="autocorrelation").items():
            u = truth[EULER.channels.index(field)]
            expected = 1 - np.corrcoef(u[lead // 4].ravel(), u[lead // 4 - 1].ravel())[0, 1]
            assert value == pytest.approx(expected, abs=1e-5)


def test_the_autoencoder_is_scored_on_the_states_that_emulators_predict(split, autoencoder):
    config = EvaluationConfig(subject="autoencoder", trajectories=1)
    scores = evaluate_trajectory(config, SUBJECT, split, 1, 0, autoencoder=autoencoder, emulator=None)
    assert set(scores.metrics["target"].to_pylist()) == {"truth"}
    assert set(scores.metrics["lead_time"].to_pylist()) == {4, 8, 12, 16, 20}
    assert scores.example.shape == (1, 5, 5, 16, 16)
    assert scores.moments is None


def test_an_autoencoder_that_diverged_is_an_error(split, autoencoder):
    diverged = copy.deepcopy(autoencoder)
    next(diverged.parameters()).data.fill_(1e30)
    config = EvaluationConfig(subject="autoencoder", trajectories=1)
    with pytest.raises(DivergedError, match=r"#1 .*latents are not finite"):
        evaluate_trajectory(config, SUBJECT, split, 1, 0, autoencoder=diverged, emulator=None)


def test_an_ensemble_has_members_and_two_targets(split, autoencoder):
    torch.manual_seed(1)
    model = DiffusionConfig(network=TRANSFORMER).build(4, split.parameter_count, 2, 5)
    emulator = Emulator(model=model, autoencoder=autoencoder, sampler=SamplerConfig(steps=2))
    config = EvaluationConfig(trajectories=1, members=3, sampler=SamplerConfig(steps=2))
    scores = evaluate_trajectory(config, SUBJECT, split, 0, 0, autoencoder=autoencoder, emulator=emulator)
    again = evaluate_trajectory(config, SUBJECT, split, 0, 0, autoencoder=autoencoder, emulator=emulator)
    assert scores.metrics.equals(again.metrics)
    assert set(scores.metrics["target"].to_pylist()) == {"truth", "autoencoded"}
    assert set(scores.metrics["members"].to_pylist()) == {3}
    assert all(value > 0 for value in column(scores.metrics, metric="spread", target="truth").values())
    assert not np.array_equal(scores.example[0], scores.example[1])
    mean, deviation = scores.moments
    assert mean.shape == deviation.shape == scores.example.shape[1:]
    for (field, lead), value in column(scores.metrics, metric="spread", target="truth").items():
        variance = np.mean(deviation[EULER.channels.index(field), lead // 4 - 1].astype(float) ** 2)
        assert value == pytest.approx(np.sqrt(4 / 2 * variance), rel=1e-4)
    assert scores.seconds > 0


def test_observations_guide_an_ensemble(split, autoencoder):
    torch.manual_seed(1)
    model = DiffusionConfig(network=TRANSFORMER).build(4, split.parameter_count, 2, 5)
    emulator = Emulator(model=model, autoencoder=autoencoder)
    config = EvaluationConfig(trajectories=1, members=2, sampler=SamplerConfig(steps=2))
    guided = config.replace(
        observed=ObservationConfig(factor=4, every=2), guidance=GuidanceConfig(iterations=1)
    )
    assert (config.guided, guided.guided) == ("", "mmps subsample4-every2")
    assert "guidance" not in config.to_json()
    plain, observed = (
        evaluate_trajectory(each, SUBJECT, split, 0, 0, autoencoder=autoencoder, emulator=emulator)
        for each in (config, guided)
    )
    assert np.isfinite(observed.example).all()
    assert not np.allclose(plain.example, observed.example)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"observed": ObservationConfig()}, "needs a guidance"),
        ({"guidance": GuidanceConfig(), "sampler": SamplerConfig()}, "--guidance needs something --observed"),
        ({"observed": ObservationConfig(), "guidance": GuidanceConfig()}, "which have a sampler"),
        (
            {
                "observed": ObservationConfig(),
                "guidance": GuidanceConfig(name="dps"),
                "sampler": SamplerConfig(),
            },
            "ddpm alone",
        ),
    ],
)
def test_impossible_guidance(values, message):
    with pytest.raises(ConfigError, match=message):
        EvaluationConfig(**values)


def test_a_deterministic_emulator_has_one_member_and_no_spread(split):
    model = NeuralSolverConfig(network=TRANSFORMER.replace(patch_size=4)).build(
        5, split.parameter_count, 2, 5
    )
    config = EvaluationConfig(trajectories=1, members=3)
    scores = evaluate_trajectory(
        config, SUBJECT, split, 0, 0, autoencoder=None, emulator=Emulator(model=model)
    )
    assert set(scores.metrics["members"].to_pylist()) == {1}
    assert not column(scores.metrics, metric="spread")


def test_trajectories_are_chosen_once_and_without_repeats(split):
    config = EvaluationConfig(trajectories=3)
    chosen = choose_parts(split, config).trajectories
    assert len(set(chosen)) == 3
    assert chosen == choose_parts(split, config.replace(subject="persistence")).trajectories
    assert len(choose_parts(split, config.replace(trajectories=99)).trajectories) == 4


def test_a_context_without_a_future_is_refused(split):
    config = EvaluationConfig(subject="persistence")
    with pytest.raises(DataError, match="no state left after a context from state 17"):
        evaluate_trajectory(config, SUBJECT, split, 0, 17, autoencoder=None, emulator=None)


def test_results_do_not_depend_on_what_is_decoded_at_once(split, autoencoder):
    torch.manual_seed(1)
    model = DiffusionConfig(network=TRANSFORMER).build(4, split.parameter_count, 2, 5)
    emulator = Emulator(model=model, autoencoder=autoencoder, sampler=SamplerConfig(steps=2))
    config = EvaluationConfig(trajectories=1, members=3, context=2, overlap=2)
    one, all_ = (
        evaluate_trajectory(
            config.replace(chunk=chunk), SUBJECT, split, 0, 1, autoencoder=autoencoder, emulator=emulator
        )
        for chunk in (1, 999)
    )
    np.testing.assert_allclose(one.example, all_.example, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one.moments, all_.moments, rtol=1e-4, atol=1e-4)
    for table in ("metrics", "spectra"):
        found, expected = (getattr(each, table).to_pandas() for each in (one, all_))
        values = "value" if table == "metrics" else "values"
        pd.testing.assert_frame_equal(found.drop(columns=values), expected.drop(columns=values))
        numbers = (np.hstack(each[values].to_numpy()) for each in (found, expected))
        np.testing.assert_allclose(*numbers, rtol=1e-3, atol=1e-5)
    assert set(one.metrics["start"].to_pylist()) == {1}
    assert set(one.metrics["lead_time"].to_pylist()) == {4, 8, 12}


def test_a_rollout_that_blows_up_is_scored_as_such(split, autoencoder):
    class Exploding(torch.nn.Module):
        window = 5

        def forward(self) -> None: ...

    class Blown(Emulator):
        stochastic = True

        def rollout(self, context, parameters, states, keys, overlap=1, observations=None):
            known = context[:, :, -1:].repeat(1, 1, states, 1, 1)
            known[1, :, 2:] = 1e30
            known[2, :, 3:] = torch.nan
            yield known

    emulator = Blown(model=Exploding(), autoencoder=autoencoder)
    config = EvaluationConfig(trajectories=1, members=4)
    scores = evaluate_trajectory(config, SUBJECT, split, 0, 0, autoencoder=autoencoder, emulator=emulator)
    stable = column(scores.metrics, metric="stability", target="truth")
    assert [stable["density", lead] for lead in (4, 8, 12, 16, 20)] == [1, 1, 0.75, 0.5, 0.5]
    for metric in ("vrmse", "crps", "spread", "spectrum_rmse_high"):
        values = column(scores.metrics, metric=metric, target="truth")
        assert all(np.isfinite(value) == (lead < 12) for (_, lead), value in values.items()), metric


def test_drift_is_told_where_the_domain_is_closed(split):
    config = EvaluationConfig(subject="persistence", trajectories=1)
    found = {}
    for index, trajectory in enumerate(split.trajectories):
        scores = evaluate_trajectory(config, SUBJECT, split, index, 0, autoencoder=None, emulator=None)
        periodic = bool((trajectory.boundary == 2).all())
        found[periodic] = (
            column(scores.metrics, metric="drift_mass"),
            column(scores.metrics, metric="drift_momentum"),
        )
    assert found.keys() == {False, True}
    assert found[False] == ({}, {})
    assert {field for field, _ in found[True][0]} == {"density"}
    assert {field for field, _ in found[True][1]} == {"momentum_x", "momentum_y"}
    assert max(max(values.values()) for values in found[True]) < 1e-5  # nothing moves


def test_how_the_network_runs():
    plain = EvaluationConfig()
    assert fingerprint(plain.replace(compile=True)) == fingerprint(plain)
    assert fingerprint(plain.replace(precision="bfloat16")) != fingerprint(plain)
    found = plain.replace(precision="bfloat16", compile=True).inference
    assert (found.precision, found.compile) == ("bfloat16", True)
