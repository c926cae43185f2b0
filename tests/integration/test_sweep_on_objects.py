"""The smoke sweep on an object store: killed on the way and started again, it ends as it does in a folder.

The store is a server of the S3 protocol on this machine. Runs are tracked in a database next to it.
"""

import fsspec
import pytest
from objectstore import environment
from planted import SECRETS
from sweeps import finish, kill_when, metrics, start
from upath import UPath

from lola.storage.inventory import unknown_files
from lola.storage.remote import AnyPath, find_files, read_bytes

pytestmark = pytest.mark.long
BUCKET = "sweeps"


@pytest.fixture
def storage(object_store, monkeypatch) -> UPath:
    """A root in a bucket, for this process too."""
    for name, value in environment(object_store).items():
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3", use_listings_cache=False).mkdir(BUCKET)
    yield UPath(f"s3://{BUCKET}/results", use_listings_cache=False)
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def manifests(storage: AnyPath) -> dict[str, str]:
    """The versions of all manifests."""
    names = [path for path in find_files(storage) if path.name == "manifest.json"]
    return {str(path): path.fs.info(path.path)["ETag"] for path in names}


def test_a_sweep_on_an_object_store_ends_as_in_a_folder(
    undisturbed, object_store, storage, tmp_path, ray_folder
):
    variables = environment(object_store) | {
        "LOLA_STORAGE": str(storage),
        "LOLA_CACHE": str(tmp_path / "cache"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/runs.db",
        "RAY_TMPDIR": str(ray_folder),
        **{name: value for name, value in SECRETS.items() if name.startswith("AWS_")},
    }

    def begin():
        return start(tmp_path, **variables)

    def trained(kind):
        return lambda: any((storage / kind).glob("*/checkpoints/step-000000*"))

    for moment in (trained("autoencoders"), trained("emulators")):
        kill_when(begin(), moment, pause=1.0)
    process = begin()
    output = finish(process)
    assert process.returncode == 0, output[-4000:]
    assert f"report: {storage}/reports/" in output

    expected, found = metrics(undisturbed[0]), metrics(storage)
    assert expected.keys() == found.keys()
    assert all(found[key] == pytest.approx(value, rel=1e-5, nan_ok=True) for key, value in expected.items())
    files = find_files(storage)
    assert not any("checkpoints" in path.parts or path.name == ".lease" for path in files)
    assert unknown_files(storage) == []
    assert not any(secret.encode() in read_bytes(path) for secret in SECRETS.values() for path in files)
    (page,) = storage.glob("reports/*/report.html")
    assert b"data:image/png;base64," in read_bytes(page)
    assert not any((tmp_path / "cache" / "tmp").iterdir()), "temporary files of killed processes remain"

    before = manifests(storage)
    process = begin()
    output = finish(process, 120)
    assert process.returncode == 0, output[-4000:]
    assert manifests(storage) == before
