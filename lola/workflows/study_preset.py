"""The preset `study`: kinds and recipes of emulators at equal minutes of training, with three seeds.

Every emulator has the same minutes on one core. One that starts from the weights of another has what that
leaves, and the `..._start` arms, from which they start, are not at equal cost. The arms `..._published` take
the paper's choices, which the others change: masks that leave the last states known too, the loss over all
states of a window, and Adam.
"""

from typing import Any

from lola.core.config import require
from lola.emulation.cache_config import CacheConfig
from lola.emulation.sampling_config import SamplerConfig
from lola.evaluation.evaluation_config import EvaluationConfig
from lola.models.autoencoder_config import AutoencoderConfig
from lola.models.crps_ensemble_config import CRPSEnsembleConfig
from lola.models.diffusion_config import DiffusionConfig
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.shortcut_config import ShortcutConfig
from lola.models.transformer_config import TransformerConfig
from lola.simulate.euler import EulerConfig
from lola.training.config import OptimizerConfig, TrainingConfig
from lola.workflows.arms import EmulatorArmConfig
from lola.workflows.sweep import SweepConfig

MINUTES = 4.0  # of every emulator
START_MINUTES = 2.5  # of those whose weights others start from
SEEDS = (0, 1, 2)
SOAP = OptimizerConfig(name="soap", learning_rate=2e-3, max_dimension=256)
ADAM = OptimizerConfig(name="adam", learning_rate=1e-3)


def study(
    system: str = "euler", well: str = "well-study", storage: str | None = None, **files: tuple[str, ...]
) -> SweepConfig:
    """Kinds and recipes of emulators at equal minutes of training, in hours on two cores (see `--plan`).

    Euler at 32 x 32 over half of The Well's time span, in four quadrants between periodic boundaries.
    """
    require(system == "euler", f"the preset study is of --system euler, not {system}; take mini")
    network = TransformerConfig(
        features=96, blocks=3, heads=4, modulation=96, patch_size=(1, 2, 2), dropout=0.0
    )
    training = TrainingConfig(
        steps=1000,
        minutes=MINUTES,
        batch_size=64,
        optimizer=SOAP,
        warmup=20,
        valid_samples=512,
        report_every=100,
    )
    recipe: dict[str, Any] = {"network": network, "masks": "forward"}
    unknown = recipe | {"loss_states": "unknown"}
    return SweepConfig(
        system=system,
        simulation=EulerConfig(
            resolution=32,
            gammas=(1.4,),
            boundaries=("periodic",),
            intervals=(2, 2),
            end=0.75,
            train=1024,
            valid=64,
            test=64,
        ),
        latent_channels=(64, 16, 4),
        autoencoder=AutoencoderConfig(channels=(32, 64, 96), blocks=(1, 1, 1), patch_size=2, dropout=0.0),
        autoencoder_training=training.replace(
            batch_size=16, optimizer=SOAP.replace(learning_rate=3e-3), valid_samples=256
        ),
        cache=CacheConfig(block=101),
        emulators=("neural_solver", "diffusion", "crps_ensemble", "shortcut"),
        neural_solver=NeuralSolverConfig(**unknown),
        diffusion=DiffusionConfig(**unknown),
        crps_ensemble=CRPSEnsembleConfig(**recipe),
        shortcut=ShortcutConfig(**unknown),
        emulator_training=training,
        arms=_arms(network, training, recipe, unknown),
        seeds=SEEDS,
        pixel_training=training,
        solver_steps=(1, 2, 4, 16),
        evaluation=EvaluationConfig(sampler=SamplerConfig(), members=8, trajectories=64),
        statistics="computed",
        well="well-study",
    )


def _arms(
    network: TransformerConfig, training: TrainingConfig, recipe: dict[str, Any], unknown: dict[str, Any]
) -> tuple[EmulatorArmConfig, ...]:
    start = training.replace(steps=600, minutes=START_MINUTES)
    rest = training.replace(steps=400, minutes=MINUTES - START_MINUTES)
    published = training.replace(optimizer=ADAM)
    ensemble = CRPSEnsembleConfig(**recipe, warm_start="solver_start")
    return (
        EmulatorArmConfig(name="solver_start", model=NeuralSolverConfig(**unknown), training=start),
        EmulatorArmConfig(name="diffusion_start", model=DiffusionConfig(**unknown), training=start),
        EmulatorArmConfig(name="crps_warm", model=ensemble, training=rest),
        EmulatorArmConfig(name="crps_rollout", model=ensemble.replace(rollout_windows=2), training=rest),
        EmulatorArmConfig(
            name="shortcut_warm",
            model=ShortcutConfig(**unknown, warm_start="diffusion_start"),
            training=rest,
        ),
        EmulatorArmConfig(
            name="solver_published", model=NeuralSolverConfig(network=network), training=published
        ),
        EmulatorArmConfig(
            name="diffusion_published", model=DiffusionConfig(network=network), training=published
        ),
    )
