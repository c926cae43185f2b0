"""Complete configurations, by name; each is a function of the physical system."""

from typing import Any

from lola.emulation.cache_config import CacheConfig
from lola.emulation.sampling_config import SamplerConfig
from lola.evaluation.evaluation_config import EvaluationConfig
from lola.models.autoencoder_config import AutoencoderConfig
from lola.models.kinds import KINDS
from lola.models.neural_solver_config import NeuralSolverConfig
from lola.models.transformer_config import TransformerConfig
from lola.simulate.euler import EulerConfig
from lola.simulate.gravity_cooling import GravityCoolingConfig
from lola.simulate.rayleigh_benard import RayleighBenardConfig
from lola.simulate.simulators import Simulation
from lola.training.config import OptimizerConfig, TrainingConfig
from lola.training.order import OrderConfig
from lola.workflows.forecast.cluster import ClusterConfig
from lola.workflows.sizing import DataSizes, fitted
from lola.workflows.studies.optimizers import ArmConfig, OptimizerStudyConfig
from lola.workflows.studies.samplers import SamplerStudyConfig
from lola.workflows.study_preset import SIMULATION, ablations, study
from lola.workflows.sweep import SweepConfig, emulator_options

GIVEN: dict[str, str | tuple[str, ...]] = {
    "system": "euler",
    "well": "",
    "storage": "",
    "include": (),
    "exclude": (),
}
"""The options that presets take (`lola.core.cli.launch`)."""

OBJECTIVE: dict[str, Any] = {"masks": "forward", "loss_states": "unknown"}
"""With SOAP the CRPS of neural solvers on validation trajectories was 22 to 28 % less than by the published
choices and Adam in the same minutes (`experiments/results/ablations`)."""

SIMULATIONS: dict[str, Simulation] = {
    "euler": SIMULATION.replace(train=256, valid=16, test=16),
    "rayleigh_benard": RayleighBenardConfig(
        resolution=(64, 32), rayleigh=(1e6,), prandtl=(0.5, 1.0, 2.0), train=4, valid=1, test=1
    ),
    "turbulence_gravity_cooling": GravityCoolingConfig(
        densities=(44.5, 0.445), temperatures=(100.0,), train=2, valid=1, test=1
    ),
}
"""Small ensembles, simulated in minutes on two cores."""

TINY_SIMULATIONS: dict[str, Simulation] = {
    "euler": EulerConfig(resolution=32, gammas=(1.4, 1.76), train=2, valid=1, test=1, outputs=40, end=0.6),
    "rayleigh_benard": RayleighBenardConfig(
        resolution=(32, 24), rayleigh=(1e5,), prandtl=(1.0, 2.0), train=2, valid=1, test=1, outputs=60
    ),
    "turbulence_gravity_cooling": GravityCoolingConfig(
        resolution=16,
        densities=(44.5,),
        temperatures=(100.0,),
        metallicities=(1.0,),
        train=2,
        valid=1,
        test=2,
        outputs=12,
    ),
}


def mini(
    system: str = "euler", well: str = "well", storage: str | None = None, **files: tuple[str, ...]
) -> SweepConfig:
    """Three kinds of emulators at two rates and one in pixel space, in about 11 minutes.

    Of a system that is not the paper's, `system`, `well`, `storage` and `files` (`include`, `exclude`) say
    where the data are, whose sizes decide those of the networks; likewise for `smoke`.
    """
    data = DataSizes.find(system, well, storage, **files)
    physics = data.system
    small = system == "euler"  # on 32 x 32 cells
    network = TransformerConfig(features=96, blocks=3, heads=4, modulation=96, dropout=0.0)
    training = TrainingConfig(
        steps=200 if data.grid else 400,  # on larger grids than the paper's systems have here
        batch_size=64 if physics.dimensions < 3 else 16,
        optimizer=OptimizerConfig(name="soap", learning_rate=2e-3, max_dimension=256),
        warmup=20,
        valid_samples=256,
        report_every=80,
    )
    pixel = network.replace(patch_size=(1, 8, 8) if small else (1, 16, 16))
    config = SweepConfig(
        system=system,
        simulation=SIMULATIONS.get(system),
        latent_channels=(32, 4) if small else (128, 16),
        autoencoder=AutoencoderConfig(
            channels=(32, 64, 96) if small else (64, 96, 128),
            blocks=(1, 1, 1),
            patch_size=2 if small else 4,
            dropout=0.0,
        ),
        autoencoder_training=training.replace(
            steps=320,
            batch_size=16,
            optimizer=OptimizerConfig(name="soap", learning_rate=3e-3, max_dimension=256),
            report_every=80,
        ),
        cache=CacheConfig(block=101),
        **emulator_options(network.replace(patch_size=(1, 2, 2)) if small else network, **OBJECTIVE),
        emulators=("neural_solver", "diffusion", "crps_ensemble"),
        emulator_training=training,
        pixel=NeuralSolverConfig(network=pixel, **OBJECTIVE) if physics.dimensions == 2 else None,
        pixel_training=training.replace(steps=130, report_every=26),  # as long as the others
        solver_steps=(4, 16),
        evaluation=EvaluationConfig(
            sampler=SamplerConfig(),
            members=8,
            trajectories=16,
            starts=physics.starts[:1],
            stride=physics.stride,
        ),
    )
    ensemble = config.emulator(KINDS["crps_ensemble"])
    return fitted(
        config.replace(crps_ensemble=ensemble.replace(members=2, warm_start="neural_solver")),
        data,
        (64, 96, 128),
    )


