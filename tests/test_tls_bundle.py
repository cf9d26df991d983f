"""The one field that the webhook writes in its configuration, against a stand-in's API."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING

import pytest

from injector.cluster.client import ClusterError
from injector.tls.bundle import Bundle
from tests import standin
from tests.standin import Api, Direct
from tests.tls import START, Clock, made, opts, published

if TYPE_CHECKING:
    from injector.values import Object

CA = made(START)[0].certificate


def configured(*webhooks: Object) -> Api:
    api = Api()
    api.put("mutatingwebhookconfigurations", "", standin.configuration(*webhooks))
    return api


def bundle() -> Bundle:
    return Bundle(opts(), Clock().sleep)


def patches(api: Api) -> int:
    return sum(request.startswith("PATCH") for request in api.requests)


def test_only_the_field_that_is_ours_is_patched_and_only_where_it_differs() -> None:
    foreign = standin.webhook("foreign.example.com", service="other", ca_bundle="Zm9yZWlnbg==")
    api = configured(standin.webhook("pods.example.com"), standin.webhook("workloads.example.com"), foreign)
    before = copy.deepcopy(api.configuration())
    assert asyncio.run(bundle().publish(Direct(api), CA)) == [CA]
    assert published(api) == [CA, CA, b"foreign"]
    after = copy.deepcopy(api.configuration())
    for webhook in after["webhooks"][:2]:
        del webhook["clientConfig"]["caBundle"]
    assert after["webhooks"] == before["webhooks"]
    assert after["metadata"] | {"resourceVersion": ""} == before["metadata"] | {"resourceVersion": ""}
    for _ in range(3):
        assert asyncio.run(bundle().publish(Direct(api), CA)) == [CA]
    assert patches(api) == 1


def test_a_bundle_that_somebody_else_took_away_is_written_again_with_advice(caplog: pytest.LogCaptureFixture) -> None:
    api, ours = configured(), bundle()
    asyncio.run(ours.publish(Direct(api), CA))
    assert caplog.text == ""
    api.put("mutatingwebhookconfigurations", "", standin.configuration())
    asyncio.run(ours.publish(Direct(api), CA))
    assert published(api) == [CA] * 2
    assert "take the field out of your manifests" in caplog.text


def test_what_is_no_base64_counts_as_empty_and_other_services_are_not_looked_at() -> None:
    others = standin.webhook("foreign.example.com", service="other", ca_bundle="Zm9yZWlnbg==")
    api = configured(standin.webhook("pods.example.com", ca_bundle="x"), others)
    assert asyncio.run(bundle().read(Direct(api))) == [b""]


@pytest.mark.parametrize(
    ("api", "why"),
    [
        (Api(), 'there is no MutatingWebhookConfiguration "litestream-hook"'),
        (configured(standin.webhook("a.example.com", "other")), "set SERVICE_NAME and POD_NAMESPACE"),
    ],
    ids=["none", "of another Service"],
)
def test_a_configuration_that_calls_nobody_is_an_error(api: Api, why: str) -> None:
    with pytest.raises(ClusterError, match=why):
        asyncio.run(bundle().read(Direct(api)))
    with pytest.raises(ClusterError, match=why):
        asyncio.run(bundle().publish(Direct(api), CA))
