"""Every option of every command with impossible and extreme values.

Each is refused in one line that names the option as it is typed, before anything is read, simulated, trained
or drawn; or it is listed in `ACCEPTED`, and runs in miniature; or in `WORK`, and asks for more work than a
test can wait for, but for no more memory.
"""

import functools
from collections import defaultdict

import miniature
import pytest
import ray.train
from options import accepting, changed, every_option, hostile, made_up, refusal
from ray.data import ActorPoolStrategy
from ray.train.v2.api.config import ScalingConfig

from lola.core.cli import parse
from lola.core.errors import ConfigError

MILLION, HUGE = 10**6, 10**18
SWEEPS = ("Emulators", "SweepConfig")
STUDIES = ("OptimizerStudyConfig", "SamplerStudyConfig")
FILTERED = (*SWEEPS, *STUDIES, "Autoencoders", "LatentCache", "Statistics")
BENCHMARKS = ("Training", "Data", "Emulation", "Metrics")
EMULATORS = ("CRPSEnsembleConfig", "DiffusionConfig", "NeuralSolverConfig", "ShortcutConfig")
SIMULATIONS = ("EulerConfig", "RayleighBenardConfig", "GravityCoolingConfig")
SEEDS, MORE_SEEDS = (-1, HUGE), (0, MILLION)

ACCEPTED: dict[str, tuple[object, ...]] = {
    "AutoencoderConfig.attention_heads": ((), ((0, 2),)),
    "AutoencoderConfig.blocks": ((0, 1),),
    "AutoencoderConfig.dropout": (0.0,),
    "AutoencoderConfig.kl_weight": (0.0,),
    "AutoencoderConfig.latent_noise": (0.0,),
    "AutoencoderConfig.patch_size": ((2, 2),),
    "AutoencoderConfig.stride": ((2, 2),),
    "CRPSEnsembleConfig.alpha": (0.0,),
    "CRPSEnsembleConfig.context_noise": (0.0,),
    "CRPSEnsembleConfig.energy": (0.0,),
    "CRPSEnsembleConfig.rollout_noise": (0.0,),
    "CacheConfig.block": (MILLION,),
    "CacheConfig.gpus": (0.0,),
    "CacheConfig.seed": SEEDS,
    "ClusterConfig.cpu_price": (0.0,),
    "ClusterConfig.cpus": (0, MILLION),
    "ClusterConfig.gpu_price": (0.0,),
    "ClusterConfig.gpus": (0, MILLION),
    "ClusterConfig.storage": (0.0,),
    "ClusterConfig.storage_price": (0.0,),
    "DiffusionConfig.context_noise": (0.0,),
    "DiffusionConfig.rollout_noise": (0.0,),
    "Emulation.parameters": ((),),
    "Emulation.seed": SEEDS,
    "Emulation.start": (0, MILLION),
    "Emulation.stride": (MILLION,),
    "Emulation.trajectories": ((0,), (MILLION,)),
    "EulerConfig.seed": SEEDS,
    "EulerConfig.speed": (0.0,),
    "EvaluationConfig.chunk": (MILLION,),
    "EvaluationConfig.gpus": (0.0, -1.0),
    "EvaluationConfig.seed": SEEDS,
    "EvaluationConfig.starts": ((0,),),
    "EvaluationConfig.trajectories": (MILLION,),
    "FilmConfig.fields": ((),),
    "FilmConfig.members": (0, MILLION),
    "FilmConfig.trajectory": (0, MILLION),
    "GravityCoolingConfig.kinetic": (0.0,),
    "GravityCoolingConfig.metallicities": ((0.0,),),
    "GravityCoolingConfig.radiation": (0.0,),
    "GravityCoolingConfig.seed": SEEDS,
    "InferenceConfig.rows": (MILLION,),
    "InferenceConfig.states": (MILLION,),
    "LatentCache.block": (MILLION,),
    "LatentCache.gpus": (0.0,),
    "LatentCache.seed": SEEDS,
    "NeuralSolverConfig.context_noise": (0.0,),
    "NeuralSolverConfig.rollout_noise": (0.0,),
    "ObservationConfig.count": (MILLION,),
    "ObservationConfig.fields": ((),),
    "ObservationConfig.seed": SEEDS,
    "ObservationConfig.until": (0, MILLION),
    "OptimizerConfig.betas": ((0.0, 0.99), (0.9, 0.0)),
    "OptimizerConfig.max_dimension": (MILLION,),
    "OptimizerConfig.precondition_frequency": (MILLION,),
    "OptimizerConfig.preconditioner_probability": (0.0,),
    "OptimizerConfig.weight_decay": (0.0,),
    "OrderConfig.block": (MILLION,),
    "RayleighBenardConfig.backgrounds": ((0.0, 0.4, 0.6, 0.8, 1.0),),
    "RayleighBenardConfig.noise": (0.0,),
    "RayleighBenardConfig.seed": SEEDS,
    "SamplerConfig.eta": (0.0,),
    "ScheduleConfig.shift": (0.0, -1.0),
    "ShortcutConfig.context_noise": (0.0,),
    "ShortcutConfig.rollout_noise": (0.0,),
    "TimePriorConfig.a": (0.0,),
    "TrainingConfig.ema": (0.0,),
    "TrainingConfig.gpus": (0.0,),
    "TrainingConfig.keep": (MILLION,),
    "TrainingConfig.max_failures": (0, -1, MILLION),
    "TrainingConfig.report_every": (MILLION,),
    "TrainingConfig.seed": SEEDS,
    "TrainingConfig.valid_samples": (MILLION,),
    "TrainingConfig.warmup": (0,),
    "TransformerAutoencoderConfig.dropout": (0.0,),
    "TransformerAutoencoderConfig.kl_weight": (0.0,),
    "TransformerAutoencoderConfig.latent_noise": (0.0,),
    "TransformerConfig.dropout": (0.0,),
    "UNetConfig.attention_heads": ((), ((0, 2),)),
    "UNetConfig.blocks": ((0, 1),),
    "UNetConfig.dropout": (0.0,),
}
"""Extreme values that must work, by class and field."""

