"""The benchmark on a GPU, rehearsed on the CPU with tiny models, and its arithmetic."""

import functools
import json
import math
import time

import pytest
import torch
from benchmarks import gpu
from benchmarks.figures import Figure, Outcome, table
from benchmarks.gpu_target import OutOfTime, Target, limit, shrink
from benchmarks.gpu_training import mfu, operations
from benchmarks.paper import MODELS
from benchmarks.profiling import Piece, Profile, profile, union
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lola.core.errors import ConfigError
from lola.core.seeding import SampleGenerator
from lola.data.state import Batch
from lola.training.counting import count_step

CPU = torch.device("cpu")
STEP = "Optimizer.step#AdamW.step"


@pytest.mark.parametrize(
    ("name", "within", "group"),
    [
        ("void pytorch_flash::flash_fwd_kernel<Traits>", ["aten::_flash_attention_forward"], "attention"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16", [], "attention"),
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_nhwc", ["aten::cudnn_convolution"], "convolutions"),
        ("void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm>", ["aten::mm"], "products"),
        ("nvjet_hsh_128x256_64x4_2x1_v_bz_TNT", ["aten::addmm", "aten::linear"], "products"),
        (
            "void at::native::vectorized_layer_norm_kernel<float>",
            ["aten::native_layer_norm"],
            "normalisation",
        ),
        ("triton_per_fused_add_native_layer_norm_silu_3", ["Torch-Compiled Region: 0/0"], "normalisation"),
        ("triton_poi_fused__to_copy_convolution_silu_7", ["Torch-Compiled Region: 0/0"], "element-wise"),
        ("void at::native::elementwise_kernel<128>", ["aten::copy_", "aten::conv2d"], "data movement"),
        ("Memcpy HtoD (Pinned -> Device)", ["aten::copy_", "aten::to"], "data movement"),
        ("void at::native::multi_tensor_apply_kernel<4>", ["aten::_fused_adamw_", STEP], "optimiser"),
        ("void cutlass::gemm", ["aten::mm", STEP], "optimiser"),
        ("void at::native::lpnorm_cleanup", ["aten::_foreach_norm"], "optimiser"),
        ("void at::native::vectorized_elementwise_kernel<4>", ["aten::silu"], "element-wise"),
        ("distribution_elementwise_grid_stride_kernel", ["aten::normal_"], "element-wise"),
    ],
)
def test_work_is_grouped_by_the_names_of_kernels_and_operations(name, within, group):
    assert Piece(name, tuple(within), 1.0).group == group


def test_shares_are_of_the_span_and_add_up_to_one():
    pieces = [Piece("nvjet_a", (), 3.0), Piece("flash_fwd", (), 1.0), Piece("memset", (), 2.0)]
    assert union([(0, 3), (2, 4), (6, 8), (6.5, 7)]) == 6
    shares = Profile(pieces, span=8.0, busy=6.0).shares()
    assert shares["products"] == pytest.approx(3 / 8)
    assert shares["attention"] == pytest.approx(1 / 8)
    assert shares["data movement"] == pytest.approx(2 / 8)
    assert shares["gaps"] == pytest.approx(2 / 8)
    assert sum(shares.values()) == pytest.approx(1)


def test_a_step_on_the_cpu_is_profiled():
    network = nn.Sequential(nn.Conv2d(4, 32, 3), nn.GroupNorm(4, 32), nn.Flatten(), nn.Linear(32 * 36, 64))
    optimizer = torch.optim.AdamW(network.parameters())
    x = torch.randn(8, 4, 8, 8)

    def step():
        network(x).square().mean().backward()
        optimizer.step()

    step()
    shares = profile(step, CPU).shares()
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares[group] for group in ("convolutions", "normalisation", "products", "optimiser")) > 0
    assert shares["attention"] == shares["gaps"] == 0


