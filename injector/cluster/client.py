"""The few calls to the Kubernetes API: the Secret, our webhook configuration, Leases, one Pod, a Namespace.

lightkube is not used: it does not retry, and costs each serving process 8 MB more and three times the import time, for
a few kinds of request.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from injector import __version__
from injector.cluster.connections import Connections
from injector.errors import quoted
from injector.values import Object

logger = logging.getLogger(__name__)

T = TypeVar("T")
Body = Object | list[Object]

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
FIELD_MANAGER = "litestream-hook"
USER_AGENT = f"litestream-hook/{__version__}"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"  # of an object, and nothing else
WRITES = ("POST", "PUT", "PATCH")  # that have a field manager
UNFIT = (HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY)  # what a JSON Patch does not fit
LIMIT = 7.0  # seconds for a call with all of its retries: less than the guard's patience, so that it says why
ATTEMPT = 4.0  # seconds for one try
PAGE = 500  # objects of a long list at a time
WATCH = 120  # seconds of one watch
LONGEST_PAUSE = 2.0  # seconds between tries, unless the server asks for more


class ClusterError(Exception):
    """A call to the Kubernetes API failed; the message says which one, why, and what to do.

    `status` is the HTTP status, or None where there was no answer.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Conflict(ClusterError):
    """Somebody else created or changed the object first: read it again."""


class _Where(msgspec.Struct, rename={"more": "continue"}):
    more: str = ""  # where the next page begins; empty after the last


class _List(msgspec.Struct):
    items: list[Object] | None = None  # null when there are none
    metadata: _Where = msgspec.field(default_factory=_Where)


class _Resource(NamedTuple):
    group: str
    version: str
    plural: str
    namespace: str | None
    name: str | None = None

    @property
    def path(self) -> str:
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        inside = f"/namespaces/{quote(self.namespace, safe='')}" if self.namespace else ""
        return f"{root}{inside}/{self.plural}" + (f"/{quote(self.name, safe='')}" if self.name else "")

    def __str__(self) -> str:
        name = f" {quoted(self.name)}" if self.name else ""
        return f"{self.plural}{name}" + (f" in namespace {quoted(self.namespace)}" if self.namespace else "")

    def rule(self, verb: str) -> str:
        """The RBAC rule that allows `verb`; creating can't be bound to a name, nor Leases and Namespaces."""
        bound = self.name and verb != "create" and self.plural not in ("leases", "namespaces")
        names = f', resourceNames: ["{self.name}"]' if bound else ""
        return f'apiGroups: ["{self.group}"], resources: ["{self.plural}"]{names}, verbs: ["{verb}"]'


def _secrets(namespace: str, name: str | None = None) -> _Resource:
    return _Resource("", "v1", "secrets", namespace, name)


def _leases(namespace: str, name: str | None = None) -> _Resource:
    return _Resource("coordination.k8s.io", "v1", "leases", namespace, name)


def _configurations(name: str) -> _Resource:
    return _Resource("admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations", None, name)