LATER = ("Emulation.start", "Emulation.stride", "Emulation.trajectories", "FilmConfig.trajectory")
"""Those that are refused once the initial file is open."""

NAMES = (("density", "density"), ())
WORK: dict[str, tuple[object, ...]] = {
    **{field: MORE_SEEDS for field in ACCEPTED if field.endswith(".seed")},
    **{f"{kind}.{name}": NAMES for kind in FILTERED for name in ("include", "exclude")},
    **{f"{kind}.contexts": ((),) for kind in SWEEPS},
    **{f"{kind}.concurrency": (0, MILLION) for kind in (*SWEEPS, *STUDIES, "Autoencoders")},
    **{f"{kind}Benchmark.rounds": (MILLION,) for kind in BENCHMARKS},
    **{f"{kind}Benchmark.threads": (0,) for kind in BENCHMARKS},
    **{f"{kind}.{split}": (0, MILLION) for kind in SIMULATIONS for split in ("valid", "test")},
    **{f"{kind}.train": (MILLION,) for kind in SIMULATIONS},
    "EulerConfig.valid": (MILLION,),
    "EulerConfig.test": (MILLION,),
    "DisturbanceConfig.pace": (0.0,),
    "DisturbanceConfig.report_every": (MILLION,),
    "DisturbanceConfig.steps": (MILLION,),
    "Emulation.states": (MILLION,),
    "OptimizerStudyConfig.seeds": ((0, 1), (-1, 1), (MILLION, 1), (HUGE, 1)),
    "SamplerStudyConfig.emulators": ((),),
    **{f"{kind}.{field}": ((),) for kind in SWEEPS for field in ("arms", "seeds_at")},
    **{f"{kind}.seeds": ((), (0,), (MILLION,)) for kind in SWEEPS},
    **{f"{kind}.strides": ((),) for kind in EMULATORS},
    "SoakConfig.between": ((0.0, 40.0),),
    "SoakConfig.kills": (MILLION,),
    "SoakConfig.seed": (*SEEDS, *MORE_SEEDS),
    "SoakConfig.tolerance": (0.0,),
    "Statistics.block": (0, MILLION),
    "TrainingConfig.steps": (MILLION,),
}
"""Values that are not run: they ask for more of the same work, filter files by name, limit how many run at
once, or are defaults."""


@functools.cache
def tried() -> tuple[dict[str, set[str]], list[str]]:
    """The accepted values by class and field; and what was not refused as it should be."""
    accepted: dict[str, set[str]] = defaultdict(set)
    faults = []
    for config, option in every_option():
        for value in hostile(option):
            reason = refusal(changed(config, option.path, value), made_up)
            if not reason:
                accepted[option.field].add(repr(value))
            elif option.typed not in reason or "\n" in reason:
                faults.append(f"{option.command} {option.typed} {value!r}: {reason}")
    return accepted, faults