@pytest.mark.parametrize("name", ["rayleigh_benard autoencoder f32c64", "euler neural_solver f32c64"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_operations_are_those_that_torch_counts_in_a_step(name, accumulate):
    trained = shrink(MODELS[name])
    training = trained.of_a_gpu.replace(accumulate=accumulate)
    parameters = trained.sizes.get("parameters", 0)
    build = functools.partial(trained.model.build, **trained.sizes)
    counts = count_step(build, trained.shape, parameters, "float32")
    model, part = build(), training.batch_size // accumulate
    batch = Batch(states=torch.randn(part, *trained.shape), parameters=torch.randn(part, parameters))
    with FlopCounterMode(display=False) as counter:
        for _ in range(accumulate):
            model.loss(batch, SampleGenerator([(i,) for i in range(part)]))[0].backward()
    expected = counter.get_total_flops()
    if "window" in trained.sizes:  # torch does not count attention on CPUs: two products, 2.5 times backwards
        tokens, network = math.prod(trained.shape[1:]), trained.model.network
        expected += 3.5 * 4 * tokens**2 * network.features * network.blocks * training.batch_size
    assert operations(counts, training) == pytest.approx(expected, rel=1e-3)


def test_utilisation_is_that_of_the_measured_peak():
    assert mfu(flops=3e12, seconds=0.01, peak=6e14) == pytest.approx(0.5)


def test_goals_are_met_or_missed():
    found = [
        Figure("MFU", 0.5, "%", least=0.55),
        Figure("a step", 12.0, "ms"),
        Figure("first step", 59.0, "s", most=60.0),
    ]
    assert [figure.met for figure in found] == [False, None, True]
    text = table([Outcome("train", 1.0, found), Outcome("other", 2.0, error="OutOfMemoryError: 3 GB")])
    assert "| train | MFU | 50 % | ≥ 55 % | missed |  |" in text
    assert "| train | first step | 59 s | ≤ 60 s | met |  |" in text
    assert "| other | failed |  |  |  | OutOfMemoryError: 3 GB |" in text


def test_what_fails_is_one_line_and_the_next_case_goes_on():
    written, said = [], []

    def fine(target):
        yield Figure("a", 1.0)

    def broken(target):
        yield Figure("a", 2.0)
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 3 GiB")

    gpu.run(
        Target(CPU),
        {"broken": broken, "fine": fine},
        1.0,
        lambda target, outcomes, waiting: written.append(
            ([each.to_json() for each in outcomes], list(waiting))
        ),
        said.append,
    )
    assert [waiting for _, waiting in written] == [["fine"], []]
    first, second = written[-1][0]
    assert first["error"] == "OutOfMemoryError: CUDA out of memory."
    assert first["figures"]["a"]["value"] == 2.0
    assert "error" not in second
    assert len(said) == 2


def test_a_case_that_takes_too_long_is_stopped_and_no_other_begins():
    def endless(target):
        yield Figure("a", 1.0)
        while True:
            time.sleep(0.01)

    started = time.monotonic()
    outcomes = gpu.run(
        Target(CPU), {"endless": endless, "next": endless}, 0.3 / 60, lambda *args: None, print
    )
    assert time.monotonic() - started < 60
    (outcome,) = outcomes
    assert outcome.error.startswith("stopped after")
    assert outcome.figures


def test_limits_of_time_end_with_their_context():
    with pytest.raises(OutOfTime), limit(0.05):
        time.sleep(5)
    with limit(0.05):
        pass
    time.sleep(0.1)


def test_without_a_gpu_the_benchmark_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="sees no CUDA device here; rehearse with --device cpu --small"):
        gpu.main([])
    with pytest.raises(ConfigError, match="no case has these words"):
        gpu.main(["--device", "cpu", "--only", "nothing"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_rehearsal_measures_every_kind_of_case(tmp_path):
    arguments = ["--device", "cpu", "--small", "--output", str(tmp_path), "--minutes", "5", "--only"]
    gpu.main([*arguments, "neural_solver f32c64, eager"])
    result = json.loads((tmp_path / "cpu-small.json").read_text())
    assert (tmp_path / "cpu-small.md").read_text().count("| train euler neural_solver f32c64, eager |") > 10
    cases = {case["name"]: case["figures"] for case in result["cases"]}
    assert not [case for case in result["cases"] if "error" in case]
    assert list(cases) == [
        "peak",
        "emulate euler neural_solver f32c64, eager",
        "train euler neural_solver f32c64, eager",
    ]
    trained = {
        name: figure["value"] for name, figure in cases["train euler neural_solver f32c64, eager"].items()
    }
    seconds = trained["a step"] / 1e3
    peak = 1e12 * cases["peak"]["product in float32"]["value"]
    assert trained["samples"] == pytest.approx(4 / seconds)
    assert trained["MFU"] == pytest.approx(1e12 * trained["operations"] / seconds / peak)
    shares = [value for name, value in trained.items() if name.startswith("share of")]
    assert sum(shares) == pytest.approx(1)
    emulated = {name: figure["value"] for name, figure in list(cases.values())[1].items()}
    gain = emulated["a state of one member"] / emulated["a state of a member of 2"]
    assert emulated["gain of a batch"] == pytest.approx(gain)
    with pytest.raises(Exception, match="overwrite"):
        gpu.main([*arguments, "neural_solver f32c64, eager"])
