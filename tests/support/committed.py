"""Finished stages of models that were never trained."""

import torch

from lola.storage.stages import WEIGHTS, Stage
from lola.training.checkpoint import save_weights


def commit(root, kind, what, config, sizes, **details):
    torch.manual_seed(0)
    stage = Stage(
        root=root, kind=kind, system="euler", what=what, config=config, inputs=details.pop("inputs", {})
    )
    stage.folder.mkdir(parents=True)
    save_weights(stage.folder / WEIGHTS, config.build(**sizes))
    stage.commit(model={"type": type(config).__name__, **config.to_json()}, sizes=sizes, **details)
    return stage
