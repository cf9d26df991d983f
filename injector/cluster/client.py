"""The few calls to the Kubernetes API: the Secret, our webhook configuration, Pods by label.

httpx2 is used directly instead of lightkube: lightkube does not retry, can't ask for metadata alone, and
costs each serving process 8 MB more and three times the import time, for five kinds of request.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import httpx2
import msgspec

from injector.errors import quoted

logger = logging.getLogger(__name__)

T = TypeVar("T")
Object = dict[str, Any]  # a Kubernetes object as it comes, so that fields we don't know survive

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
FIELD_MANAGER = "litestream-hook"
LIMIT = 10.0  # seconds for a call with all of its retries
ATTEMPT = 4.0  # seconds for one try
ATTEMPTS = 5
IDLE = 60.0  # seconds that a connection is kept for the next call
LONGEST_PAUSE = 2.0  # seconds between tries, unless the server asks for more
METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
RUNNING = "status.phase!=Succeeded,status.phase!=Failed"


class ClusterError(Exception):
    """A call to the Kubernetes API failed; the message says which one, why, and what to do.

    `status` is the HTTP status, or None where there was no answer.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Conflict(ClusterError):
    """Somebody else created or changed the object first: read it again."""


class PodMetadata(msgspec.Struct, rename="camel", frozen=True):
    """What the guard reads of a Pod. `deletion_timestamp` is when its grace period is over."""

    name: str = ""
    annotations: dict[str, str] | None = None
    deletion_timestamp: datetime | None = None
    deletion_grace_period_seconds: int | None = None


class _Pod(msgspec.Struct):
    metadata: PodMetadata


class _Pods(msgspec.Struct):
    items: list[_Pod] | None = None  # null when there are none


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
        """The RBAC rule that allows `verb`; creating can't be bound to a name."""
        names = f', resourceNames: ["{self.name}"]' if self.name and verb != "create" else ""
        return f'apiGroups: ["{self.group}"], resources: ["{self.plural}"]{names}, verbs: ["{verb}"]'


def _secrets(namespace: str, name: str | None = None) -> _Resource:
    return _Resource("", "v1", "secrets", namespace, name)


def _configurations(name: str) -> _Resource:
    return _Resource("admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations", None, name)


class Cluster:
    """The Kubernetes API as a ServiceAccount sees it.

    Every call raises ClusterError (Conflict for 409) after its retries, or after `limit` seconds.
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

    async def list_pods(self, namespace: str, label: str, limit: float = LIMIT) -> list[PodMetadata]:
        """The metadata of the namespace's Pods that carry `label` (`key=value`) and have not ended."""
        content = await self._call(
            "GET",
            "list",
            _Resource("", "v1", "pods", namespace),
            parameters={"labelSelector": label, "fieldSelector": RUNNING},
            accept=METADATA_ONLY,
            limit=limit,
        )
        return [pod.metadata for pod in _decoded(content, _Pods, "list of Pods").items or []]

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
        accept: str = "application/json",
        content_type: str = "application/json",
        limit: float = LIMIT,
        about: str | None = None,
    ) -> bytes:
        what = f"{verb} {resource._replace(name=about)}"
        query = dict(parameters or {}) if method == "GET" else {"fieldManager": FIELD_MANAGER}
        data = None if body is None else msgspec.json.encode(body)
        headers = {"Accept": accept} | ({} if data is None else {"Content-Type": content_type})
        trouble, tokens = "there was no answer", 0
        try:
            async with asyncio.timeout(limit):
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
            message = f"the Kubernetes API did not {what} within {limit:.1f} s: {trouble}"
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