class Cluster:
    """The Kubernetes API as a ServiceAccount sees it.

    Every call raises ClusterError (Conflict for 409): at once where trying again is in vain, else after LIMIT seconds.
    The token is read from its file for every request, because kubelet rotates it.
    """

    def __init__(
        self,
        address: str,
        folder: Path = SERVICE_ACCOUNT,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.address = address
        self._folder = folder
        self._sleep = sleep
        self._connections: Connections | None = None
        self._trusted = ""

    async def get_secret(self, namespace: str, name: str) -> Object | None:
        """The Secret; None where there is none."""
        return await self._read(_secrets(namespace, name))

    async def create_secret(self, namespace: str, secret: Object) -> Object:
        """The Secret as it was created; Conflict if there is one of that name."""
        name = secret["metadata"]["name"]
        return await self._object("POST", "create", _secrets(namespace), body=secret, about=name)

    async def replace_secret(self, namespace: str, secret: Object) -> Object:
        """The Secret as it was replaced; Conflict unless its resourceVersion is the newest."""
        return await self._object("PUT", "update", _secrets(namespace, secret["metadata"]["name"]), secret)

    async def get_webhook_configuration(self, name: str) -> Object | None:
        """The MutatingWebhookConfiguration; None where there is none."""
        return await self._read(_configurations(name))

    async def patch_webhook_configuration(self, name: str, patch: Object) -> Object:
        """The MutatingWebhookConfiguration after a strategic merge patch (webhooks merge by name).

        Conflict if the patch carries a resourceVersion that is not the newest.
        """
        kind = "application/strategic-merge-patch+json"
        return await self._object("PATCH", "patch", _configurations(name), patch, content_type=kind)

    async def watch_webhook_configuration(self, name: str) -> AsyncIterator[None]:
        """Yields at first, and whenever the MutatingWebhookConfiguration has changed; ends after WATCH seconds.

        Raises ClusterError if it can't be watched, or no longer.
        """
        resource = _configurations(name)
        query = {"watch": "1", "fieldSelector": f"metadata.name={name}", "timeoutSeconds": str(WATCH)}
        target = f"{resource._replace(name=None).path}?{urlencode(query)}"
        try:
            connections, headers = self._ready()
            async for part in connections.stream(target, headers, ATTEMPT, WATCH + ATTEMPT):
                if not _succeeded(part.status):
                    raise _error(part.status, part.body, "watch", resource, f"watch {resource}")
                for _ in range(part.body.count(b"\n")):
                    yield
        except OSError as error:
            raise ClusterError(f"the Kubernetes API can't watch {resource}: {_described(error)}") from None

    async def get_lease(self, namespace: str, name: str) -> Object | None:
        """The Lease; None where there is none."""
        return await self._read(_leases(namespace, name))

    async def create_lease(self, namespace: str, lease: Object) -> Object:
        """The Lease as it was created; Conflict if there is one of that name."""
        return await self._object("POST", "create", _leases(namespace), lease, about=lease["metadata"]["name"])

    async def replace_lease(self, namespace: str, lease: Object) -> Object:
        """The Lease as it was replaced; Conflict unless it was still the one of this uid and resourceVersion."""
        return await self._object("PUT", "update", _leases(namespace, lease["metadata"]["name"]), lease)

    async def patch_lease(self, namespace: str, name: str, patch: list[Object]) -> Object:
        """The Lease after a JSON Patch; Conflict unless it is there, and is what the patch tests for."""
        try:
            return await self._object("PATCH", "patch", _leases(namespace, name), patch, "application/json-patch+json")
        except ClusterError as error:
            if error.status in UNFIT:
                raise Conflict(str(error), error.status) from None
            raise

    async def delete_lease(self, namespace: str, name: str, uid: str, version: str) -> None:
        """Delete the Lease, if it is there; Conflict unless it is the one of this uid and resourceVersion."""
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid, "resourceVersion": version},
        }
        try:
            await self._call("DELETE", "delete", _leases(namespace, name), body=options)
        except ClusterError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise

    async def list_leases(self, namespace: str, labels: Mapping[str, str] | None = None) -> AsyncIterator[list[Object]]:
        """All Leases of the namespace, or those with these labels, page by page: there can be very many."""
        page = {"limit": str(PAGE)}
        if labels:
            page["labelSelector"] = ",".join(f"{key}={value}" for key, value in labels.items())
        while True:
            found = _decoded(
                await self._call("GET", "list", _leases(namespace), parameters=page), _List, "list of Leases"
            )
            yield found.items or []
            if not found.metadata.more:
                return
            page["continue"] = found.metadata.more

    async def find_pod(self, namespace: str, name: str) -> Object | None:
        """The whole Pod, as of this moment; None where there is none. A list of one: listing is all that we may."""
        pods = _Resource("", "v1", "pods", namespace)
        content = await self._call("GET", "list", pods, parameters={"fieldSelector": f"metadata.name={name}"})
        return next(iter(_decoded(content, _List, "list of Pods").items or []), None)

    async def get_namespace(self, name: str) -> Object | None:
        """The metadata of a Namespace; None where there is none."""
        namespaces = _Resource("", "v1", "namespaces", None, name)
        try:
            content = await self._call("GET", "get", namespaces, accept=METADATA)
        except ClusterError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        return _decoded(content, Object, "Namespace's metadata")

    async def close(self) -> None:
        """Close the connections."""
        if self._connections is not None:
            await self._connections.close()
            self._connections = None

    async def _read(self, resource: _Resource) -> Object | None:
        try:
            return await self._object("GET", "get", resource)
        except ClusterError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    async def _object(
        self,
        method: str,
        verb: str,
        resource: _Resource,
        body: Body | None = None,
        content_type: str = "application/json",
        about: str | None = None,
    ) -> Object:
        content = await self._call(
            method, verb, resource, body=body, content_type=content_type, about=about or resource.name
        )
        return _decoded(content, Object, f"JSON object ({resource.plural})")

    async def _call(
        self,
        method: str,
        verb: str,
        resource: _Resource,
        *,
        parameters: Mapping[str, str] | None = None,
        body: Body | None = None,
        content_type: str = "application/json",
        about: str | None = None,
        accept: str = "application/json",
    ) -> bytes:
        what = f"{verb} {resource._replace(name=about)}"
        query = {"fieldManager": FIELD_MANAGER} if method in WRITES else parameters or {}
        target = f"{resource.path}?{urlencode(query)}".removesuffix("?")
        data = None if body is None else msgspec.json.encode(body)
        kind = {"Accept": accept} | ({} if data is None else {"Content-Type": content_type})
        trouble, tokens = "there was no answer", 0
        try:
            async with asyncio.timeout(LIMIT):
                for attempt in itertools.count():
                    asked = ""
                    try:
                        connections, headers = self._ready()
                        answer = await connections.ask(method, target, headers | kind, data, ATTEMPT)
                    except OSError as error:
                        trouble = _described(error)
                    else:
                        status, content = answer.status, answer.body
                        if _succeeded(status):
                            return content
                        # Refused once: the token may have been rotated since it was read.
                        refused = status == HTTPStatus.UNAUTHORIZED
                        tokens += refused
                        if not _passing(status) and not (refused and tokens == 1):
                            raise _error(status, content, verb, resource, what)
                        trouble = f"{status} {_said(content)}"
                        asked = answer.headers.get("retry-after", "")
                    await self._sleep(_pause(attempt, asked))
        except TimeoutError:
            pass
        raise ClusterError(f"can't {what}: the Kubernetes API was asked for {LIMIT:g} s in vain: {trouble}")

    def _ready(self) -> tuple[Connections, dict[str, str]]:
        """The connections and the headers of this moment. New connections are made when the API's CA has changed."""
        token = (self._folder / "token").read_text().strip()
        trusted = (self._folder / "ca.crt").read_text()
        if self._connections is None or trusted != self._trusted:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_verify_locations(cadata=trusted)
            if self._connections is not None:
                self._connections.retire()
            self._connections = Connections(self.address, context if self.address.startswith("https:") else None)
            self._trusted = trusted
        headers = {"Accept": "application/json", "Authorization": f"Bearer {token}", "User-Agent": USER_AGENT}
        return self._connections, headers


