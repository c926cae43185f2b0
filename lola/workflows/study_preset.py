"""The presets `study` and `ablations`: emulators at equal minutes of training, in hours on two cores.

Every emulator of latent states has the same minutes on one core, and one of pixels those of an emulator and
its autoencoder. One that starts from the weights of another has what that leaves. The `..._start` arms, from
which they start, are not at equal cost; `pixel_start` has the minutes of a latent emulator alone.
"""

from collections.abc import Iterator
from typing import Any

from lola.core.config import require
from lola.data.description import get_system
from lola.emulation.cache_config import CacheConfig
from lola.emulation.sampling_config import SamplerConfig
from lola.evaluation.evaluation_config import EvaluationConfig
from lola.models.autoencoder_config import AutoencoderConfig
from lola.models.crps_ensemble_config import CRPSEnsembleConfig
from lola.models.diffusion_config import DiffusionConfig
from lola.models.emulator_config import EmulatorConfig
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.shortcut_config import ShortcutConfig
from lola.models.transformer_config import TransformerConfig
from lola.simulate.euler import EulerConfig
from lola.simulate.rayleigh_benard import RayleighBenardConfig
from lola.simulate.simulators import Simulation
from lola.training.config import OptimizerConfig, TrainingConfig
from lola.workflows.arms import EmulatorArmConfig
from lola.workflows.sweep import SweepConfig

SIMULATION = EulerConfig(
    resolution=32,
    gammas=(1.4,),
    boundaries=("periodic",),
    intervals=(2, 2),
    end=0.75,
    train=1024,
    valid=64,
    test=64,
)
CONVECTION = RayleighBenardConfig(
    resolution=(64, 32), rayleigh=(1e6,), prandtl=(0.5, 2.0), train=96, valid=16, test=32
)
MINUTES = 4.0  # of every autoencoder and every latent emulator
PIXEL_MINUTES = 2 * MINUTES  # as many as an autoencoder and an emulator of its latent states
START_MINUTES = 2.5  # of those whose weights others start from
SEEDS = (0, 1, 2)
MIDDLE = 16  # latent channels of Euler states at which there are all seeds
CHANNELS: dict[str, tuple[int, ...]] = {"euler": (64, MIDDLE, 4), "rayleigh_benard": (32, 4)}
SIMULATIONS: dict[str, Simulation] = {"euler": SIMULATION, "rayleigh_benard": CONVECTION}
SOAP = OptimizerConfig(name="soap", learning_rate=2e-3, max_dimension=256)
ADAM = OptimizerConfig(name="adam", learning_rate=1e-3)
MUON = OptimizerConfig(name="muon", learning_rate=2e-3)
NETWORK = TransformerConfig(features=96, blocks=3, heads=4, modulation=96, patch_size=(1, 2, 2), dropout=0.0)
PIXEL = NETWORK.replace(patch_size=(1, 8, 8))
TRAINING = TrainingConfig(
    steps=1000,
    minutes=MINUTES,
    batch_size=64,
    optimizer=SOAP,
    warmup=20,
    valid_samples=512,
    report_every=100,
)
START = TRAINING.replace(steps=600, minutes=START_MINUTES)
REST = TRAINING.replace(steps=400, minutes=MINUTES - START_MINUTES)
PIXEL_START = TRAINING
PIXEL_REST = TRAINING.replace(minutes=PIXEL_MINUTES - MINUTES)
TITLES = {
    "solver_start": f"Neural solver, {START_MINUTES:g} minutes",
    "diffusion_start": f"Diffusion, {START_MINUTES:g} minutes",
    "crps_warm": "CRPS ensemble, warm-started",
    "crps_rollout": "CRPS ensemble, warm-started on rollouts",
    "shortcut_warm": "Few-step diffusion, warm-started",
    "solver_published": "Neural solver, published recipe",
    "diffusion_published": "Diffusion, published recipe",
    "solver_masks": "Neural solver, published masks",
    "solver_loss": "Neural solver, loss of all states",
    "solver_adam": "Neural solver, Adam",
    "solver_muon": "Neural solver, Muon",
    "solver_noise": "Neural solver, noise on known states",
    "solver_change": "Neural solver of changes",
    "solver_strides": "Neural solver, random strides",
    "shortcut_coarse": "Few-step diffusion of at most 16 steps, warm-started",
    "pixel_start": f"Neural solver of the fields, {MINUTES:g} minutes",
    "pixel_crps": "CRPS ensemble of the fields, warm-started on rollouts",
}
RECIPE: dict[str, Any] = {"masks": "forward"}
UNKNOWN = RECIPE | {"loss_states": "unknown"}


def study(
    system: str = "euler", well: str = "well-study", storage: str | None = None, **files: tuple[str, ...]
) -> SweepConfig:
    """What compression costs, by kind of emulator: three rates 16x apart and pixel space, at equal minutes.

    Pixel emulators have the minutes of an autoencoder and a latent emulator together.

    Three training seeds at the middle rate, one elsewhere, in hours on two cores (see `--plan`). Euler at
    32 x 32 over half of The Well's time span, in four quadrants between periodic boundaries; or convection
    at 64 x 32 and a Rayleigh number of a million, at two rates, with three seeds at the lower one.
    """
    channels = CHANNELS.get(system, ())
    return _sweep(
        "study",
        system,
        latent_channels=channels,
        seeds_at=(MIDDLE,) if MIDDLE in channels else channels[:1],
        emulators=("neural_solver", "diffusion"),
        arms=(
            *_warm_ensemble(NETWORK, "solver_start", "crps_rollout", rollout_windows=2),
            *_warm_shortcut(),
            *_warm_ensemble(PIXEL, "pixel_start", "pixel_crps", pixel=True, rollout_windows=2),
        ),
        pixel=NeuralSolverConfig(network=PIXEL, **UNKNOWN),
    )


