"""The fraction of peak performance that plans go by, and where it is from."""

import json

import pytest

from lola.core.errors import DataError
from lola.workflows.forecast.cluster import ClusterConfig
from lola.workflows.forecast.utilisation import RECORDS, utilisation

H100 = ClusterConfig(gpus=8, kind="h100")


@pytest.fixture
def record(tmp_path):
    def write(**values):
        known = {
            "device": {"name": "NVIDIA H100 80GB HBM3"},
            "utilisation": {"autoencoder": 0.3, "emulator": 0.5},
        }
        (tmp_path / "h100.json").write_text(json.dumps(known | values))
        return tmp_path

    return write


def test_without_a_record_an_assumption_counts_and_says_so(tmp_path):
    found = utilisation(H100, tmp_path)
    assert (found.of("autoencoder"), found.of("emulator")) == (0.4, 0.4)
    assert str(found) == "40% of peak performance (assumed, not measured on a GPU)"
    assert "GPU" not in str(utilisation(ClusterConfig(), tmp_path))


def test_a_record_of_the_kind_of_gpu_counts(record):
    found = utilisation(H100, record())
    assert (found.of("autoencoder"), found.of("emulator")) == (0.3, 0.5)
    assert str(found) == "50%, of autoencoders 30%, of peak performance (measured on NVIDIA H100 80GB HBM3)"
    assert utilisation(H100.replace(kind="h200"), record()) == found  # of the same processor
    assert utilisation(H100.replace(kind="l40s"), record()).source == "assumed, not measured on a GPU"
    assert utilisation(H100, record(utilisation={"emulator": 0.6})).of("autoencoder") == 0.4


def test_a_configured_one_counts_first(record):
    found = utilisation(H100.replace(utilisation=0.25), record())
    assert str(found) == "25% of peak performance (--cluster.utilisation)"


@pytest.mark.parametrize(
    "wrong", [{"utilisation": {"emulator": 1.5}}, {"utilisation": 3}, {"device": "h100"}]
)
def test_a_damaged_record_is_one_error(record, wrong):
    with pytest.raises(DataError, match=r"h100\.json"):
        utilisation(H100, record(**wrong))


def test_the_record_of_a_gpu_counts_before_that_of_another_with_its_processor(record):
    folder = record()
    other = {"device": {"name": "NVIDIA H200"}, "utilisation": {"autoencoder": 0.1, "emulator": 0.2}}
    (folder / "h200.json").write_text(json.dumps(other))
    assert utilisation(H100, folder).emulator == 0.5
    assert utilisation(H100.replace(kind="h200"), folder).emulator == 0.2


def test_committed_records_are_read():
    found = utilisation(H100)
    assert found.measured
    assert found.source.startswith("measured on NVIDIA H200, autoencoders with slower steps")


def test_records_are_those_of_committed_measurements():
    """The package has its own copies: an installed one has no folder `experiments`."""
    measured = RECORDS.parents[3] / "experiments" / "results" / "gpu"
    records = sorted(measured.glob("*.json"))
    assert [path.name for path in records] == sorted(path.name for path in RECORDS.iterdir())
    for path in records:
        whole, kept = (json.loads((folder / path.name).read_text()) for folder in (measured, RECORDS))
        kept.pop("note", None)
        assert kept == {name: whole[name] for name in ("device", "utilisation")}
