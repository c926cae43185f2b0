"""The code blocks of the README, and what a test runs for each of their commands."""

import dataclasses
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]

SMALLER = (
    # What runs for minutes to hours as it stands runs on the stages of the smoke sweep
    (
        r"(sweep_compression|guide|study_\w+|train_\w+)\.py(?! smoke| paper)",
        r"\1.py smoke",
    ),
    (r"\.py paper(?!.*(--dry-run|--plan|plan\.py))(.*) --well \S+", r".py smoke\2"),
    (r"--system rayleigh_benard --space pixel", "--space pixel"),
    (r"--latent-channels 64", "--latent-channels 16"),
    (r"--latent-channels 32 8", "--latent-channels 16 8"),
    (r"-f16c32-0123abcd", "-f16c32"),
    (r"f16c32", "f8c16"),
    (
        r"--diffusion\.network\.channels 64 128 --diffusion\.network\.blocks 2 2",
        "--diffusion.network.channels 8 16 --diffusion.network.blocks 1 1",
    ),
    (
        r"--autoencoder\.patch-size 16",
        "--autoencoder.patch-size 8 --autoencoder.features 16 --autoencoder.heads 2",
    ),
    (r"--evaluation\.starts 0 16", "--evaluation.starts 0 8"),
    (
        r"--samplers heun exponential_data-order3 ddim-eta0\.5 --spacings time power-3 --steps 4 6 16",
        "--samplers heun exponential_data-order3 ddim-eta0.5 --spacings time power-3 --steps 2 4",
    ),
    (r"--simulation\.train 64", "--simulation.train 1 --simulation.resolution 16 --simulation.outputs 3"),
    (r"--emulator-training\.workers 2 8", "--emulator-training.workers 1 2"),
    (
        r"(simulate\.py (?:rayleigh_benard|turbulence_gravity_cooling))(?=\s|$)",
        r"\1 --simulation.train 1 --simulation.valid 0 --simulation.test 0 --simulation.outputs 2",
    ),
    (
        r"--simulation\.resolution 512 128 --simulation\.rayleigh 1e6 1e8 1e10",
        "--simulation.resolution 64 32 --simulation.rayleigh 1e5 1e6",
    ),
    # Where things are here
    (r"\.\.\./test/\S+gamma_1\.4\.hdf5|\.\.\./gamma_1\.4\.hdf5", "{file}"),
    (r"(emulate\.py) \.\.\.", r"\1 euler-diffusion-f8c16 {file}"),
    (r"(cache_latents\.py) \.\.\.", r"\1 euler-autoencoder-f8c16"),
    (r"(cache_latents\.py) runs:/\w+", r"\1 {autoencoder_run}"),
    (r"(emulate\.py|--emulators .*) runs:/\w+", r"\1 {emulator_run}"),
    (r"--well /data/the_well/datasets", "--well {well}"),
    (r"shear_flow --well hf://datasets/polymathic-ai", "euler_multi_quadrants_openBC"),
    (r"(compute_statistics\.py|cache_latents\.py)", r"\1 --well well-smoke"),
    (r"sqlite:////home/you/lola-storage", "sqlite:///{storage}"),
    (r"--port 5000|:5000", lambda match: match[0].replace("5000", "{mlflow_port}")),
    (r"ray start --head", "ray start --head --port=0 --dashboard-port={ray_port} --num-cpus=4"),
    (r"127\.0\.0\.1:8265", "127.0.0.1:{ray_port}"),
    (r"--folder /tmp/soak", "--folder {storage}/soak --kills 1"),
    (r"elastic\.py", "elastic.py --scenarios 'worker killed' --steps 60 --report-every 20"),
    (r"benchmark\.py scheduling.*", "benchmark.py scheduling --trials 20 --nodes 1"),
    (r"benchmark\.py data", "benchmark.py data --gigabytes 0.02 --cells 32 --steps 20 --rounds 1"),
    (r"benchmark\.py metrics", "benchmark.py metrics --lead-times 2 --cells 16 --rounds 1"),
    (
        r"benchmark\.py emulation",
        "benchmark.py emulation --models neural_solver --precisions float32 --no-simulators --rounds 1",
    ),
    (
        r"benchmark\.py(?= --threads|$)",
        "benchmark.py --networks transformer --sizes demo --precisions float32 --rounds 1",
    ),
    # What no CPU has, or what is long by itself
    (r" --actors 8 --gpus 1", " --actors 2"),
    (r" --members 32 --states 50", " --members 3 --states 9"),
    (r"--start 40", "--start 20"),
    (r" --inference\.graphs", ""),
)
"""Pairs of a pattern and what replaces it, applied one after another."""

NOT_RUN = {
    r"make (demo|test|simulators)$": "installs, and runs what is run here",
    r"source ": "the environment of the tests is active",
    r"pip install ": "installed before, or from a package index",
    r"export CC=": "belongs to an installation",
    r"hf://": "needs the network",
}
"""Patterns of commands that no test runs, and why."""


@dataclasses.dataclass(frozen=True)
class Block:
    """A code block of a README.

    Arguments:
        line: The line that it begins at.
        language: `console` or `python`.
        text: Its content.
    """

    line: int
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Its commands, without comments."""
        lines = (re.sub(r"\s+#.*", "", line).strip() for line in self.text.splitlines())
        return [line for line in lines if line]


def blocks(path: Path = ROOT / "README.md") -> list[Block]:
    """The console and Python blocks of a README, in order."""
    text = path.read_text()
    found = re.finditer(r"^```(console|python)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [Block(text.count("\n", 0, match.start()) + 1, match[1], match[2]) for match in found]


def reason_not_to_run(command: str) -> str | None:
    """Why no test runs a command; None if one does."""
    return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, command)), None)


def smaller(command: str) -> str:
    """What a test runs instead of a command, with `{names}` still to be filled in."""
    for pattern, replacement in SMALLER:
        command = re.sub(pattern, replacement, command)
    return command
