"""Stands in for kube-apiserver where none can run: the few endpoints that the webhook uses, over HTTPS.

It is as strict as the real one about paths, verbs, content types, resourceVersions, RBAC and tokens, knows
nothing else, and fails on demand. `Api` is the behaviour, `serving` puts it behind a real TLS socket.
"""

from __future__ import annotations

import asyncio
import copy
import json
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import jsonpatch
import msgspec

from injector.cluster import client
from injector.cluster.client import Cluster, in_cluster
from injector.cluster.lease import Holder, Lease, name_of, write
from injector.pod.claim import Claim, laid
from injector.pod.containers import REPLICATE
from injector.stores import Place
from injector.tls import certificate
from injector.tls.context import server_context

NAMESPACE = "litestream-hook"
NAME = "litestream-hook"
SECRET = "litestream-hook-tls"
USER = f"system:serviceaccount:{NAMESPACE}:{NAME}"
TOKEN = "the.first.token"
GROUP = "admissionregistration.k8s.io"
LEASES = "coordination.k8s.io"
PATCHES = {
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
}
MICRO_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
PATHS = (
    (re.compile(r"/api/v1/()(namespaces)/([^/]+)"), ""),
    (re.compile(r"/api/v1/namespaces/([^/]+)/(secrets|pods)(?:/([^/]+))?"), ""),
    (re.compile(rf"/apis/{re.escape(LEASES)}/v1/namespaces/([^/]+)/(leases)(?:/([^/]+))?"), LEASES),
    (re.compile(rf"/apis/{re.escape(GROUP)}/v1/()(mutatingwebhookconfigurations)(?:/([^/]+))?"), GROUP),
)
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "GET": "get", "DELETE": "delete"}
LISTED = {"pods": {"fieldSelector"}, "leases": {"labelSelector", "limit", "continue"}}  # parameters that are understood


class Rule(NamedTuple):
    """An RBAC rule; namespace None: of a ClusterRole. Empty names: any."""

    verbs: Sequence[str]
    group: str
    resource: str
    namespace: str | None = None
    names: Sequence[str] = ()


RULES = (
    Rule(["create"], "", "secrets", NAMESPACE),
    Rule(["get", "update"], "", "secrets", NAMESPACE, [SECRET]),
    Rule(["get", "patch", "watch"], GROUP, "mutatingwebhookconfigurations", None, [NAME]),
    Rule(["list"], "", "pods"),
    Rule(["get", "list", "create", "update", "patch", "delete"], LEASES, "leases", NAMESPACE),
)


@dataclass
class Fault:
    """What happens to the next `times` requests (of `method`, to `resource`) instead of an answer."""

    status: int = 0  # 0: the connection is reset
    times: int = 1
    method: str = ""
    resource: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0  # a delay, and then the ordinary answer
    effect: bool = False  # what was asked for is done, and the answer is lost


class Answer(NamedTuple):
    status: int
    body: dict[str, Any]
    headers: Mapping[str, str] = {}


class Refused(Exception):
    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status}
        self.answer = Answer(status, body | {"reason": reason, "message": message})


class Reset(Exception):
    """The connection is to be cut."""


class Request(NamedTuple):
    method: str
    path: str
    headers: Mapping[str, str]  # lower-case names
    body: bytes