def test_every_refusal_names_the_option_in_one_line():
    _, faults = tried()
    assert not faults, "\n".join(faults)


def test_whatever_is_accepted_is_listed():
    accepted, _ = tried()
    listed = {field: set(map(repr, values)) for field, values in ACCEPTED.items()}
    for field, values in WORK.items():
        listed[field] = listed.get(field, set()) | set(map(repr, values))
    assert dict(accepted) == listed


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("root")


# heavyball warns of its own treatment of learning rates; imageio leaves pipes to be closed by the collector
@pytest.mark.filterwarnings(
    "ignore:Learning rate changed",
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore::ResourceWarning",
)
@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in ACCEPTED.items() for value in values]
)
def test_what_is_accepted_works(field, value, tmp_path, root, well):
    config, option = accepting(field, value)
    refused = ""
    try:
        run(config, option, tmp_path, root, well)
    except ConfigError as error:
        refused = str(error)
    if refused:
        assert field in LATER
        assert option.typed in refused
        assert not list(tmp_path.glob("*.hdf5"))


def run(config, option, folder, root, well):
    """Run what an option changes, in miniature.

    Arguments:
        config: The command's configuration, with another value of the option.
        option: The option.
        folder: Where results go.
        root: A storage root that all share.
        well: The folder of Well datasets.
    """
    match option.field.split("."):
        case ["TrainingConfig", "gpus" | "cpus" | "workers" | "resize_every" | "max_failures" | "keep"]:
            accepted_by_ray(config.autoencoder_training)
        case ["CacheConfig" | "LatentCache", _]:
            cache = config.cache if option.path.startswith("cache.") else config.cache()
            miniature.encode_briefly(cache, root, well)
        case ["EvaluationConfig" | "SamplerConfig" | "GuidanceConfig" | "ObservationConfig", _]:
            miniature.evaluate_briefly(config, well)
        case ["Emulation" | "FilmConfig" | "InferenceConfig", _]:
            miniature.emulate_briefly(config, root, well, folder, films=option.path.startswith("film."))
        case ["EulerConfig" | "RayleighBenardConfig" | "GravityCoolingConfig", _]:
            miniature.simulate_briefly(config.simulation)
        case ["ClusterConfig", _]:
            miniature.price_briefly(config.cluster)
        case _:
            miniature.train_briefly(config, option.path)


def accepted_by_ray(training):
    ScalingConfig(
        num_workers=training.workers,
        elastic_resize_monitor_interval_s=training.resize_every,
        resources_per_worker={"CPU": training.cpus},
    )
    ray.train.FailureConfig(max_failures=training.max_failures)
    ray.train.CheckpointConfig(num_to_keep=training.keep)
    ActorPoolStrategy(min_size=1, max_size=65536)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--evaluation.stride", "0"], "--evaluation.stride must be in [1, 1e9], not 0"),
        (["--autoencoder-training.valid-samples", "0"], "--autoencoder-training.valid-samples must be in"),
        (
            ["--emulator-training.optimizer.precondition-frequency", "0"],
            "--emulator-training.optimizer.precondition-frequency must be in [1, 1e12], not 0",
        ),
        (["--autoencoder.kernel-size", "-1"], "--autoencoder.kernel-size must be in [1, 63], not -1"),
        (
            ["--pixel-training.optimizer.learning-rate", "inf"],
            "--pixel-training.optimizer.learning-rate must be a finite number, not inf",
        ),
        (["--window", "1000000"], "--window must be in [2, 65536], not 1000000"),
        (["--solver-steps", "4", "4"], "--solver-steps contains 4 more than once"),
        (["--simulation.end", "nan"], "--simulation.end must be a finite number, not nan"),
        (
            ["--evaluation.sampler.name", "heun", "--solver-steps", "3"],
            "--solver-steps must be multiples of 2",
        ),
    ],
)
def test_a_command_line_is_refused_in_one_line(arguments, message, capsys):
    presets = {"smoke": miniature.presets.smoke}
    with pytest.raises(SystemExit) as end:
        parse(arguments, "sweep_compression.py", "Sweep.", presets, "smoke", {"system": "euler"})
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


def test_what_a_kind_lacks_may_be_given_after_it():
    presets = {"smoke": miniature.presets.smoke}
    options = ["--autoencoder.type", "TransformerAutoencoderConfig", "--autoencoder.patch-size", "8"]
    config = parse(options, "sweep_compression.py", "Sweep.", presets, "smoke", {"system": "euler"})
    assert config.autoencoder.patch_size == 8