def ablations(
    system: str = "euler", well: str = "well-study", storage: str | None = None, **files: tuple[str, ...]
) -> SweepConfig:
    """Recipes of every kind at the middle rate of `study`, on its data, with three training seeds.

    The arms `..._published` take the paper's choices, which the others change: masks that leave the last
    states known too, the loss over all states of a window, and Adam. Further arms change one choice of the
    neural solver each. In hours on two cores.
    """
    published = TRAINING.replace(optimizer=ADAM)
    solver, warm = _warm_ensemble(NETWORK, "solver_start", "crps_warm")
    diffusion, shortcut = _warm_shortcut()
    return _sweep(
        "ablations",
        system,
        latent_channels=(MIDDLE,),
        emulators=("neural_solver", "diffusion", "crps_ensemble", "shortcut"),
        arms=(
            solver,
            diffusion,
            warm,
            _warm_ensemble(NETWORK, "solver_start", "crps_rollout", rollout_windows=2)[1],
            shortcut,
            _arm("shortcut_coarse", shortcut.model.replace(finest=16), REST),
            _arm("solver_published", NeuralSolverConfig(network=NETWORK), published),
            _arm("diffusion_published", DiffusionConfig(network=NETWORK), published),
            *_one_at_a_time(),
        ),
    )


def _one_at_a_time() -> Iterator[EmulatorArmConfig]:
    """Neural solvers that differ from that of the sweep in one choice each."""
    solver = NeuralSolverConfig(network=NETWORK, **UNKNOWN)
    yield _arm("solver_masks", solver.replace(masks="published"), TRAINING)
    yield _arm("solver_loss", solver.replace(loss_states="published"), TRAINING)
    yield _arm("solver_adam", solver, TRAINING.replace(optimizer=ADAM))
    yield _arm("solver_muon", solver, TRAINING.replace(optimizer=MUON))
    yield _arm("solver_noise", solver.replace(context_noise=0.2), TRAINING)
    yield _arm("solver_change", solver.replace(predicts="change"), TRAINING)
    yield _arm("solver_strides", solver.replace(strides=(2, 4, 6)), TRAINING)


def _arm(
    name: str, model: EmulatorConfig, training: TrainingConfig, pixel: bool = False
) -> EmulatorArmConfig:
    return EmulatorArmConfig(name=name, title=TITLES[name], model=model, training=training, pixel=pixel)


def _warm_ensemble(
    network: TransformerConfig, start: str, name: str, pixel: bool = False, **options: Any
) -> tuple[EmulatorArmConfig, EmulatorArmConfig]:
    """A neural solver, and an ensemble that starts from its weights."""
    first, rest = (PIXEL_START, PIXEL_REST) if pixel else (START, REST)
    solver = NeuralSolverConfig(network=network, **UNKNOWN)
    ensemble = CRPSEnsembleConfig(network=network, **RECIPE, warm_start=start, **options)
    return _arm(start, solver, first, pixel), _arm(name, ensemble, rest, pixel)


def _warm_shortcut() -> tuple[EmulatorArmConfig, EmulatorArmConfig]:
    """A diffusion model, and one of few steps that starts from its weights."""
    diffusion = DiffusionConfig(network=NETWORK, **UNKNOWN)
    shortcut = ShortcutConfig(network=NETWORK, **UNKNOWN, warm_start="diffusion_start")
    return _arm("diffusion_start", diffusion, START), _arm("shortcut_warm", shortcut, REST)


def _sweep(preset: str, system: str, **chosen: Any) -> SweepConfig:
    """A sweep of what is chosen, on the data that both presets share."""
    known = SIMULATIONS if preset == "study" else ("euler",)
    of = f"--system {' and '.join(known)}"
    require(system in known, f"the preset {preset} is of {of}, not {system}; take mini")
    physics = get_system(system)
    return SweepConfig(
        system=system,
        simulation=SIMULATIONS[system],
        autoencoder=AutoencoderConfig(channels=(32, 64, 96), blocks=(1, 1, 1), patch_size=2, dropout=0.0),
        autoencoder_training=TRAINING.replace(
            batch_size=16, optimizer=SOAP.replace(learning_rate=3e-3), valid_samples=256
        ),
        cache=CacheConfig(block=101),
        neural_solver=NeuralSolverConfig(network=NETWORK, **UNKNOWN),
        diffusion=DiffusionConfig(network=NETWORK, **UNKNOWN),
        crps_ensemble=CRPSEnsembleConfig(network=NETWORK, **RECIPE),
        shortcut=ShortcutConfig(network=NETWORK, **UNKNOWN),
        emulator_training=TRAINING,
        seeds=SEEDS,
        pixel_training=TRAINING.replace(steps=2000, minutes=PIXEL_MINUTES),
        solver_steps=(1, 2, 4, 16),
        evaluation=EvaluationConfig(
            sampler=SamplerConfig(),
            members=8,
            trajectories=64,
            starts=physics.starts[:1],
            stride=physics.stride,
        ),
        statistics="computed",
        well="well-study",
        **chosen,
    )
