"""The few calls to the Kubernetes API: the Secret, our webhook configuration, Leases, one Pod, a Namespace.

httpx2 is used directly instead of lightkube: lightkube does not retry, can't ask for metadata alone, and
costs each serving process 8 MB more and three times the import time, for five kinds of request.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import httpx2
import msgspec

from injector.errors import quoted
from injector.values import Object

logger = logging.getLogger(__name__)

T = TypeVar("T")

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
FIELD_MANAGER = "litestream-hook"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"  # of an object, and nothing else
WRITES = ("POST", "PUT", "PATCH")  # that have a field manager
LIMIT = 10.0  # seconds for a call with all of its retries
ATTEMPT = 4.0  # seconds for one try
ATTEMPTS = 5
IDLE = 60.0  # seconds that a connection is kept for the next call
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


class _List(msgspec.Struct):
    items: list[Object] | None = None  # null when there are none


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
        """The RBAC rule that allows `verb`; creating can't be bound to a name, and any Namespace may be asked for."""
        bound = self.name and verb != "create" and self.plural != "namespaces"
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

    Every call raises ClusterError (Conflict for 409) after its retries, or after LIMIT seconds.
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
        self._client: httpx2.AsyncClient | None = None
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
        try:
            client, token = self._connection()
            async with client.stream(
                "GET",
                self.address + resource._replace(name=None).path,
                params=query,
                headers={"Accept": "application/json", "Authorization": f"Bearer {token}"},
                timeout=httpx2.Timeout(ATTEMPT, read=WATCH + ATTEMPT),
            ) as response:
                if not response.is_success:
                    await response.aread()
                    raise _error(response, "watch", resource, f"watch {resource}")
                async for _ in response.aiter_lines():
                    yield
        except (httpx2.TransportError, OSError, ssl.SSLError) as error:
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
            if error.status != httpx2.codes.NOT_FOUND:
                raise

    async def list_leases(self, namespace: str, labels: Mapping[str, str] | None = None) -> list[Object]:
        """All Leases of the namespace, or those with these labels."""
        query = {"labelSelector": ",".join(f"{key}={value}" for key, value in labels.items())} if labels else {}
        content = await self._call("GET", "list", _leases(namespace), parameters=query)
        return _decoded(content, _List, "list of Leases").items or []

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
            if error.status == httpx2.codes.NOT_FOUND:
                return None
            raise
        return _decoded(content, Object, "Namespace's metadata")

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _read(self, resource: _Resource) -> Object | None:
        try:
            return await self._object("GET", "get", resource)
        except ClusterError as error:
            if error.status == httpx2.codes.NOT_FOUND:
                return None
            raise

    async def _object(
        self,
        method: str,
        verb: str,
        resource: _Resource,
        body: Object | None = None,
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
        body: Object | None = None,
        content_type: str = "application/json",
        about: str | None = None,
        accept: str = "application/json",
    ) -> bytes:
        what = f"{verb} {resource._replace(name=about)}"
        query = {"fieldManager": FIELD_MANAGER} if method in WRITES else dict(parameters or {})
        data = None if body is None else msgspec.json.encode(body)
        headers = {"Accept": accept} | ({} if data is None else {"Content-Type": content_type})
        trouble, tokens = "there was no answer", 0
        try:
            async with asyncio.timeout(LIMIT):
                for attempt in range(ATTEMPTS):
                    asked: str | None = None
                    try:
                        client, token = self._connection()
                        response = await client.request(
                            method,
                            self.address + resource.path,
                            params=query,
                            content=data,
                            headers=headers | {"Authorization": f"Bearer {token}"},
                        )
                    except (httpx2.TransportError, OSError, ssl.SSLError) as error:
                        trouble = _described(error)
                    else:
                        if response.is_success:
                            return response.content
                        # Refused once: the token may have been rotated since it was read.
                        refused = response.status_code == httpx2.codes.UNAUTHORIZED
                        tokens += refused
                        if not _passing(response.status_code) and not (refused and tokens == 1):
                            raise _error(response, verb, resource, what)
                        trouble = f"{response.status_code} {_said(response)}"
                        asked = response.headers.get("Retry-After")
                    if attempt < ATTEMPTS - 1:
                        await self._sleep(_pause(attempt, asked))
        except TimeoutError:
            message = f"the Kubernetes API did not {what} within {LIMIT:g} s: {trouble}"
            raise ClusterError(message) from None
        raise ClusterError(f"the Kubernetes API can't {what}: {trouble} ({ATTEMPTS} tries)")

    def _connection(self) -> tuple[httpx2.AsyncClient, str]:
        """The client and the token of this moment. A new client is made when the API's CA has changed."""
        token = (self._folder / "token").read_text().strip()
        trusted = (self._folder / "ca.crt").read_text()
        if self._client is None or trusted != self._trusted:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_verify_locations(cadata=trusted)
            # The old client is left to its requests in flight; its connections close with it.
            limits = httpx2.Limits(keepalive_expiry=IDLE)
            self._client = httpx2.AsyncClient(verify=context, trust_env=False, timeout=ATTEMPT, limits=limits)
            self._trusted = trusted
        return self._client, token


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


def _passing(status: int) -> bool:
    """Whether the same request may succeed a little later."""
    return status == httpx2.codes.TOO_MANY_REQUESTS or status >= httpx2.codes.INTERNAL_SERVER_ERROR


def _pause(attempt: int, asked: str | None) -> float:
    """Seconds until the next try: what the server asks for (Retry-After) and full jitter on top."""
    least = float(asked) if asked is not None and asked.isascii() and asked.isdigit() else 0.0
    return least + random.uniform(0, min(LONGEST_PAUSE, 0.1 * 2**attempt))  # noqa: S311 (no secret)


def _error(response: httpx2.Response, verb: str, resource: _Resource, what: str) -> ClusterError:
    """The answer's error in words."""
    status, said = response.status_code, _said(response)
    if status == httpx2.codes.UNAUTHORIZED:
        return ClusterError(
            f"the Kubernetes API does not accept the ServiceAccount's token (401) to {what}: is the "
            "ServiceAccount still there, and is its token mounted?",
            status,
        )
    if status == httpx2.codes.FORBIDDEN:
        role = "Role" if resource.namespace else "ClusterRole"
        return ClusterError(
            f"the ServiceAccount may not {what} (403); add this rule to its {role}: "
            f"{{{resource.rule(verb)}}}; the API said: {said}",
            status,
        )
    if status == httpx2.codes.NOT_FOUND:
        return ClusterError(f"the Kubernetes API can't {what}: there is none (404): {said}", status)
    if status == httpx2.codes.CONFLICT:
        return Conflict(f"the Kubernetes API did not {what}: another writer was first (409): {said}", status)
    return ClusterError(f"the Kubernetes API can't {what}: {status} {said}", status)


def _said(response: httpx2.Response) -> str:
    """The message of the API's Status object, or the start of whatever came."""
    try:
        message = msgspec.json.decode(response.content, type=dict[str, Any]).get("message")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        message = None
    return quoted(message if isinstance(message, str) else response.text[:200], 300)


def _described(error: Exception) -> str:
    if isinstance(error, httpx2.TimeoutException):
        return f"no answer within {ATTEMPT:g} s"
    return f"{type(error).__name__} {error}".strip()


def _decoded(content: bytes, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ClusterError(f"the Kubernetes API's answer is not a {what}: {error}") from None
