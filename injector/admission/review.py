"""AdmissionReview of admission.k8s.io/v1: what the API server sends, and the answers it understands."""

import base64
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

import msgspec

from injector.errors import BadReview, Violation

API_VERSION = "admission.k8s.io/v1"
# Kubernetes cuts warnings at 256 characters once all of them together pass 4096.
LONGEST_WARNING = 1024
MOST_WARNINGS = 200
# Objects and lists in one review. Each takes up to a hundred times its place in JSON when it is decoded; an update
# sends an object twice, and the largest one that etcd stores by default has some 25,000 of a usual length.
MOST_NODES = 50_000
_NO_NODE = bytes(set(range(256)).difference(b"{["))


class GroupVersionKind(TypedDict):
    """metav1.GroupVersionKind."""

    group: NotRequired[str]
    version: NotRequired[str]
    kind: str


class Request(TypedDict):
    """The part of an AdmissionRequest that is read."""

    uid: str
    kind: GroupVersionKind
    operation: str
    subResource: NotRequired[str | None]
    name: NotRequired[str | None]
    namespace: NotRequired[str | None]
    dryRun: NotRequired[bool | None]
    object: NotRequired[dict[str, Any] | None]
    oldObject: NotRequired[dict[str, Any] | None]


class _Review(msgspec.Struct, rename="camel"):
    kind: str
    api_version: str
    request: Request | None = None


class _Response(msgspec.Struct):
    allowed: bool
    status: dict[str, Any] = {}
    warnings: list[str] = []
    patch: str = "W10="  # [] in base64


class _Reply(msgspec.Struct):
    response: _Response


# Its own reading of floats takes ten microseconds for 1.5e300.
_decoder = msgspec.json.Decoder(_Review, float_hook=float)
_encoder = msgspec.json.Encoder()


def nodes(body: bytes) -> int:
    """At most how many objects and lists are in a JSON text; those in strings count too."""
    return len(body.translate(None, _NO_NODE))


def read(body: bytes) -> Request:
    """The request in an AdmissionReview.

    Raises:
        BadReview: for anything else, in one sentence.
    """
    # Each takes two bytes at least; what is never closed ends with the depth that is taken.
    if len(body) > 2 * MOST_NODES and nodes(body) > MOST_NODES:
        raise BadReview(f"an AdmissionReview has at most {MOST_NODES} objects and lists")
    try:
        review = _decoder.decode(body)
    except msgspec.ValidationError as error:
        raise BadReview(f"not an AdmissionReview of {API_VERSION}: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadReview(f"not JSON: {error}") from None
    except RecursionError:
        raise BadReview("not JSON that can be read: nested too deeply") from None
    if (review.kind, review.api_version) != ("AdmissionReview", API_VERSION):
        raise BadReview(f"not an AdmissionReview of {API_VERSION}, by its kind and apiVersion")
    if review.request is None or not review.request["uid"]:
        raise BadReview("the AdmissionReview has no request with a uid")
    return review.request


def sent(found: Mapping[str, Any], namespace: str) -> dict[str, Any]:
    """The AdmissionReview that an API server sends when an object is created: for files and trials."""
    group, _, version = str(found.get("apiVersion") or "v1").rpartition("/")
    metadata = found.get("metadata") or {}
    request = {
        "uid": str(uuid.uuid4()),
        "kind": {"group": group, "version": version, "kind": str(found.get("kind"))},
        "operation": "CREATE",
        "name": metadata.get("name") or "",
        "namespace": namespace,
        "dryRun": False,
        "object": found,
    }
    return {"apiVersion": API_VERSION, "kind": "AdmissionReview", "request": request}


def received(body: bytes) -> tuple[bool, str, list[str], list[dict[str, Any]]]:
    """An answer: whether it allows, its message, its warnings, and the operations of its patch.

    Raises:
        BadReview: if it is no AdmissionReview with a response.
    """
    try:
        response = msgspec.json.decode(body, type=_Reply).response
        operations = msgspec.json.decode(base64.b64decode(response.patch), type=list[dict[str, Any]])
    except (ValueError, RecursionError):
        raise BadReview(f"not the answer of a webhook: {body[:200].decode(errors='replace')}") from None
    return response.allowed, response.status.get("message", ""), response.warnings, operations


def allowed(uid: str, warnings: Sequence[str] = (), audit: Mapping[str, str] | None = None) -> bytes:
    """The answer that lets an object pass as it is."""
    return _answer(uid, True, warnings, audit)


def patched(
    uid: str, operations: Sequence[Mapping[str, Any]], warnings: Sequence[str], audit: Mapping[str, str]
) -> bytes:
    """The answer that lets an object pass with a JSON Patch (RFC 6902) applied to it."""
    if not operations:
        return allowed(uid, warnings, audit)
    # Bytes are base64 in JSON.
    return _answer(uid, True, warnings, audit, patchType="JSONPatch", patch=_encoder.encode(operations))


def denied(
    uid: str, code: int, message: str, violations: Sequence[Violation] = (), warnings: Sequence[str] = ()
) -> bytes:
    """The answer that refuses an object, with the HTTP code and message that its author is shown.

    The status has no `reason`: with one, kubectl prints only a part of the message.
    """
    status: dict[str, Any] = {"status": "Failure", "code": code, "message": message}
    if violations:
        causes = [{"field": violation.field, "message": str(violation)} for violation in violations]
        status["details"] = {"causes": causes}
    return _answer(uid, False, warnings, None, status=status)


def _answer(
    uid: str,
    is_allowed: bool,  # noqa: FBT001 (the wire's own word)
    warnings: Sequence[str],
    audit: Mapping[str, str] | None,
    **rest: Any,  # noqa: ANN401 (fields of the AdmissionResponse)
) -> bytes:
    response: dict[str, Any] = {"uid": uid, "allowed": is_allowed, **rest}
    if warnings:
        response["warnings"] = [warning[:LONGEST_WARNING] for warning in warnings[:MOST_WARNINGS]]
    if audit:
        response["auditAnnotations"] = dict(audit)
    return _encoder.encode({"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response})
