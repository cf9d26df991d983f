"""Defaults and policy as a tenant meets them: the nearest value wins, what is the operator's to choose is denied."""

import copy
import json
from typing import Any

import pytest

from injector import GROUP, options
from injector.admission import webhook
from injector.annotations import operator_file
from injector.annotations.defaults import NONE, Defaults, normal
from injector.annotations.findings import Findings
from injector.annotations.settings import Settings, read
from tests import reviews

Object = dict[str, Any]
STATUS = f"{GROUP}/status"


def of(text: str, namespace: str = "shop", **annotations: str) -> Defaults:
    written = {key.replace("_", "-"): value for key, value in annotations.items()}
    return operator_file.read(text, reviews.DEFAULTS).of(namespace, written)


def settings(defaults: Defaults, **own: str) -> Settings:
    findings = Findings(GROUP)
    found = read({"inject": "true", **own}, reviews.DEFAULTS, findings, defaults)
    assert findings.violations == []
    return found


def denied(policy: str, namespace: str = "shop", /, **annotations: str) -> dict[str, str]:
    """The violations of a tenant's Pod under a policy, by key."""
    return reviews.denied(reviews.pod(**annotations), namespace=namespace, defaults=of(policy, namespace))


def allowed(policy: str, namespace: str = "shop", /, **annotations: str) -> Object:
    """A tenant's Pod, injected under a policy."""
    return reviews.injected(reviews.pod(**annotations), namespace=namespace, defaults=of(policy, namespace))


def status(pod: Object) -> Object:
    found: Object = json.loads(pod["metadata"]["annotations"][STATUS])
    return found


FILE = "defaults: {bucket: far, region: far-1, secret: far}\nnamespaces: {shop: {bucket: near, region: near-1}}\n"


def test_the_nearest_value_wins() -> None:
    defaults = of(FILE, bucket="nearer")
    assert settings(defaults).secret == "far"
    assert settings(defaults).region == "near-1"
    assert str(settings(defaults).bucket) == "nearer"
    assert str(settings(defaults, bucket="nearest").bucket) == "nearest"
    assert str(settings(of(FILE, "other")).bucket) == "far"
    assert settings(defaults).storage.text == "1Gi"


def test_inject_alone_is_enough_where_there_are_defaults() -> None:
    pod = reviews.injected(
        reviews.pod(), namespace="shop", defaults=of("defaults: {endpoint: 'http://minio:9000', path: /data/app.db}")
    )
    assert status(pod)["endpoint"] == "http://minio:9000"
    assert status(pod)["databases"] == {"/data/app.db": "shop/pod/web/data/app.db"}
    assert status(pod)["defaults"] == {"endpoint": "http://minio:9000", "path": "/data/app.db"}


def test_the_status_records_only_what_the_pod_did_not_write() -> None:
    assert status(allowed(FILE, bucket="mine"))["defaults"] == {"region": "near-1", "secret": "far"}
    assert "defaults" not in status(reviews.injected(reviews.pod()))


def test_a_wrong_value_of_a_namespace_is_told_with_where_it_is_from() -> None:
    found = reviews.denied(reviews.pod(), namespace="shop", defaults=of("", bucket="B"))
    assert found["bucket"].startswith(f'{GROUP}/bucket: "B": write an S3 bucket name')
    assert found["bucket"].endswith("(the value is of the annotations of Namespace shop)")


def test_values_of_pod_and_file_that_contradict_each_other_are_told() -> None:
    found = denied("defaults: {cpu-request: 500m}", cpu_limit="100m")
    assert found["cpu-request"].endswith("(the value is of the operator's defaults)")


def test_a_namespaces_slip_is_a_warning_to_its_pods() -> None:
    text = reviews.warned(reviews.pod(), namespace="shop", defaults=of("", buckt="x"))
    assert 'Namespace shop: "buckt" is no key of an annotation; did you mean bucket?' in text


