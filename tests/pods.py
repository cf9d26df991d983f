"""Generated Pods: whatever a Pod of other people may look like, as far as it can matter to an injection."""

from typing import Any

from hypothesis import strategies as st

from injector import GROUP
from injector.pod.volumes import DISPENSABLE

Object = dict[str, Any]

NAMES = st.sampled_from(["app", "worker", "cache", "istio-proxy", "linkerd-proxy", "migrate", "log-shipper"])
VOLUMES = ["data", "other", "cache", "config"]
DIRECTORIES = ["/data", "/data/sub", "/data/sub/deep", "/mnt", "/srv/app", "/var/lib/app", "/app"]
DATABASES = [f"{directory}/{file}" for directory in DIRECTORIES for file in ("a.db", "b.sqlite", "mit Leerzeichen.db")]
# Text that a shell, YAML, JSON or Kubernetes' $(VAR) would take for more than text.
MARK = "x7Qz"
HOSTILE = st.sampled_from(
    [f"{MARK}'; rm -rf / #", f"{MARK}\n- a: b", f"$({MARK})", f"${{{MARK}}}", f'{MARK}"}}', f"`{MARK}`", f"{MARK}"]
)


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Object]:
    """An object with any of these fields; a field can be null as well as absent."""
    return st.fixed_dictionaries({}, optional={key: st.none() | value for key, value in fields.items()})


def mounts() -> st.SearchStrategy[list[Object]]:
    mount = st.fixed_dictionaries(
        {
            "name": st.sampled_from(VOLUMES),
            "mountPath": st.sampled_from([*DIRECTORIES, "/data/", "srv/app", "/data/a.db"]),
        },
        optional={
            "readOnly": st.booleans(),
            "subPath": st.sampled_from(["", "one", "one/two"]),
            "mountPropagation": st.just("None"),
        },
    )
    return st.lists(mount, max_size=3, unique_by=lambda item: item["mountPath"])


def ids(least: int = 0) -> st.SearchStrategy[int]:
    return st.sampled_from([least, 1000, 65532])


def containers() -> st.SearchStrategy[Object]:
    return st.builds(
        lambda name, rest: {
            "name": name,
            "image": "example.com/app:1",
            **{k: v for k, v in rest.items() if v is not None},
        },
        NAMES,
        optional(
            volumeMounts=mounts(),
            securityContext=optional(runAsUser=ids(), runAsGroup=ids(), readOnlyRootFilesystem=st.booleans()).map(
                lambda context: {k: v for k, v in context.items() if v is not None}
            ),
            env=st.lists(
                st.fixed_dictionaries(
                    {"name": st.sampled_from(["A", "B", "AWS_ROLE_ARN"]), "value": st.text(max_size=5)}
                ),
                max_size=2,
            ),
            command=st.lists(st.sampled_from(["/app/run", "sh", "-c"]), min_size=1, max_size=2),
            workingDir=st.sampled_from(["/app", "/data"]),
            ports=st.lists(st.fixed_dictionaries({"containerPort": st.sampled_from([8080, 9090])}), max_size=1),
        ),
    )


def volumes() -> list[Object]:
    return [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "other", "persistentVolumeClaim": {"claimName": "other", "readOnly": True}},
        {"name": "cache", "emptyDir": {}},
        {"name": "config", "configMap": {"name": "config"}},
    ]


def valid_annotations() -> st.SearchStrategy[dict[str, str]]:
    return st.fixed_dictionaries(
        {"inject": st.just("true")},
        optional={
            "path": st.lists(st.sampled_from(DATABASES), min_size=1, max_size=4, unique=True).map(",".join),
            "endpoint": st.just("https://s3.example.com:9000/x7Qz"),
            "bucket": st.sampled_from(["x7qz-bucket", "gs://x7qz-bucket", "abs://x7qz/x7qz-bucket"]),
            "secret": st.just("x7qz-secret"),
            "replica-path": st.sampled_from(["x7Qz/{database}", "{namespace}/{workload}/{database}"]),
            "auth": st.sampled_from(["secret", "session", "ambient"]),
            "ca": st.sampled_from(["secret/x7qz-ca", "configmap/x7qz-ca"]),
            "addressing": st.sampled_from(["path", "virtual"]),
            "image": st.sampled_from(["litestream/litestream:0.3.13", "example.com/x7qz/litestream:0.5.17-scratch"]),
            "containers": st.sampled_from(["app", "worker", "app,migrate"]),
            "run-as-user": st.sampled_from(["0", "1000"]),
            "run-as-group": st.just("1000"),
            "sidecar": st.sampled_from(["native", "container"]),
            "init-first": st.sampled_from(["true", "false"]),
            "restore": st.sampled_from(["if-exists", "required", "off"]),
            "restore-from": st.just("x7Qz/old/{database}"),
            "storage": st.sampled_from(["1Gi", "1024Mi", "2e9"]),
            "metrics-port": st.sampled_from(["9090", "9999"]),
            "integrity-check": st.sampled_from(["none", "full"]),
            "cpu-limit": st.sampled_from(["1", "0.5"]),
        },
    )  # fmt: skip


def hostile_annotations() -> st.SearchStrategy[dict[str, str]]:
    """Valid ones with some values replaced by text that means harm."""
    keys = st.sampled_from(
        [
            "path",
            "bucket",
            "endpoint",
            "region",
            "secret",
            "replica-path",
            "restore-from",
            "image",
            "containers",
            "storage",
        ]
    )
    path = HOSTILE.map(lambda text: f"/data/{text}")
    return st.builds(
        lambda valid, bad: {**valid, **bad}, valid_annotations(), st.dictionaries(keys, HOSTILE | path, max_size=2)
    )


def pods(annotations: st.SearchStrategy[dict[str, str]] | None = None) -> st.SearchStrategy[Object]:
    """Pods that ask for injection; not all of them can have it."""

    def build(
        asked: dict[str, str], main: list[Object], init: list[Object], always: list[bool], rest: Object, meta: Object
    ) -> Object:
        init = [
            {**item, "restartPolicy": "Always"} if native else item for item, native in zip(init, always, strict=False)
        ]
        metadata = {
            **meta,
            "name": "web",
            "annotations": {
                "other/one": "1",
                DISPENSABLE[0]: "cache",
                **{f"{GROUP}/{key}": text for key, text in asked.items()},
            },
        }
        spec = {**rest, "containers": main, "volumes": volumes()}
        if init:
            spec["initContainers"] = init
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    unique = st.lists(containers(), min_size=1, max_size=5, unique_by=lambda item: item["name"])
    return unique.flatmap(
        lambda every: st.integers(1, len(every)).flatmap(
            lambda split: st.builds(
                build,
                valid_annotations() if annotations is None else annotations,
                st.just(every[:split]),
                st.just(every[split:]),
                st.lists(st.booleans(), min_size=5, max_size=5),
                st.fixed_dictionaries(
                    {},
                    optional={
                        "securityContext": st.fixed_dictionaries({"runAsUser": ids()}),
                        "terminationGracePeriodSeconds": st.sampled_from([0, 5, 600]),
                        "serviceAccountName": st.just("app"),
                    },
                ),
                st.fixed_dictionaries({}, optional={"labels": st.just({"app": "web"}), "finalizers": st.just(["a/b"])}),
            )
        )
    )