def smoke(
    system: str = "euler", well: str = "well-smoke", storage: str | None = None, **files: tuple[str, ...]
) -> SweepConfig:
    """The same stages in 2 to 4 minutes on two cores: what they compute means nothing."""
    config = mini(system, well, storage, **files)
    transformer = TransformerConfig(features=16, blocks=1, heads=2, modulation=16, dropout=0.0)
    training = TrainingConfig(steps=20, batch_size=4, valid_samples=8, report_every=5)
    pixel = NeuralSolverConfig(network=transformer.replace(patch_size=(1, 8, 8)))
    config = config.replace(
        simulation=TINY_SIMULATIONS.get(system),
        latent_channels=(16,),
        autoencoder=AutoencoderConfig(channels=(8, 16), blocks=(1, 1), patch_size=4, dropout=0.0),
        autoencoder_training=training.replace(optimizer=OptimizerConfig(name="psgd", learning_rate=1e-3)),
        cache=CacheConfig(block=16),
        **emulator_options(transformer),
        emulators=("neural_solver", "diffusion"),
        emulator_training=training,
        pixel=pixel if config.pixel else None,
        pixel_training=training,
        solver_steps=(2, 4),
        evaluation=config.evaluation.replace(members=2, trajectories=2),
        well="well-smoke",
    )
    return fitted(config, DataSizes.find(system, well, storage, **files), (8, 12, 16))


def paper(
    system: str = "euler", well: str = "well-paper", storage: str | None = None, **files: tuple[str, ...]
) -> SweepConfig:
    """What the authors trained (Tables 3 and 5), on The Well's data and 8 GPUs; in pixel space on 16.

    They do not state the precision of the arithmetic; here it is bfloat16, with weights in float32.
    """
    physics = DataSizes.find(system, well, storage, **files).system
    levels = {1: (64, 128, 256, 512), 2: (64, 128, 256, 512, 768, 1024), 3: (64, 256, 512, 1024)}[
        physics.dimensions
    ]
    autoencoder = TrainingConfig(
        steps=1024 * 256,
        batch_size=64,
        optimizer=OptimizerConfig(name="psgd", learning_rate=1e-5, betas=(0.9, 0.99), max_dimension=4096),
        precision="bfloat16",
        valid_samples=1024,
        order=OrderConfig(memory=64.0),
        compile=True,
        report_every=1024,
        workers=8,
        gpus=1,
        cpus=4,
    )
    emulator = autoencoder.replace(
        steps=4096 * 64,
        batch_size=256,
        optimizer=OptimizerConfig(name="adamw", learning_rate=1e-4, betas=(0.9, 0.99)),
    )
    pixel = TransformerConfig(features=2048, blocks=16, heads=16, patch_size=(1, 16, 16))
    return SweepConfig(
        system=system,
        latent_channels=(64, 16, 4),
        autoencoder=AutoencoderConfig(channels=levels, blocks=(3,) * len(levels)),
        autoencoder_training=autoencoder,
        cache=CacheConfig(variants=4 if system == "rayleigh_benard" else 1, actors=8, gpus=1, compile=True),
        **emulator_options(TransformerConfig()),
        # The whole share of a GPU would fill its 80 GB, or not fit; recomputing blocks instead costs a third
        emulator_training=emulator.replace(accumulate=1 if physics.dimensions == 2 else 2),
        pixel=NeuralSolverConfig(network=pixel) if physics.dimensions == 2 else None,
        pixel_training=emulator.replace(workers=16, accumulate=4 if system == "euler" else 1),
        window=5,
        well="well-paper",
        cluster=ClusterConfig(gpus=16),
        solver_steps=(16,),
        contexts=(2, 3),
        evaluation=EvaluationConfig(
            sampler=SamplerConfig(),
            members=16,
            trajectories=64,
            starts=physics.starts,
            stride=physics.stride,
        ),
    )