# A second call, for the same creation of a Pod, of a webhook whose defaults are others by now.
def test_a_second_call_keeps_what_the_first_has_used() -> None:
    before = of("defaults: {bucket: one, endpoint: 'https://one.example.com', replica-path: 'one/{database}'}")
    after = of("defaults: {bucket: two, region: two-1, path: /two/two.db, containers: other}")
    injected = reviews.injected(reviews.pod(), namespace="shop", defaults=before)
    for defaults in (after, NONE):
        assert reviews.injected(copy.deepcopy(injected), namespace="shop", defaults=defaults) == injected


def test_a_second_call_without_defaults_takes_up_none_that_came_since() -> None:
    injected = reviews.injected(reviews.pod(), namespace="shop")
    assert reviews.injected(injected, namespace="shop", defaults=of("defaults: {bucket: two}")) == injected


def test_a_made_up_status_does_not_lead_around_the_policy() -> None:
    policy = "defaults: {bucket: ours}\nenforce: [bucket]\nallow: {secret: [ours]}\n"
    forged = reviews.injected(
        reviews.pod(), namespace="shop", defaults=of("defaults: {bucket: theirs, secret: theirs}")
    )
    found = reviews.denied(forged, namespace="shop", defaults=of(policy))
    assert {"bucket", "secret"} <= found.keys()
    del forged["metadata"]["annotations"][STATUS]
    assert not reviews.response(forged, namespace="shop", defaults=of(policy))["allowed"]


def test_defaults_count_for_workloads_too() -> None:
    workload = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"replicas": 2, "template": {"metadata": reviews.pod()["metadata"], "spec": reviews.pod()["spec"]}},
    }
    assert "spec.replicas" in reviews.denied(workload, namespace="shop")
    assert "spec.replicas" in reviews.denied(workload, namespace="shop", defaults=of("", bucket="near"))
    told = reviews.warned(workload, namespace="shop", defaults=of("defaults: {single-writer: warn}"))
    assert "spec.replicas" in told
    enforced = of("defaults: {single-writer: warn}\nenforce: [secret]")
    workload["spec"]["template"]["metadata"]["annotations"][f"{GROUP}/secret"] = "mine"  # type: ignore[index]
    assert reviews.denied(workload, namespace="shop", defaults=enforced).keys() == {"secret"}


ENFORCED = "defaults: {endpoint: 'https://minio.example.com'}\nenforce: [endpoint, bucket, run-as-user, retention]\n"


def test_a_pod_that_changes_what_is_enforced_is_denied_with_the_reason() -> None:
    found = denied(ENFORCED, endpoint="https://evil.example.com", bucket="mine", run_as_user="7", retention="1h")
    assert found["endpoint"] == (
        f'{GROUP}/endpoint: "https://evil.example.com": is for the operator to choose, and it is '
        '"https://minio.example.com" here: remove the annotation'
    )
    assert 'it is "litestream" here' in found["bucket"]
    assert "there is none here" in found["run-as-user"]
    assert 'it is "168h" here' in found["retention"]


def test_a_namespace_can_not_change_what_is_enforced_either() -> None:
    found = reviews.denied(reviews.pod(), namespace="shop", defaults=of(ENFORCED, bucket="mine"))
    assert found["bucket"].endswith("(the value is of the annotations of Namespace shop)")


def test_writing_the_enforced_value_in_another_way_is_no_change() -> None:
    allowed(ENFORCED, endpoint="https://MINIO.example.com.:443/", bucket="litestream", retention="10080m")


