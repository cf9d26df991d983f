"""The caBundle of the webhooks that call us: by it the API server trusts what is served."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import random
from collections.abc import Awaitable, Callable

from injector.cluster.client import Cluster, ClusterError, Conflict
from injector.errors import quoted
from injector.options import Options
from injector.tls.certificate import blocks, same
from injector.values import Object

logger = logging.getLogger(__name__)

TRIES = 5  # of a write that others were faster at


class Bundle:
    """The field `caBundle` of the webhooks that call our Service, and of no others.

    It is the only field that is ever written, and only where it differs.
    """

    def __init__(self, options: Options, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._options = options
        self._sleep = sleep
        self._published: bytes | None = None  # what we wrote

    async def read(self, cluster: Cluster) -> list[bytes]:
        """The caBundle of each webhook that calls us; ClusterError if none does, or the API does not tell."""
        _, webhooks = await self._configuration(cluster)
        return [_ca_bundle(webhook) for webhook in webhooks]

    async def publish(self, cluster: Cluster, bundle: bytes) -> list[bytes]:
        """Write `bundle` into each caBundle that differs from it; returns what is there afterwards.

        Raises ClusterError as `read` does, or if it can't be written.
        """
        for attempt in range(TRIES):
            configuration, webhooks = await self._configuration(cluster)
            different = [webhook for webhook in webhooks if not same(_ca_bundle(webhook), bundle)]
            if not different:
                break
            if self._published == bundle:
                logger.warning(
                    "the caBundle of MutatingWebhookConfiguration %s was changed by somebody else, and is "
                    "written again; take the field out of your manifests, and let no tool replace the whole object",
                    self._options.webhook_configuration_name,
                )
            encoded = base64.b64encode(bundle).decode()
            patch = {
                "metadata": {"resourceVersion": configuration["metadata"]["resourceVersion"]},
                "webhooks": [{"name": webhook["name"], "clientConfig": {"caBundle": encoded}} for webhook in different],
            }
            try:
                await cluster.patch_webhook_configuration(self._options.webhook_configuration_name, patch)
            except Conflict:
                if attempt == TRIES - 1:
                    raise
                await self._sleep(random.uniform(0, 0.1 * 2**attempt))  # noqa: S311
                continue
            logger.info("wrote %d CA(s) into the caBundle of %d webhook(s)", len(blocks(bundle)), len(different))
            break
        self._published = bundle
        return [bundle]

    async def _configuration(self, cluster: Cluster) -> tuple[Object, list[Object]]:
        name = self._options.webhook_configuration_name
        configuration = await cluster.get_webhook_configuration(name)
        if configuration is None:
            raise ClusterError(
                f"there is no MutatingWebhookConfiguration {quoted(name)}: nobody calls this webhook; "
                "apply it, or set WEBHOOK_CONFIGURATION_NAME to its name"
            )
        webhooks = self._ours(configuration)
        if not webhooks:
            raise ClusterError(
                f"no webhook of MutatingWebhookConfiguration {quoted(name)} calls the Service "
                f"{self._options.service_name} in namespace {self._options.pod_namespace}; "
                "set SERVICE_NAME and POD_NAMESPACE to those that it calls"
            )
        return configuration, webhooks

    def _ours(self, configuration: Object) -> list[Object]:
        """The webhooks of the configuration that call our Service."""
        service = (self._options.service_name, self._options.pod_namespace)
        found = []
        for webhook in configuration.get("webhooks") or []:
            target = webhook.get("clientConfig", {}).get("service") or {}
            if (target.get("name"), target.get("namespace")) == service:
                found.append(webhook)
        return found


def _ca_bundle(webhook: Object) -> bytes:
    try:
        return base64.b64decode(webhook.get("clientConfig", {}).get("caBundle") or "")
    except (binascii.Error, ValueError):
        return b""
