"""AdmissionReviews for tests: an object in, the webhook's answer and the patched object out."""

import asyncio
import base64
import json
from typing import Any

import jsonpatch

from injector import GROUP, options
from injector.admission import webhook
from injector.annotations.defaults import NONE, Defaults
from injector.options import Options
from injector.pod.claim import Refusal

DEFAULTS = options.read({})
Object = dict[str, Any]


def review(obj: Any, operation: str = "CREATE", namespace: str = "default", **request: Any) -> Object:
    """The AdmissionReview that an API server sends for an object."""
    group, _, version = str(obj.get("apiVersion", "v1")).rpartition("/") if isinstance(obj, dict) else ("", "", "v1")
    kind = obj.get("kind", "Pod") if isinstance(obj, dict) else "Pod"
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": group, "version": version, "kind": kind},
            "operation": operation,
            "namespace": namespace,
            "object": obj,
            **request,
        },
    }


class Fixed:
    """One answer to what holds in any namespace."""

    def __init__(self, defaults: Defaults | Refusal) -> None:
        self._defaults = defaults

    async def of(self, namespace: str) -> Defaults | Refusal:
        del namespace
        return self._defaults


def answer(
    obj: Any,
    operation: str = "CREATE",
    *,
    namespace: str = "default",
    options: Options = DEFAULTS,
    defaults: Defaults | Refusal = NONE,
    defaulting: webhook.Defaulting | None = None,
    **request: Any,
) -> webhook.Answer:
    """The webhook's HTTP answer to an object, where `defaults` hold."""
    body = json.dumps(review(obj, operation, namespace, **request)).encode()
    return asyncio.run(webhook.answer("POST", "/mutate", body, options, None, defaulting or Fixed(defaults)))


def response(obj: Any, operation: str = "CREATE", **rest: Any) -> Object:
    """The AdmissionReview's `response` to an object."""
    found = answer(obj, operation, **rest)
    assert found.status == 200, found.body
    body: Object = json.loads(found.body)
    assert (body["apiVersion"], body["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    reply: Object = body["response"]
    return reply


def operations(reply: Object) -> list[Object]:
    """The JSON Patch in a response."""
    found: list[Object] = json.loads(base64.b64decode(reply["patch"])) if "patch" in reply else []
    return found


def injected(obj: Object, **rest: Any) -> Object:
    """The object with the webhook's patch applied by an independent library; it must be allowed."""
    reply = response(obj, **rest)
    assert reply["allowed"], reply["status"]["message"]
    patched: Object = jsonpatch.apply_patch(obj, operations(reply))
    return patched


def pod(spec: Object | None = None, metadata: Object | None = None, /, **annotations: str) -> Object:
    """A Pod that asks for injection; annotations of our group as keywords, with `_` for `-`.

    Without a spec it has one container, `app`, of user 1000; a spec's own securityContext wins.
    """
    own = {f"{GROUP}/{key.replace('_', '-')}": text for key, text in {"inject": "true", **annotations}.items()}
    default = {"securityContext": {"runAsUser": 1000}, "containers": [{"name": "app", "image": "example.com/app:1"}]}
    named = {"name": "web", **(metadata or {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**named, "annotations": {**named.get("annotations", {}), **own}},
        "spec": {**default, **(spec or {})},
    }


def denied(obj: Object, operation: str = "CREATE", **rest: Any) -> dict[str, str]:
    """The violations that the webhook denies an object for: message by field, ours without the group."""
    reply = response(obj, operation, **rest)
    assert not reply["allowed"], "allowed"
    assert reply["status"]["code"] == 422
    causes: list[dict[str, str]] = reply["status"]["details"]["causes"]
    assert all(cause["message"] in reply["status"]["message"] for cause in causes)
    return {cause["field"].removeprefix(f"{GROUP}/"): cause["message"] for cause in causes}


def warned(obj: Object, operation: str = "CREATE", **rest: Any) -> str:
    """The warnings of an allowed object, one a line."""
    reply = response(obj, operation, **rest)
    assert reply["allowed"], reply["status"]["message"]
    return "\n".join(reply.get("warnings", []))