def in_cluster(environment: Mapping[str, str], folder: Path = SERVICE_ACCOUNT) -> Cluster | None:
    """The API of the cluster that this process runs in; None outside of one.

    Reads KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT, and the ServiceAccount's files in `folder`.
    """
    host = environment.get("KUBERNETES_SERVICE_HOST", "")
    if not host:
        return None
    if not (folder / "token").exists():
        logger.warning(
            "this Pod has no ServiceAccount token (%s): the Kubernetes API is not asked for anything; "
            "set automountServiceAccountToken: true",
            folder / "token",
        )
        return None
    port = environment.get("KUBERNETES_SERVICE_PORT", "443")
    return Cluster(f"https://{f'[{host}]' if ':' in host else host}:{port}", folder)


def _succeeded(status: int) -> bool:
    return status // 100 == 2


def _passing(status: int) -> bool:
    """Whether the same request may succeed a little later."""
    return status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR


def _pause(attempt: int, asked: str) -> float:
    """Seconds until the next try: what the server asks for (Retry-After) and full jitter on top."""
    least = float(asked) if asked.isascii() and asked.isdigit() else 0.0
    return least + random.uniform(0, min(LONGEST_PAUSE, 0.1 * 2 ** min(attempt, 9)))  # noqa: S311 (no secret)


def _error(status: int, content: bytes, verb: str, resource: _Resource, what: str) -> ClusterError:
    """The answer's error in words."""
    said = _said(content)
    if status == HTTPStatus.UNAUTHORIZED:
        return ClusterError(
            f"the Kubernetes API does not accept the ServiceAccount's token (401) to {what}: is the "
            "ServiceAccount still there, and is its token mounted?",
            status,
        )
    if status == HTTPStatus.FORBIDDEN:
        role = "Role" if resource.namespace else "ClusterRole"
        return ClusterError(
            f"the ServiceAccount may not {what} (403); add this rule to its {role}: "
            f"{{{resource.rule(verb)}}}; the API said: {said}",
            status,
        )
    if status == HTTPStatus.NOT_FOUND:
        return ClusterError(f"the Kubernetes API can't {what}: there is none (404): {said}", status)
    if status == HTTPStatus.CONFLICT:
        return Conflict(f"the Kubernetes API did not {what}: another writer was first (409): {said}", status)
    return ClusterError(f"the Kubernetes API can't {what}: {status} {said}", status)


def _said(content: bytes) -> str:
    """The message of the API's Status object, or the start of whatever came."""
    try:
        message = msgspec.json.decode(content, type=dict[str, Any]).get("message")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        message = None
    return quoted(message if isinstance(message, str) else content[:200].decode(errors="replace"), 300)


def _described(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {ATTEMPT:g} s"
    return f"{type(error).__name__} {error}".strip()


def _decoded(content: bytes, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ClusterError(f"the Kubernetes API's answer is not a {what}: {error}") from None