@pytest.mark.parametrize(
    ("key", "one", "other"),
    [
        ("endpoint", "https://minio.example.com", "https://MinIO.Example.COM:443/"),
        ("endpoint", "http://minio.example.com", "http://minio.example.com.:080"),
        ("endpoint", "http://[::1]:9000", "http://[0:0:0:0:0:0:0:1]:9000/"),
        ("image", "litestream/litestream:0.5.17", "docker.io/litestream/litestream:0.5.17"),
        ("image", "busybox:1.37", "index.docker.io/library/busybox:1.37"),
        ("storage", "1Gi", "1024Mi"),
        ("sync-interval", "1m", "60s"),
    ],
)
def test_spellings_of_one_value_are_the_same(key: str, one: str, other: str) -> None:
    assert normal(key, one) == normal(key, other)


@pytest.mark.parametrize(
    ("key", "one", "other"),
    [
        ("endpoint", "https://minio.example.com", "http://minio.example.com"),
        ("endpoint", "https://minio.example.com", "https://minio.example.com:80"),
        ("endpoint", "https://minio.example.com", "https://minio.example.com/a"),
        ("image", "litestream/litestream:0.5.17", "ghcr.io/litestream/litestream:0.5.17"),
        ("bucket", "a", "no bucket/.."),
    ],
)
def test_other_values_are_not(key: str, one: str, other: str) -> None:
    assert normal(key, one) != normal(key, other)


ALLOWED = """\
allow:
  endpoint: ["https://*.example.com"]
  bucket: ["{namespace}", "{namespace}-*"]
  image: ["registry.example.com/**", "litestream/litestream:*"]
  secret: ["s3-*"]
  ca: ["configmap/*"]
  replica-path: ["{namespace}/**"]
"""
SOUND = {"endpoint": "https://s3.example.com", "bucket": "shop", "secret": "s3-shop"}


def test_what_the_patterns_allow_passes() -> None:
    allowed(ALLOWED, **SOUND)
    allowed(ALLOWED, **SOUND | {"bucket": "shop-eu", "endpoint": "https://S3.Example.com:443/"})
    allowed(ALLOWED, **SOUND, image="registry.example.com/a/b:0.5.17", replica_path="{namespace}/mine/{database}")
    allowed(ALLOWED, **SOUND, ca="configmap/s3-ca")
    allowed(ALLOWED, **SOUND, restore_from="shop/old/app.db")
    allowed(ALLOWED, **SOUND, init_image="registry.example.com/busybox:1")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bucket", "other"),
        ("bucket", "shopping"),
        ("endpoint", "http://s3.example.com"),
        ("endpoint", "https://s3.example.com:8443"),
        ("endpoint", "https://evil.org/s3.example.com"),
        ("endpoint", "https://s3.example.com/other"),
        ("image", "evil.org/litestream/litestream:0.5.17"),
        ("image", "evil.org/registry.example.com/litestream:0.5.17"),
        ("init_image", "busybox:1.36"),
        ("secret", "admin"),
        ("ca", "secret/admin"),
        ("replica_path", "other/{database}"),
        ("replica_path", "shopping/{database}"),
        ("replica_path", "{workload}/{database}"),
        ("restore_from", "other/pod/web/data/app.db"),
    ],
)
def test_a_tenant_can_not_point_elsewhere(key: str, value: str) -> None:
    found = denied(ALLOWED, **SOUND | {key: value})
    assert found.keys() == {key.replace("_", "-")}
    assert "is not what the operator allows in namespace shop: write " in found[key.replace("_", "-")]


@pytest.mark.parametrize("value", ["shop/../other/{database}", "shop//x", "/shop/x", "shop/./{database}"])
@pytest.mark.parametrize("key", ["replica_path", "restore_from"])
def test_dots_lead_nowhere(key: str, value: str) -> None:
    assert key.replace("_", "-") in denied(ALLOWED, **SOUND | {key: value})


def test_a_reason_is_told_once_for_all_databases() -> None:
    pod = reviews.pod(**SOUND, path="/data/a.db,/data/b.db", replica_path="other/{database}")
    reply = reviews.response(pod, namespace="shop", defaults=of(ALLOWED))
    assert reply["status"]["message"].count("is not what the operator allows") == 1


