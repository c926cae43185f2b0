"""Keep the best models of a finished sweep with the source: `export_models.py [--option value ...]`."""

from lola.core.cli import launch_alone
from lola.core.waiting import loading
from lola.workflows.export_config import ExportConfig


def main(config: ExportConfig) -> None:
    """Write the best emulator of each kind, its autoencoder and initial states into a folder, for `emulate.py
    --pretrained`."""
    with loading():
        from lola.workflows.pretrained import export_models

    export_models(config, print)


if __name__ == "__main__":
    launch_alone(main, ExportConfig)
