"""The rights of AWS's nodes to their bucket: those that storage on a simulated S3 asks for, and no more."""

import fnmatch
import json
import os
import re

import fsspec
import pytest
from aiobotocore.client import AioBaseClient
from configurations import CLUSTER, fill
from objectstore import credentials

from lola.distributed.jobs.checkpoints import CheckpointStore
from lola.storage.leases import lease
from lola.storage.remote import find_files, local_copy
from lola.storage.stages import atomic_path, manifests, resolve_storage, write_json

BUCKET = "lola-rights"
ACTIONS = {
    "HeadBucket": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "HeadObject": "GetObject",
    "GetObject": "GetObject",
    "DeleteObject": "DeleteObject",
    "DeleteObjects": "DeleteObject",
    "PutObject": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "AbortMultipartUpload": "AbortMultipartUpload",
}
# Of MLflow's client, and of an upload that fails.
ELSEWHERE = {"s3:GetBucketLocation", "s3:AbortMultipartUpload"}


@pytest.fixture
def asked(object_store, monkeypatch):
    """The actions that were asked for, each with its resource."""
    credentials(monkeypatch, object_store)
    fsspec.filesystem("s3", use_listings_cache=False).mkdir(BUCKET)
    found: set[tuple[str, str]] = set()
    call = AioBaseClient._make_api_call

    async def record(client, operation, arguments):
        action = ACTIONS[operation]
        keys = [each["Key"] for each in arguments.get("Delete", {}).get("Objects", [])]
        for key in keys or [arguments.get("Key", "")]:
            resource = "" if action == "ListBucket" else f"/{key}"
            found.add((f"s3:{action}", f"arn:aws:s3:::{arguments['Bucket']}{resource}"))
        return await call(client, operation, arguments)

    monkeypatch.setattr(AioBaseClient, "_make_api_call", record)
    yield found
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def several(value):
    return value if isinstance(value, list) else [value]


def allowed(policy, action, resource):
    return any(
        action in several(statement["Action"])
        and any(fnmatch.fnmatchcase(resource, pattern) for pattern in several(statement["Resource"]))
        for statement in policy["Statement"]
    )


def test_they_are_those_that_storage_takes(asked, tmp_path, monkeypatch):
    monkeypatch.setenv("LOLA_CACHE", str(tmp_path / "cache"))
    launcher = fill(CLUSTER / "aws" / "cluster.yaml", LOLA_BUCKET=BUCKET)
    (url,) = re.findall(r"--env=LOLA_STORAGE=(\S+)", launcher)
    root = resolve_storage(url)
    with lease(root / "emulators" / "a"), atomic_path(root / "emulators" / "a" / "large") as partial:
        partial.touch()
        os.truncate(partial, 2 * 50 * 2**20 + 1)  # more than is uploaded in one request
    assert local_copy(root / "emulators" / "a" / "large").stat().st_size > 100 * 2**20
    write_json(root / "emulators" / "a" / "manifest.json", {})
    assert len(manifests(root, "emulators")) == 1

    store = CheckpointStore(f"{url}/emulators/a")  # as Ray Train uses it
    system, folder = store.arrow(), f"{store.parent}/{store.NAME}/step-1"
    system.create_dir(folder)
    with system.open_output_stream(f"{folder}/optimizer.pt") as file:
        file.write(b"state")
    assert system.get_file_info(f"{folder}/optimizer.pt").size == 5
    system.delete_dir(folder)
    store.remove()
    assert len(find_files(root)) == 2

    policy = json.loads(fill(CLUSTER / "aws" / "data-policy.json", LOLA_BUCKET=BUCKET))
    assert {each for each in asked if not allowed(policy, *each)} == set()
    actions = {action for statement in policy["Statement"] for action in several(statement["Action"])}
    needed = {action for action, _ in asked} | ELSEWHERE
    assert {action for action in actions if action.startswith("s3:")} == needed
    assert not allowed(policy, "s3:PutObject", f"arn:aws:s3:::{BUCKET}/the-well/a.hdf5")
    assert not allowed(policy, "s3:PutObject", "arn:aws:s3:::another/results/a")
