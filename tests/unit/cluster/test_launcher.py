"""`ray up` configurations: Ray's own validation, and on a simulated AWS the nodes that they start."""

import json
from pathlib import Path

import boto3
import botocore.client
import pytest
import yaml
from configurations import CLUSTER, LAUNCHERS, POLICIES, fill
from moto import mock_aws
from ray.autoscaler._private.util import prepare_config, validate_config

AWS = CLUSTER / "aws"
REGION = "us-east-2"


def launcher(path: Path, **values: str) -> dict:
    config = prepare_config(yaml.safe_load(fill(path, **values)))
    validate_config(config)
    return config


@pytest.fixture(params=LAUNCHERS, ids=lambda path: path.parent.name)
def config(request):
    return launcher(request.param)


def test_each_cloud_has_one():
    assert [path.parent.name for path in LAUNCHERS] == ["aws", "gcp"]


def test_validation_is_no_formality(config):
    del config["head_node_type"]
    with pytest.raises(ValueError, match="head_node_type"):
        validate_config(config)


def test_workers_of_eight_gpus_come_and_go_as_spot_and_the_head_stays(config):
    head = config["available_node_types"][config["head_node_type"]]
    (workers,) = [kind for name, kind in config["available_node_types"].items() if name != "head"]
    assert head["resources"] == {"CPU": 0}
    assert workers["resources"]["GPU"] == 8
    assert workers["min_workers"] == 0
    assert workers["max_workers"] == config["max_workers"] > 1
    assert config["idle_timeout_minutes"] > 0
    assert not config["provider"]["cache_stopped_nodes"]
    assert "spot" in json.dumps(workers["node_config"]).lower()
    assert "spot" not in json.dumps(head["node_config"]).lower()


def test_ray_starts_with_tokens_and_its_servers_on_loopback(config):
    for kind in ("head_start_ray_commands", "worker_start_ray_commands"):
        (start,) = [command for command in config[kind] if "ray start" in command]
        assert start.index("export RAY_AUTH_MODE=token") < start.index("ray start")
        assert ("--dashboard-host=127.0.0.1" in start) == kind.startswith("head")
    assert "0.0.0.0" not in json.dumps(config)
    assert "--env=MLFLOW_TRACKING_URI=http://127.0.0.1:5000" in config["docker"]["head_run_options"]


def test_secrets_travel_as_files(config):
    token, credentials = "/home/lola/.ray/auth_token", "/home/lola/.mlflow/credentials"
    assert set(config["file_mounts"]) == {token, credentials}
    assert any(option.startswith("--env=LOLA_STORAGE=") for option in config["docker"]["run_options"])


@pytest.mark.filterwarnings("ignore")
def test_the_launchers_rights_are_those_that_starting_nodes_takes(tmp_path, monkeypatch):
    """Every request to (a simulated) EC2 is allowed, and nothing is allowed that is not asked for."""
    from ray.autoscaler._private.aws import utils
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_NODE_NAME, TAG_RAY_USER_NODE_TYPE

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("HOME", str(tmp_path))
    asked: set[str] = set()
    call = botocore.client.BaseClient._make_api_call

    def record(client, operation, arguments):
        asked.add(f"{client.meta.service_model.service_name}:{operation}")
        return call(client, operation, arguments)

    with mock_aws():
        utils.resource_cache.cache_clear()
        ec2 = boto3.client("ec2", REGION)
        subnet = ec2.describe_subnets()["Subnets"][0]
        group = ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"]
        values = {
            "AWS_REGION": REGION,
            "LOLA_ZONE": subnet["AvailabilityZone"],
            "LOLA_SUBNET": subnet["SubnetId"],
            "LOLA_SECURITY_GROUP": group,
            "LOLA_AMI": ec2.describe_images()["Images"][0]["ImageId"],
        }
        for name in ("lola-head", "lola-worker"):
            boto3.client("iam", REGION).create_instance_profile(InstanceProfileName=name)
        monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", record)
        config = AWSNodeProvider.fillout_available_node_types_resources(
            launcher(AWS / "cluster.yaml", **values)
        )
        config = bootstrap_aws(config)
        provider = AWSNodeProvider(config["provider"], config["cluster_name"])
        for kind, name in (("head", "head"), ("worker", "h100")):
            tags = {TAG_RAY_NODE_KIND: kind, TAG_RAY_USER_NODE_TYPE: name, TAG_RAY_NODE_NAME: name}
            provider.create_node(config["available_node_types"][name]["node_config"], tags, 1)
        nodes = provider.non_terminated_nodes({})
        assert len(nodes) == 2
        provider._create_tags({("lola", "seen"): nodes})
        provider.terminate_nodes(nodes)
        assert provider.non_terminated_nodes({}) == []
        utils.resource_cache.cache_clear()

    policy = json.loads(fill(AWS / "launcher-policy.json", **values))
    allowed = [statement["Action"] for statement in policy["Statement"]]
    actions = {one for some in allowed for one in ([some] if isinstance(some, str) else some)}
    assert actions == asked | {"iam:PassRole"}


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.name)
def test_no_policy_allows_whole_services(path):
    for statement in json.loads(fill(path))["Statement"]:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert not any("*" in action for action in actions)
        reads = all(action.split(":")[1].startswith(("Describe", "GetAuthorization")) for action in actions)
        if "Principal" not in statement and not reads:
            assert statement["Resource"] != "*"
