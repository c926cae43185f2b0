"""The code blocks of the READMEs, and what a test runs for each of their commands."""

import dataclasses
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from lola.core import cli

ROOT = Path(__file__).parents[2]
READMES = (
    ROOT / "README.md",
    *(
        ROOT / folder / "README.md"
        for folder in ("experiments", "lola", "dashboards", "tests/gpu", "tests/oracles", "cluster")
    ),
    *sorted((ROOT / "cluster").glob("*/README.md")),
)
RUN = tuple(ROOT / folder / "README.md" for folder in ("experiments", ".", "lola", "dashboards"))
"""Those whose blocks are run, in this order: the first makes the stages that the others name."""

SMALLER = (
    # What runs for minutes to hours as it stands runs on the stages of the smoke sweep
    (
        r"(sweep_compression|guide|study_\w+|train_\w+)\.py(?! smoke| paper)",
        r"\1.py smoke",
    ),
    # of one model: the storage root has many by now
    (r"study_samplers\.py smoke(?!.* --emulators)", "study_samplers.py smoke --emulators {emulator_run}"),
    (r"\.py paper(?!.*(--plan|plan\.py))(.*) --well \S+", r".py smoke\2"),
    (r"--system rayleigh_benard --space pixel", "--space pixel"),
    (r"--seeds-at 32", "--seeds-at 16"),
    (r"--latent-channels 64", "--latent-channels 16"),
    (r"--latent-channels 32 8", "--latent-channels 16 8"),
    (r"-f8c32-0123abcd", "-f8c32"),
    # Of that name there are several by now
    (r"--emulators euler-diffusion-f8c32 runs:/\w+", "--emulators {emulator_run}"),
    (r"f8c32", "f8c16"),
    (
        r"--diffusion\.network\.channels 64 128 --diffusion\.network\.blocks 2 2",
        "--diffusion.network.channels 8 16 --diffusion.network.blocks 1 1",
    ),
    (
        r"--autoencoder\.patch-size 8",
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
    (r"gray_scott\.py mine", "gray_scott.py mine 6"),
    # Where things are here
    (r"\.\.\./test/\S+gamma_1\.4\.hdf5|\.\.\./gamma_1\.4\.hdf5", "{file}"),
    (r"(cache_latents\.py) \.\.\.", r"\1 euler-autoencoder-f8c16"),
    (r"(cache_latents\.py) runs:/\w+", r"\1 {autoencoder_run}"),
    (r"(--crps-ensemble\.warm-start) runs:/\w+", r"\1 {ensemble_run}"),
    (r"(--autoencoder\.warm-start) runs:/\w+", r"\1 {autoencoder_run}"),
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
    (r"benchmark\.py scheduling( --trials \d+)?", "benchmark.py scheduling --trials 20 --nodes 1"),
    (r"benchmark\.py data", "benchmark.py data --gigabytes 0.02 --cells 32 --steps 20 --rounds 1"),
    (r"benchmark\.py reading", "benchmark.py reading --gigabytes 0.01 --cells 16 --steps 20 --rounds 1"),
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
    r"import_data\.py": "of files that a reader has; test_importing.py imports such files",
    r"long_rollouts\.py": "of a model of convection, as test_long_rollouts.py pretends one",
    r"^(mkdir|umask|ss|ray stop|ray job stop) ?": "an administrator's, or would end what runs here",
    r"grafana|^prometheus": "test_dashboards.py starts Prometheus; nothing starts Grafana",
}
"""Patterns of commands that no test runs, and why."""


@dataclasses.dataclass(frozen=True)
class Block:
    """A code block of a README.

    Arguments:
        path: The README.
        line: The line that it begins at.
        language: `console`, `python` or `text`; that of indented blocks is `console`.
        text: Its content.
    """

    path: Path
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        """README and line, for people."""
        return f"{self.path.parent.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """Its commands, without comments; lines that end in a backslash are joined."""
        text = re.sub(r"\\\n\s*", "", self.text)
        lines = (re.sub(r"(^|\s+)#.*", "", line).strip() for line in text.splitlines())
        return [line for line in lines if line]


def blocks(path: Path) -> list[Block]:
    """The code blocks of a README, in order."""
    text = path.read_text()
    fenced = re.finditer(r"^```(console|python|text)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    indented = re.finditer(r"(?:^    \S.*\n(?:^        .*\n)*)+", text, re.MULTILINE)
    found = [(match.start(), match[1], match[2]) for match in fenced]
    inside = [match.span() for match in re.finditer(r"^```.*?^```", text, re.MULTILINE | re.DOTALL)]
    found += [
        (match.start(), "console", match[0])
        for match in indented
        if not any(start <= match.start() < end for start, end in inside)
    ]
    return [Block(path, text.count("\n", 0, start) + 1, *rest) for start, *rest in sorted(found)]


def console_commands(path: Path) -> list[str]:
    """The commands of a README's blocks that a shell takes, whether a test runs them or not."""
    return [
        command
        for block in blocks(path)
        if block.language in ("console", "text")
        for command in block.commands
    ]


def inline_commands(path: Path) -> list[str]:
    """The programs of `experiments/` that a README names in its text, with options."""
    return re.findall(r"`(python experiments/[^`]*--[^`]+)`", path.read_text())


def arguments_of(command: str) -> tuple[str, list[str]] | None:
    """The program of `experiments/` that a command starts, also on a cluster, and its arguments."""
    match = re.search(r"python3? (?:\S*/)?experiments/(\w+\.py)(.*)", command)
    if match is None:
        return None
    return match[1], shlex.split(re.sub(r"\s[|>&;].*", "", match[2]))


def parse_options(program: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    """The configuration that a program of `experiments/` would run; nothing is run.

    Raises:
        SystemExit: The command line is refused, or asks for help.
    """
    seen: list[object] = []
    for name in ("launch", "launch_alone"):
        real = getattr(cli, name)
        monkeypatch.setattr(
            cli, name, lambda main, *rest, _real=real, **more: _real(_described(main, seen), *rest, **more)
        )
    path = ROOT / "experiments" / program
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    runpy.run_path(str(path), run_name="__main__")
    return seen[0]


def _described(main, seen: list[object]):
    """What only records the configuration, with the description of a program."""

    def record(config: object) -> None:
        seen.append(config)

    record.__doc__ = main.__doc__
    return record


def reason_not_to_run(command: str) -> str | None:
    """Why no test runs a command; None if one does."""
    return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, command)), None)


def smaller(command: str) -> str:
    """What a test runs instead of a command, with `{names}` still to be filled in."""
    for pattern, replacement in SMALLER:
        command = re.sub(pattern, replacement, command)
    return command


def paths_named(path: Path) -> list[str]:
    """The files and folders of this repository that a README names, by links or in backticks.

    Paths are relative to the README or to the root; those that begin with no folder or file of either are of
    something else, such as a storage root.
    """
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    links = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    quoted = [
        name
        for name in re.findall(r"`(\w[\w.*/-]*)`", text)
        if ("/" in name or name.endswith((".py", ".md", ".sh", ".toml", ".cff")))
        and any((folder / name.split("/")[0]).exists() for folder in (path.parent, ROOT))
    ]
    return links + quoted


def exists(name: str, path: Path) -> bool:
    """Whether a path that a README names exists, and the heading of a link does."""
    name, _, heading = name.partition("#")
    found = [
        each
        for folder in (path.parent, ROOT)
        for each in ([path] if not name else folder.glob(name.strip("/")))
    ]
    if not found or not heading:
        return bool(found)
    titles = re.findall(r"^#+ (.*)", found[0].read_text(), re.MULTILINE)
    return heading in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
