import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lola.core.errors import DataError, StorageError
from lola.training import checkpoint
from lola.training.checkpoint import (
    Position,
    copy_weights,
    load_checkpoint,
    load_weights,
    read_position,
    save_checkpoint,
    save_weights,
)

FILES = ("model.safetensors", "optimizer.pt", "position.json")


@pytest.fixture
def saved(tmp_path):
    model = nn.Linear(3, 3)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    save_checkpoint(tmp_path, model, optimizer, Position(step=7, skipped=2))
    return tmp_path, model, optimizer


def damaged(whole):
    yield b""
    yield whole[: len(whole) // 2]
    yield b"\0" * len(whole)
    yield whole[: len(whole) // 2] + b"\0" * (len(whole) - len(whole) // 2)


@pytest.mark.parametrize("name", FILES)
def test_a_checkpoint_with_a_damaged_file_is_one_error(saved, name):
    folder, model, optimizer = saved
    whole = (folder / name).read_bytes()
    for contents in (None, *damaged(whole)):
        (folder / name).unlink() if contents is None else (folder / name).write_bytes(contents)
        with pytest.raises(DataError, match=rf"checkpoint {folder} is corrupt .*run again") as caught:
            load_checkpoint(folder, model, optimizer)
        assert len(str(caught.value).splitlines()) == 1
    (folder / name).write_bytes(whole)
    assert load_checkpoint(folder, model, optimizer) == Position(step=7, skipped=2)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt"])
def test_earlier_checkpoints_without_checksums_are_checked_as_far_as_they_can_be(saved, name):
    folder, model, optimizer = saved
    position = json.loads((folder / "position.json").read_text())
    del position["files"]
    (folder / "position.json").write_text(json.dumps(position))
    assert load_checkpoint(folder, model, optimizer).step == 7
    whole = (folder / name).read_bytes()
    for contents in (b"", whole[: len(whole) // 2]):
        (folder / name).write_bytes(contents)
        with pytest.raises(DataError, match=r"corrupt|no readable weights"):
            load_checkpoint(folder, model, optimizer)
    (folder / name).unlink()
    with pytest.raises(DataError, match="is corrupt"):
        read_position(folder)


def test_weights_that_are_cut_name_the_file_and_the_remedy(saved):
    folder, model, _ = saved
    path = folder / "model.safetensors"
    for contents in damaged(path.read_bytes()):
        if len(contents) < 20 or not contents[0]:
            path.write_bytes(contents)
            with pytest.raises(DataError, match=rf"{path} has no readable weights .*run what trained it"):
                load_weights(path, model)


def test_errors_of_programs_are_not_taken_for_those_of_files(saved, monkeypatch):
    folder, model, _ = saved

    def wrong(path):
        raise TypeError("a program's")

    monkeypatch.setattr(checkpoint, "load_file", wrong)
    with pytest.raises(TypeError, match="a program's"):
        load_weights(folder / "model.safetensors", model)


@pytest.mark.parametrize("nth", range(4))
def test_a_full_disk_at_each_file_is_one_error(saved, monkeypatch, nth):
    folder, model, optimizer = saved
    count, full = [0], OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for owner, name in ((Path, "write_bytes"), (torch, "save"), (Path, "write_text")):
        genuine = getattr(owner, name)

        def failing(*arguments, genuine=genuine, **options):
            count[0] += 1
            if count[0] == nth + 1:
                raise full
            return genuine(*arguments, **options)

        monkeypatch.setattr(owner, name, failing)
    arguments = (folder, model, optimizer, Position(step=8), nn.Linear(2, 2))
    with pytest.raises(StorageError, match=rf"cannot write {folder} \(No space left.*--storage"):
        save_checkpoint(*arguments)


def test_a_full_disk_is_recognised_by_its_error_number():
    with pytest.raises(OSError, match="No space left") as error:
        save_weights(Path("/dev/full"), nn.Linear(3, 3))
    assert error.value.errno == errno.ENOSPC


def test_weights_with_other_values_are_corrupt(tmp_path):
    """A damaged disk or copy changes values, not sizes."""
    model = nn.Linear(8, 8)
    path = tmp_path / "model.safetensors"
    save_weights(path, model)
    load_weights(path, model)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{path} is corrupt .*; remove it, and run what trained it again"):
        load_weights(path, model)
    save_file(model.state_dict(), path)  # as earlier versions, and others, write them
    load_weights(path, model)


def test_weights_of_the_same_names_are_copied_and_others_are_listed(tmp_path):
    source = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(3, 1)})
    target = nn.ModuleDict({"a": nn.Linear(2, 3), "c": nn.Linear(3, 1)})
    kept = {name: value.clone() for name, value in target.state_dict().items()}
    save_weights(tmp_path / "model.safetensors", source)
    transfer = copy_weights(tmp_path / "model.safetensors", target)
    assert (transfer.copied, transfer.new) == (("a.weight", "a.bias"), ("c.weight", "c.bias"))
    assert set(transfer.unused) == {"b.weight", "b.bias"}
    assert torch.equal(target["a"].weight, source["a"].weight)
    assert torch.equal(target["c"].weight, kept["c.weight"])
    line = transfer.describe("solver")
    assert line.startswith("starts from 2 parameters of solver; 2 new (c.weight, c.bias); 2 unused (b.")


def test_a_few_weights_may_have_other_shapes(tmp_path):
    """Such as the maps of other fields, of a model of another system."""
    source = nn.ModuleDict({"in": nn.Linear(2, 8), "body": nn.Linear(8, 8)})
    target = nn.ModuleDict({"in": nn.Linear(3, 8), "body": nn.Linear(8, 8)})
    kept = target["in"].weight.clone()
    save_weights(tmp_path / "model.safetensors", source)
    transfer = copy_weights(tmp_path / "model.safetensors", target)
    assert transfer.misshapen == ("in.weight",)
    assert torch.equal(target["in"].weight, kept)
    assert torch.equal(target["in"].bias, source["in"].bias)
    assert torch.equal(target["body"].weight, source["body"].weight)
    line = transfer.describe("euler")
    assert line == "starts from 3 parameters of euler; 1 new, of another shape there (in.weight)"


@pytest.mark.parametrize(
    ("target", "message"),
    [(nn.Linear(2, 4), r"weight has shape \(3, 2\) there, not \(4, 2\)"),
     (nn.ModuleDict({"c": nn.Linear(2, 3)}), "no parameter has the same name")],
)  # fmt: skip
def test_weights_of_another_network_are_not_copied(tmp_path, target, message):
    save_weights(tmp_path / "model.safetensors", nn.Linear(2, 3))
    kept = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(DataError, match=message):
        copy_weights(tmp_path / "model.safetensors", target)
    assert all(torch.equal(value, kept[name]) for name, value in target.state_dict().items())


@pytest.mark.parametrize("fused", [True, None])
def test_a_checkpoint_of_another_device_keeps_this_device_s_way_to_step(tmp_path, fused):
    """Adam is one kernel on GPUs and several operations on CPUs; both go on from the other's state."""

    def take_step(model, optimizer):
        model(torch.ones(3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    torch.manual_seed(0)
    model = nn.Linear(3, 3)
    whole = torch.optim.Adam(model.parameters(), fused=fused)
    take_step(model, whole)
    save_checkpoint(tmp_path, model, whole, Position(step=1))
    resumed = nn.Linear(3, 3)
    optimizer = torch.optim.Adam(resumed.parameters(), fused=None if fused else True)
    load_checkpoint(tmp_path, resumed, optimizer)
    assert [group["fused"] for group in optimizer.param_groups] == [None if fused else True]
    for each in ((model, whole), (resumed, optimizer)):
        take_step(*each)
    for found, expected in zip(resumed.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(found, expected)
