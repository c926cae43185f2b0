"""Kubernetes manifests: the core schemas, the fields that the operator documents, what the parts agree on."""

from typing import Any

import kubernetes_validate
import pytest
from configurations import CLUSTER, MANIFESTS, documents

VERSION = "1.32"
KUBERAY = CLUSTER / "kuberay"

# The fields of ray.io/v1 as the operator's API reference lists them (KubeRay 1.6).
CLUSTER_FIELDS = {
    *("authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions"),
    *("headGroupSpec", "headServiceAnnotations", "managedBy", "rayVersion", "suspend"),
    "workerGroupSpecs",
}
AUTH_FIELDS = {"enableK8sTokenAuth", "mode", "secretName"}
AUTOSCALER_FIELDS = {
    *("env", "envFrom", "idleTimeoutSeconds", "image", "imagePullPolicy", "resources", "securityContext"),
    *("upscalingMode", "version", "volumeMounts"),
}
HEAD_FIELDS = {
    *("enableIngress", "headService", "labels", "rayStartParams", "resources", "serviceType", "template"),
}
WORKER_FIELDS = {
    *(
        "groupName",
        "idleTimeoutSeconds",
        "labels",
        "maxReplicas",
        "minReplicas",
        "numOfHosts",
        "rayStartParams",
    ),
    *("replicas", "resources", "scaleStrategy", "suspend", "template"),
}
JOB_FIELDS = {
    *("activeDeadlineSeconds", "backoffLimit", "clusterSelector", "deletionStrategy", "entrypoint"),
    *("entrypointNumCpus", "entrypointNumGpus", "entrypointResources", "jobId", "managedBy", "metadata"),
    *("rayClusterSpec", "runtimeEnvYAML", "shutdownAfterJobFinishes"),
    *("submissionMode", "submitterConfig", "submitterPodTemplate", "suspend", "ttlSecondsAfterFinished"),
}

OBJECTS = [(path.name, item) for path in MANIFESTS for item in documents(path)]
CORE = [(name, item) for name, item in OBJECTS if not item["apiVersion"].startswith("ray.io")]
SPECS = {
    "cluster": documents(KUBERAY / "raycluster.yaml")[0]["spec"],
    "job": documents(KUBERAY / "rayjob.yaml")[0]["spec"]["rayClusterSpec"],
}


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [item for _, item in OBJECTS if item["kind"] == kind]


def pod_templates() -> list[dict[str, Any]]:
    job = documents(KUBERAY / "rayjob.yaml")[0]["spec"]
    templates = [job["submitterPodTemplate"]]
    for spec in SPECS.values():
        templates += [group["template"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]
    return templates + [
        item["spec"]["template"] for kind in ("Deployment", "StatefulSet") for item in of_kind(kind)
    ]


def validate(item: dict[str, Any]) -> None:
    kubernetes_validate.validate(item, VERSION, strict=True)


@pytest.mark.parametrize(
    ("name", "item"), CORE, ids=[f"{name}-{item['metadata']['name']}" for name, item in CORE]
)
def test_core_objects_follow_the_schemas(name, item):
    validate(item)


def test_pods_of_ray_follow_the_core_schema_and_an_unknown_field_does_not():
    for template in pod_templates():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {**template.get("metadata", {}), "name": "pod"}}
        validate({**pod, "spec": template["spec"]})
        with pytest.raises(kubernetes_validate.ValidationError):
            validate({**pod, "spec": {**template["spec"], "gpus": 8}})


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_ray_clusters_have_only_documented_fields(spec):
    assert set(spec) <= CLUSTER_FIELDS
    assert set(spec["authOptions"]) <= AUTH_FIELDS
    assert set(spec["autoscalerOptions"]) <= AUTOSCALER_FIELDS
    assert set(spec["headGroupSpec"]) <= HEAD_FIELDS
    for group in spec["workerGroupSpecs"]:
        assert set(group) <= WORKER_FIELDS
    (job,) = of_kind("RayJob")
    assert set(job["spec"]) <= JOB_FIELDS
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def test_the_job_runs_on_the_cluster_that_is_described():
    assert SPECS["job"] == SPECS["cluster"]


def test_the_version_is_that_of_the_image():
    pins = (CLUSTER / "constraints.txt").read_text().splitlines()
    assert f"ray=={SPECS['cluster']['rayVersion']}" in pins


def test_clusters_scale_from_nothing_with_tokens_from_a_secret():
    spec = SPECS["cluster"]
    assert spec["enableInTreeAutoscaling"]
    assert spec["authOptions"] == {"mode": "token", "secretName": "lola-ray-token"}
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in spec["workerGroupSpecs"]:
        assert group["minReplicas"] == group["replicas"] == 0 < group["maxReplicas"]
        (container,) = group["template"]["spec"]["containers"]
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert requests["nvidia.com/gpu"] == limits["nvidia.com/gpu"] == "8"
        assert requests["memory"] == limits["memory"]


def test_pods_have_requests_limits_and_no_privileges():
    for template in pod_templates():
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]


def test_secrets_are_referred_to_and_never_written():
    assert not of_kind("Secret")
    known = {"lola-mlflow": {"postgres-password", "username", "password"}}
    for template in pod_templates():
        for container in template["spec"]["containers"]:
            for variable in container.get("env", ()):
                secret = any(word in variable["name"] for word in ("PASSWORD", "USERNAME", "TOKEN", "SECRET"))
                assert secret == ("valueFrom" in variable), variable["name"]
                if secret:
                    reference = variable["valueFrom"]["secretKeyRef"]
                    assert reference["key"] in known[reference["name"]]


def test_claims_and_accounts_exist():
    claims = {item["metadata"]["name"] for item in of_kind("PersistentVolumeClaim")}
    accounts = {item["metadata"]["name"] for item in of_kind("ServiceAccount")}
    (claim,) = of_kind("PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for template in pod_templates():
        pod = template["spec"]
        assert pod.get("serviceAccountName", "lola") in accounts
        for volume in pod.get("volumes", ()):
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims


def test_nothing_is_reached_from_outside_and_each_server_by_its_clients_alone():
    assert not of_kind("Ingress")
    for service in of_kind("Service"):
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP"
    assert SPECS["cluster"]["headGroupSpec"]["serviceType"] == "ClusterIP"
    labels = [template["metadata"]["labels"]["app.kubernetes.io/name"] for template in pod_templates()]
    policies = {item["metadata"]["name"]: item["spec"] for item in of_kind("NetworkPolicy")}
    assert policies["deny-by-default"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    for name, policy in policies.items():
        for rule in policy.get("ingress", ()):
            assert rule["from"], f"{name} admits everybody"
            for peer in rule["from"]:
                chosen = peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"]
                assert chosen in {*labels, "kuberay-operator"}
    assert {
        policy["podSelector"]["matchLabels"]["app.kubernetes.io/name"]
        for name, policy in policies.items()
        if name != "deny-by-default"
    } == {"lola-ray", "lola-mlflow", "lola-postgres"}
