import pytest
import torch

from lola.training import peak as module
from lola.training.peak import GPUS, device_kind, emulates_bfloat16, gpu_kind, matmul_rate, peak_flops


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA A100 80GB PCIe", "a100-80gb"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA GeForce RTX 4090", None),
    ],
)
def test_kinds_of_gpus_are_found_by_their_names(name, kind):
    assert gpu_kind(name) == kind
    assert kind is None or kind in GPUS


def test_a_processor_is_measured():
    cpu = torch.device("cpu")
    assert device_kind(cpu) == "cpu"
    found = sorted(matmul_rate(cpu, "float32", size=256) for _ in range(3))[1]
    assert 1e8 < found < 1e13
    assert peak_flops(cpu, "float32") > found / 20


@pytest.mark.parametrize(("half", "emulated"), [(4.0, True), (9.0, False), (30.0, False)])
def test_emulated_arithmetic_is_detected_by_its_rate(monkeypatch, half, emulated):
    rates = {"bfloat16": half, "float32": 10.0}
    threads = torch.get_num_threads()
    monkeypatch.setattr(module, "matmul_rate", lambda device, precision, size: rates[precision])
    assert emulates_bfloat16() is emulated
    assert torch.get_num_threads() == threads