class Api:
    """The objects, who may do what with them, and what goes wrong."""

    def __init__(self, rules: Sequence[Rule] = RULES) -> None:
        self.rules = list(rules)
        self.tokens = {TOKEN}
        self.faults: list[Fault] = []
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.requests: list[str] = []
        self.most_in_flight = 0
        self._in_flight = 0
        self._version = 100
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)

    def put(self, plural: str, namespace: str, thing: dict[str, Any]) -> dict[str, Any]:
        """Store an object as somebody else would."""
        with self._lock:
            self._version += 1
            thing = copy.deepcopy(thing)
            thing["metadata"] |= {"resourceVersion": str(self._version)}
            thing["metadata"].setdefault("uid", f"uid-{self._version}")
            self.objects[plural, namespace, thing["metadata"]["name"]] = thing
            self._changed.notify_all()
            return thing

    def secret(self) -> dict[str, Any]:
        """The shared Secret."""
        return self.objects["secrets", NAMESPACE, SECRET]

    def configuration(self) -> dict[str, Any]:
        """Our webhook configuration."""
        return self.objects["mutatingwebhookconfigurations", "", NAME]

    def watch(self, request: Request) -> Iterator[dict[str, Any]]:
        """The events of a watch of one webhook configuration, without an end. Raises Refused at once."""
        self.requests.append(f"{request.method} {request.path}")
        url = urlsplit(request.path)
        group, namespace, plural, _ = self._route(url.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        name = query.get("fieldSelector", "").removeprefix("metadata.name=")
        if plural != "mutatingwebhookconfigurations" or query.keys() != {"watch", "fieldSelector", "timeoutSeconds"}:
            raise Refused(400, "BadRequest", "this stand-in watches one webhook configuration only")
        self._authenticate(request)
        self._authorize("watch", group, plural, namespace, name)
        return self._events((plural, namespace, name))

    def _events(self, key: tuple[str, str, str]) -> Iterator[dict[str, Any]]:
        seen = None
        while True:
            with self._changed:
                while (found := self.objects.get(key)) is seen:
                    self._changed.wait()
                seen = found
            yield {"type": "MODIFIED" if found else "DELETED", "object": found or {}}

    def handle(self, request: Request) -> Answer:
        """The answer to a request. Raises Reset where the connection is to be cut."""
        with self._lock:
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
            self.requests.append(f"{request.method} {request.path}")
        try:
            return self._handled(request)
        except Refused as refused:
            return refused.answer
        finally:
            with self._lock:
                self._in_flight -= 1

    def _handled(self, request: Request) -> Answer:
        url = urlsplit(request.path)
        group, namespace, plural, name = self._route(url.path)
        fault = self._fault(request.method, plural)
        if fault is not None:
            time.sleep(fault.seconds)
            if not fault.seconds and not fault.effect:
                if not fault.status:
                    raise Reset
                body = {"kind": "Status", "code": fault.status, "message": "as the test wished"}
                return Answer(fault.status, body, fault.headers)
        self._authenticate(request)
        verb = "list" if request.method == "GET" and not name else VERBS.get(request.method, "")
        self._authorize(verb, group, plural, namespace, name)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        with self._lock:
            if verb == "list" and plural in LISTED:
                return self._list(plural, namespace, query)
            allowed = {"get", "create", "update", "patch"} | ({"delete"} if plural == "leases" else set())
            if verb not in allowed or plural == "pods":
                raise Refused(405, "MethodNotAllowed", f"{request.method} is not allowed here")
            if verb == "get":
                found = self._found(plural, namespace, name)  # what is stored is replaced, never changed
                if request.headers.get("accept") == METADATA:
                    found = {"kind": "PartialObjectMetadata", "metadata": found["metadata"]}
                return Answer(200, found)
            if unknown := set(query) - {"fieldManager"}:
                raise Refused(400, "BadRequest", f"unknown parameters {sorted(unknown)}")
            answer = self._written(verb, plural, namespace, name, request)
        if fault is not None and fault.effect:
            raise Reset
        return answer

    def _found(self, plural: str, namespace: str, name: str) -> dict[str, Any]:
        found = self.objects.get((plural, namespace, name))
        if found is None:
            raise Refused(404, "NotFound", f'{plural} "{name}" not found')
        return found

    def _written(self, verb: str, plural: str, namespace: str, name: str, request: Request) -> Answer:
        body = self._body(request, PATCHES if verb == "patch" else {"application/json"})
        if verb == "create":
            if name:
                raise Refused(405, "MethodNotAllowed", "POST is for the collection")
            return self._create(plural, namespace, body)
        if (verb, plural) == ("update", "leases") and (plural, namespace, name) not in self.objects:
            # The real one creates a Lease that is put where there is none, unless the body has a uid.
            if body["metadata"].get("uid"):
                raise Refused(409, "Conflict", "Precondition failed: UID in precondition, but none in object meta")
            return Answer(201, self.put(plural, namespace, body))
        found = self._found(plural, namespace, name)
        if verb == "delete":
            return self._delete(plural, found, body)
        if verb == "update":
            return self._update(plural, found, body)
        return self._patch(plural, found, body, request.headers["content-type"])

    def _route(self, path: str) -> tuple[str, str, str, str]:
        for pattern, group in PATHS:
            if match := pattern.fullmatch(path):
                return group, unquote(match[1]), match[2], unquote(match[3] or "")
        raise Refused(404, "NotFound", "the server could not find the requested resource")

    def _fault(self, method: str, plural: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.times and fault.method in {"", method} and fault.resource in {"", plural}:
                    fault.times -= 1
                    return fault
        return None

    def _authenticate(self, request: Request) -> None:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind != "Bearer" or token not in self.tokens:
            raise Refused(401, "Unauthorized", "Unauthorized")

    def _authorize(self, verb: str, group: str, plural: str, namespace: str, name: str) -> None:
        for rule in self.rules:
            if (
                verb in rule.verbs
                and (rule.group, rule.resource) == (group, plural)
                and rule.namespace in {None, namespace}
                and (not rule.names or name in rule.names)
            ):
                return
        about = f' "{name}"' if name else ""
        where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
        raise Refused(
            403,
            "Forbidden",
            f'{plural}{about} is forbidden: User "{USER}" cannot {verb} resource "{plural}" in API group '
            f'"{group}"{where}',
        )

    def _body(self, request: Request, content_types: set[str]) -> dict[str, Any]:
        if request.headers.get("content-type") not in content_types:
            raise Refused(415, "UnsupportedMediaType", f"send one of {sorted(content_types)}")
        try:
            body = json.loads(request.body)
        except ValueError as error:
            raise Refused(400, "BadRequest", str(error)) from None
        return body  # type: ignore[no-any-return]

    def _create(self, plural: str, namespace: str, body: dict[str, Any]) -> Answer:
        name = body["metadata"]["name"]
        if (plural, namespace, name) in self.objects:
            raise Refused(409, "AlreadyExists", f'{plural} "{name}" already exists')
        if body["metadata"].get("resourceVersion"):
            raise Refused(400, "BadRequest", "resourceVersion should not be set on objects to be created")
        if body["metadata"].get("namespace", namespace) != namespace:
            raise Refused(400, "BadRequest", "the namespace of the object does not match that of the request")
        self._check(plural, body)
        return Answer(201, self.put(plural, namespace, body))

    def _update(self, plural: str, found: dict[str, Any], body: dict[str, Any]) -> Answer:
        namespace = found["metadata"].get("namespace", "")
        self._compare(plural, found, body)
        if body["metadata"].get("uid", found["metadata"]["uid"]) != found["metadata"]["uid"]:
            raise Refused(409, "Conflict", "Precondition failed: UID in precondition differs from UID in object meta")
        body["metadata"]["uid"] = found["metadata"]["uid"]
        if body.get("type", "Opaque") != found.get("type", "Opaque"):
            raise Refused(422, "Invalid", "type: Invalid value: field is immutable")
        if found.get("immutable"):
            raise Refused(422, "Invalid", "data: Forbidden: field is immutable when `immutable` is set")
        self._check(plural, body)
        return Answer(200, self.put(plural, namespace, body))

    def _delete(self, plural: str, found: dict[str, Any], body: dict[str, Any]) -> Answer:
        metadata = found["metadata"]
        for key, value in (body.get("preconditions") or {}).items():
            if metadata[key] != value:
                raise Refused(409, "Conflict", f"Precondition failed: {key} {value}, {metadata[key]} in object meta")
        del self.objects[plural, metadata["namespace"], metadata["name"]]
        return Answer(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})

    def _patch(self, plural: str, found: dict[str, Any], patch: Any, content_type: str) -> Answer:
        if content_type == "application/json-patch+json":
            return self._json_patch(plural, found, patch)
        if content_type != "application/strategic-merge-patch+json":
            raise Refused(415, "UnsupportedMediaType", "this stand-in merges strategically, and tests and replaces")
        self._compare(plural, found, patch)
        merged = _merge(copy.deepcopy(found), patch)
        self._check(plural, merged)
        if merged == found:  # the real one keeps the version, too
            return Answer(200, merged)
        return Answer(200, self.put(plural, found["metadata"].get("namespace", ""), merged))

    def _json_patch(self, plural: str, found: dict[str, Any], patch: list[dict[str, Any]]) -> Answer:
        try:
            patched = jsonpatch.apply_patch(found, patch)
        except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
            raise Refused(422, "", str(error)) from None  # the real one gives no reason, either
        self._check(plural, patched)
        return Answer(200, self.put(plural, found["metadata"]["namespace"], patched))

    def _compare(self, plural: str, found: dict[str, Any], body: dict[str, Any]) -> None:
        version = body.get("metadata", {}).get("resourceVersion")
        if version and version != found["metadata"]["resourceVersion"]:
            name = found["metadata"]["name"]
            message = f'Operation cannot be fulfilled on {plural} "{name}": the object has been modified'
            raise Refused(409, "Conflict", message)

    def _check(self, plural: str, body: dict[str, Any]) -> None:
        if plural == "secrets":
            needed = {"tls.crt", "tls.key"} if body.get("type") == "kubernetes.io/tls" else set()
            if missing := needed - set(body.get("data") or {}):
                raise Refused(422, "Invalid", f"data[{missing.pop()}]: Required value")
        if plural == "leases" and not re.fullmatch(MICRO_TIME, body["spec"]["acquireTime"]):
            raise Refused(400, "BadRequest", f"parsing time {body['spec']['acquireTime']}")
        for webhook in body.get("webhooks", []):
            for key in ("name", "clientConfig", "sideEffects", "admissionReviewVersions"):
                if key not in webhook:
                    raise Refused(422, "Invalid", f"webhooks: {key}: Required value")

    def _list(self, plural: str, namespace: str, query: Mapping[str, str]) -> Answer:
        if unknown := set(query) - LISTED[plural]:
            raise Refused(400, "BadRequest", f"unknown parameters {sorted(unknown)}")
        field_name, equals, wanted = query.get("fieldSelector", "").partition("=")
        if equals and field_name != "metadata.name":
            raise Refused(400, "BadRequest", "field label not supported")
        labels = dict(part.split("=") for part in query.get("labelSelector", "").split(",") if part)
        items = [
            copy.deepcopy(thing)
            for (kind, where, name), thing in self.objects.items()
            if (kind, where) == (plural, namespace)
            and (not equals or name == wanted)
            and labels.items() <= thing["metadata"].get("labels", {}).items()
        ]
        start, limit = int(query.get("continue", 0)), int(query.get("limit", len(items) or 1))
        more = {"continue": str(start + limit)} if start + limit < len(items) else {}
        items = items[start : start + limit]
        return Answer(200, {"kind": "List", "apiVersion": "v1", "metadata": more, "items": items or None})


def _merge(into: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """A strategic merge patch: webhooks merge by name, other lists are replaced, null deletes."""
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        elif key == "webhooks":
            present = {webhook["name"]: webhook for webhook in into.setdefault(key, [])}
            for webhook in value:
                if webhook["name"] in present:
                    _merge(present[webhook["name"]], webhook)
                else:
                    into[key].append(webhook)
        elif isinstance(value, dict):
            into[key] = _merge(into.get(key) or {}, value)
        else:
            into[key] = value
    return into


def configuration(*webhooks: dict[str, Any]) -> dict[str, Any]:
    """A webhook configuration of ours: two webhooks that call our Service, unless others are given."""
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": NAME, "labels": {"kept": "yes"}},
        "webhooks": list(webhooks) or [webhook("pods.example.com"), webhook("workloads.example.com")],
    }


def webhook(name: str, service: str = NAME, ca_bundle: str = "") -> dict[str, Any]:
    return {
        "name": name,
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "failurePolicy": "Fail",
        "clientConfig": {"service": {"name": service, "namespace": NAMESPACE, "path": "/mutate", "port": 443}}
        | ({"caBundle": ca_bundle} if ca_bundle else {}),
    }


def pod(
    name: str,
    namespace: str = "apps",
    claim: Claim | None = None,
    phase: str = "Running",
    ending: str | None = None,
    grace: int = 30,
) -> dict[str, Any]:
    """An injected Pod with a claim (None: without); `ending` is its deletionTimestamp."""
    metadata: dict[str, Any] = {"name": name, "namespace": namespace}
    if ending:
        metadata |= {"deletionTimestamp": ending, "deletionGracePeriodSeconds": grace}
    spec = {"initContainers": [{"name": REPLICATE, "env": []}], "containers": [{"name": "app"}]}
    found = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": {"phase": phase}}
    return found if claim is None else laid(found, claim)


def held(api: Api, place: Place, name: str = "first", namespace: str = "apps") -> None:
    """Store a living Pod that holds the Lease of a replica."""
    found = Lease(name_of(place), Holder(namespace, name), f"pod/{name}", "its mark", datetime.now(UTC), again=False)
    api.put("leases", NAMESPACE, write(found, NAMESPACE, place))
    api.put("pods", namespace, pod(name, namespace, Claim(name, "its mark", (found.name,))))


class Direct(Cluster):
    """A Cluster whose requests reach an Api without a socket, for tests of very many calls."""

    def __init__(self, api: Api) -> None:
        super().__init__("https://direct")
        self.api = api

    async def watch_webhook_configuration(self, name: str) -> AsyncIterator[None]:  # noqa: ARG002 (the original's)
        await asyncio.Event().wait()
        yield

    async def _call(self, method: str, verb: str, resource: Any, **how: Any) -> bytes:
        body = how.get("body")
        headers = {
            "authorization": f"Bearer {TOKEN}",
            "content-type": how.get("content_type", "application/json"),
            "accept": how.get("accept", "application/json"),
        }
        data = b"" if body is None else msgspec.json.encode(body)
        query = urlencode(how.get("parameters") or {})
        answer = self.api.handle(Request(method, f"{resource.path}?{query}", headers, data))
        content = msgspec.json.encode(answer.body)
        if answer.status >= 300:
            raise client._error(answer.status, content, verb, resource, verb)
        return content


class Server(NamedTuple):
    api: Api
    folder: Path  # of the ServiceAccount
    host: str
    port: int
    connections: list[ssl.SSLSocket]  # all that were accepted

    def cluster(self) -> Cluster:
        """The API as a process in the cluster finds it."""
        environment = {"KUBERNETES_SERVICE_HOST": self.host, "KUBERNETES_SERVICE_PORT": str(self.port)}
        found = in_cluster(environment, self.folder)
        assert found is not None
        return found


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """An Api behind HTTPS, and the files of a ServiceAccount in `folder`."""
    api = Api()
    now = datetime.now(UTC)
    ca = certificate.make_ca("kubernetes", now)
    leaf = certificate.make_leaf(ca, ["kubernetes.default.svc", "127.0.0.1"], now)
    (folder / "ca.crt").write_bytes(ca.certificate)
    (folder / "token").write_text(TOKEN + "\n")
    (folder / "namespace").write_text(NAMESPACE)
    context = server_context(leaf)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            headers = {key.lower(): value for key, value in self.headers.items()}
            request = Request(self.command, self.path, headers, self.rfile.read(length))
            try:
                answer = self.watch(request) if "watch=1" in self.path else api.handle(request)
            except Reset:
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.close_connection = True
                self.connection.close()
                return
            content = json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for key, value in {"Content-Type": "application/json", **answer.headers}.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def watch(self, request: Request) -> Answer:
            """Write events until the client goes away, or the answer that refuses them."""
            try:
                events = api.watch(request)
            except Refused as refused:
                return refused.answer
            self.close_connection = True
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Connection", "close")
            self.end_headers()
            for event in events:
                self.wfile.write(json.dumps(event).encode() + b"\n")
            raise Reset

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 (http.server's names)

        def log_message(self, *_: object) -> None:
            pass

    class Listener(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 128

        def get_request(self) -> tuple[socket.socket, Any]:
            connection, address = super().get_request()
            connection.settimeout(30)
            wrapped = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            connections.append(wrapped)
            return wrapped, address

        def handle_error(self, *_: object) -> None:
            pass  # clients that went away

    connections: list[ssl.SSLSocket] = []
    listener = Listener(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield Server(api, folder, "127.0.0.1", listener.server_address[1], connections)
    finally:
        listener.shutdown()
        listener.server_close()
        for connection in connections:
            connection.close()
        thread.join()