SWEEPS = {"mini": mini, "smoke": smoke, "study": study, "ablations": ablations, "paper": paper}


def study_mini() -> OptimizerStudyConfig:
    """Four optimisers on 160 trajectories of the Euler equations, three seeds each.

    Each takes the rate that was best of three (SOAP) or four a factor of about three apart, with identity
    initialisation, another seed and 400 steps.
    """
    sweep = mini()
    adam = OptimizerConfig(name="adam")
    psgd = OptimizerConfig(name="psgd", max_dimension=256)
    soap = OptimizerConfig(name="soap", max_dimension=256)
    return OptimizerStudyConfig(
        simulation=EulerConfig(resolution=64, train=8, valid=1, test=1),
        well="well-optimizers",
        autoencoder=AutoencoderConfig(
            latent_channels=16, channels=(32, 64, 96), blocks=(1, 1, 1), patch_size=4, dropout=0.0
        ),
        training=sweep.autoencoder_training.replace(steps=300, report_every=10, valid_samples=32),
        arms=(
            ArmConfig(optimizer=adam, identity_init=False, learning_rates=(1e-3,)),
            ArmConfig(optimizer=adam, learning_rates=(1e-3,)),
            ArmConfig(optimizer=psgd, learning_rates=(1e-3,)),
            ArmConfig(optimizer=soap, learning_rates=(3e-3,)),
        ),
    )


def study_smoke() -> OptimizerStudyConfig:
    """The same study in miniature: what it computes means nothing."""
    sweep, study = smoke(), study_mini()
    return study.replace(
        simulation=sweep.simulation,
        autoencoder=sweep.autoencoder,
        training=sweep.autoencoder_training,
        seeds=(0, 1),
        well=sweep.well,
    )


STUDIES = {"mini": study_mini, "smoke": study_smoke}


def samplers_mini(
    system: str = "euler", well: str = "well", storage: str | None = None, **files: tuple[str, ...]
) -> SamplerStudyConfig:
    """Four methods of several steps at four spacings, on the models of the `mini` sweep.

    All candidates start from the same noise, so that few members are enough to distinguish them.
    """
    return SamplerStudyConfig(
        system=system,
        samplers=(
            "adams_bashforth",
            "adams_bashforth_velocity",
            "exponential_data",
            "exponential_rosenbrock",
        ),
        evaluation=mini(system, well, storage, **files).evaluation,
    )


def samplers_smoke(
    system: str = "euler", well: str = "well-smoke", storage: str | None = None, **files: tuple[str, ...]
) -> SamplerStudyConfig:
    """The same study in miniature on the models of the `smoke` sweep: what it computes means nothing."""
    sweep = smoke(system, well, storage, **files)
    return samplers_mini(system, well, storage, **files).replace(
        samplers=("adams_bashforth", "exponential_data"),
        spacings=("time", "log_snr"),
        steps=(2, 4),
        fine=SamplerConfig(steps=8),
        evaluation=sweep.evaluation,
        well=sweep.well,
    )


def samplers_paper(
    system: str = "euler", well: str = "well-paper", storage: str | None = None, **files: tuple[str, ...]
) -> SamplerStudyConfig:
    """More methods and orders on models of the `paper` preset, scored as there; four tasks share a GPU."""
    study = samplers_mini(system, well, storage, **files)
    return study.replace(
        samplers=(
            *study.samplers,
            "adams_bashforth-order2",
            "adams_bashforth_velocity-order2",
            "exponential_noise",
            "exponential_data-order3",
            "exponential_rosenbrock-order3",
            "heun",
            "euler",
        ),
        evaluation=paper(system, well, storage, **files).evaluation.replace(gpus=0.25),
        cluster=ClusterConfig(gpus=16),
    )


SAMPLERS = {"mini": samplers_mini, "smoke": samplers_smoke, "paper": samplers_paper}
