"""Roll out for longer than any trajectory: `long_rollouts.py EMULATOR WELL_FILE [--option value ...]`."""

from lola.core.cli import launch_alone
from lola.core.waiting import loading
from lola.evaluation.long_rollout_config import LongRolloutConfig


def main(config: LongRolloutConfig) -> None:
    """Compare rollouts 5 times as long as trajectories with the statistically stationary flow: one-point
    distributions (Wasserstein distance), time-mean spectra, heat flux, and the share that is stable."""
    with loading():
        from lola.core.config import require
        from lola.core.strict_json import dumps
        from lola.evaluation.long_rollouts import compare_long_rollouts, describe
        from lola.evaluation.tables.formats import plain_markdown
        from lola.storage.remote import is_same_file, require_new, to_path
        from lola.storage.stages import atomic_path

    path = to_path(config.output)
    inputs = filter(None, (config.initial, config.truth))
    require(
        not any(is_same_file(path, to_path(each)) for each in inputs),
        f"--output {path} is a file that is read, which would be lost; give another --output",
    )
    require_new(path, config.overwrite)
    found = compare_long_rollouts(config, print)
    with atomic_path(path) as tmp_path:
        tmp_path.write_text(dumps(found, indent=1) + "\n")
    print(plain_markdown(describe(found)))
    print(f"numbers: {path}")


if __name__ == "__main__":
    launch_alone(main, LongRolloutConfig)
