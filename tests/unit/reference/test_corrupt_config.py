"""Configurations of published runs that are damaged anywhere: an error of ours, or a network."""

import shutil

import pytest
from corruption import damaged_copies
from oracles import ORACLES

from lola.core.errors import LolaError
from lola.reference import load_published
from lola.reference.dataset import read_system
from lola.reference.published_run import read_run


@pytest.mark.parametrize("name", ["diffusion", "autoencoder_2d"])
def test_a_damaged_configuration_is_an_error_or_a_network(tmp_path, name):
    folder, refused = tmp_path / "run", 0
    shutil.copytree(ORACLES / name, folder)
    path = folder / "config.yaml"
    content = path.read_bytes()
    for what, copy in damaged_copies(content, 30, kinds="flip flip cut"):
        path.write_bytes(copy)
        try:
            read_system(read_run(folder))
            assert load_published(folder), what
        except LolaError:
            refused += 1
    assert refused > 5
