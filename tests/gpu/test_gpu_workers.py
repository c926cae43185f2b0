"""A worker of distributed training with NCCL: one process, in the wrapper that Ray Train puts around models.

`ray.train.torch.prepare_model` makes a `DistributedDataParallel` of a worker's device. A rehearsal has Gloo.
"""

import pytest
import torch.distributed
from cases import CASES, CONFIG
from lane import DEVICE
from torch.nn.parallel import DistributedDataParallel


@pytest.fixture
def group(tmp_path):
    backend = "nccl" if DEVICE.type == "cuda" else "gloo"
    torch.distributed.init_process_group(
        backend, init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1
    )
    yield backend
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def wrap(module):
    if DEVICE.type == "cuda":
        return DistributedDataParallel(module, device_ids=[DEVICE], output_device=DEVICE)
    return DistributedDataParallel(module)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_wrapped_model_trains_as_a_bare_one(device, record, group, name, accumulate):
    config = CONFIG.replace(accumulate=accumulate)
    found, position = CASES[name].train(device, config, wrap=wrap)
    assert position.step == config.steps
    torch.distributed.destroy_process_group()
    bare, _ = CASES[name].train(device, config)
    for curve in ("train/loss", "valid/loss", "valid/loss_ema"):
        record.near(f"{group}, {name}: losses", found[curve], bare[curve], 1e-3)


def test_compiled_and_recomputed_inside_the_wrapper(device, record, group):
    config = CONFIG.replace(compile=True, recompute=True, accumulate=2)
    found, _ = CASES["diffusion"].train(device, config, wrap=wrap)
    torch.distributed.destroy_process_group()
    bare, _ = CASES["diffusion"].train(device, CONFIG)
    record.near(f"{group}, diffusion compiled: losses", found["valid/loss"], bare["valid/loss"], 1e-3)