def test_a_default_path_that_a_workload_can_not_have_is_shown() -> None:
    deployment = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "controller": True, "uid": "1"}
    pod = reviews.pod(None, {"name": "", "generateName": "web-1-", "ownerReferences": [deployment]})
    found = reviews.denied(pod, namespace="shop", defaults=of("defaults: {replica-path: '{pod}/{database}'}"))
    assert '"{pod}/{database}": {pod} can\'t be determined' in found["replica-path"]
    assert found["replica-path"].endswith("(the value is of the operator's defaults)")


def test_the_reason_says_what_to_write() -> None:
    found = denied(ALLOWED, **SOUND | {"bucket": "other"})
    assert found["bucket"].endswith("is not what the operator allows in namespace shop: write shop or shop-*")


def test_what_nobody_wrote_has_to_fit_too() -> None:
    found = denied(ALLOWED)
    assert found.keys() == {"endpoint", "bucket", "secret"}
    assert found["endpoint"].startswith(f"{GROUP}/endpoint: is not what the operator allows")
    found = denied("allow: {secret: [mine]}\ndefaults: {auth: ambient}", auth="secret")
    assert found.keys() == {"secret"}
    assert denied("allow: {secret: [mine]}", auth="session").keys() == {"secret"}
    allowed("allow: {secret: [mine]}", auth="ambient")


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://s3.example.com/others",
        "https://Others.S3.eu-west-1.AmazonAWS.com",
        "https://Others.Storage.GoogleAPIs.com",
    ],
)
def test_a_bucket_in_the_endpoint_does_not_lead_around_a_limit_of_buckets(endpoint: str) -> None:
    for policy in ("allow: {bucket: [shop]}", "allow: {replica-path: ['**']}", "enforce: [bucket]"):
        bucket = "litestream" if "enforce" in policy else "shop"
        assert "names more than a server" in denied(policy, endpoint=endpoint, bucket=bucket)["endpoint"]
        allowed(policy, endpoint="https://s3.eu-west-1.amazonaws.com/", bucket=bucket)
    allowed(f"defaults: {{endpoint: '{endpoint}'}}\nallow: {{bucket: [shop]}}", bucket="shop")


def test_patterns_of_paths_are_below_the_operators_prefix() -> None:
    chosen = options.read({"REPLICA_PREFIX": "eu"})
    defaults = of("allow: {replica-path: ['{namespace}/**']}")

    def denied_with(path: str) -> Object:
        return reviews.denied(reviews.pod(restore_from=path), namespace="shop", defaults=defaults, options=chosen)

    assert reviews.injected(
        reviews.pod(restore_from="eu/shop/old"), namespace="shop", defaults=defaults, options=chosen
    )
    assert "restore-from" in denied_with("shop/old")
    assert "restore-from" in denied_with("eu/other/old")


def test_an_update_is_not_refused_for_a_policy_that_came_since() -> None:
    workload = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "strategy": {"type": "Recreate"},
            "template": {"metadata": reviews.pod(bucket="mine")["metadata"], "spec": reviews.pod()["spec"]},
        },
    }
    policy = of("enforce: [bucket]")
    assert reviews.denied(workload, namespace="shop", defaults=policy).keys() == {"bucket"}
    told = reviews.warned(workload, "UPDATE", oldObject=workload, namespace="shop", defaults=policy)
    assert "is for the operator to choose" in told


def test_a_pod_that_asks_for_nothing_is_not_looked_at() -> None:
    """The defaults may cost a question to the API."""

    class Unasked(webhook.Defaulting):
        async def of(self, namespace: str) -> Defaults:
            raise AssertionError(namespace)

    pod = reviews.pod()
    del pod["metadata"]["annotations"]
    assert reviews.response(pod, defaulting=Unasked())["allowed"]
    assert reviews.response(reviews.pod(inject="false"), defaulting=Unasked())["allowed"]
