"""Keeping a valid certificate served: the loop that does it.

Rotation never lets a handshake fail, because every step waits for the one before:
a new CA is written beside the old one → every replica puts both into the caBundle → SETTLE later a leaf of
the new CA is written → each replica serves it once the caBundle it sees has trusted it for PROPAGATION →
the old CA is dropped when it expires, and with it the last leaf that it can have signed.
"""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
import ssl
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from injector.cluster.client import Cluster, ClusterError, Conflict
from injector.options import Options
from injector.tls import source
from injector.tls.bundle import TRIES, Bundle
from injector.tls.certificate import BadCertificate, Pair, blocks, facts, is_ca_named
from injector.tls.context import cached_context, outer_context, why_untrusted
from injector.tls.renewal import JITTER, ca_name, decide
from injector.tls.source import Shared

logger = logging.getLogger(__name__)

PROPAGATION = timedelta(seconds=30)  # from a trusting caBundle until every API server has seen it
POLL = 30.0  # seconds between two looks at the files or the Secret
MEND = 1.0  # seconds at most until a changed webhook configuration is looked at
SOON = 2.0  # the same, while not ready or waiting for something

Kind = Literal["mounted", "secret", "ephemeral"]
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Served:
    """The certificate that is served, for logs and metrics. `names` and `issuer` as it states them."""

    source: Kind
    not_before: datetime
    not_after: datetime
    names: tuple[str, ...]
    issuer: str


class Certificates:
    """The certificate that is served, kept valid.

    `ssl_context` stays the same for the process's life: each connection takes the certificate of its
    moment from it. `start` obtains the first one, `run` keeps it.
    """

    def __init__(
        self,
        options: Options,
        cluster: Cluster | None,
        now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._options = options
        self._cluster = cluster
        self._bundle = Bundle(options, sleep)
        self._now = now
        self._sleep = sleep
        self._jitter = random.uniform(0, JITTER)  # noqa: S311 (spreads work, hides nothing)
        service = f"{options.service_name}.{options.pod_namespace}.svc"
        self._names = (service, f"{service}.cluster.local")

        self._served: Served | None = None
        self._shown: tuple[Pair, bytes] | None = None  # what is served, with the CA that verifies clients
        self._inner: ssl.SSLContext | None = None
        self._pending: tuple[Pair, datetime] | None = None  # trusted since then, served a little later
        self._shared: Shared | None = None  # the last that we saw
        self._local: Path | None = None  # folder of an ephemeral CA
        self._changed = asyncio.Event()  # the webhook configuration, since it was last looked at
        self._ready = False
        self._reason = "there is no certificate yet"
        self._complaints: set[str] = set()  # of the last look: each is logged once, not every time
        self._latest: set[str] = set()

        self.ssl_context = outer_context(bool(options.client_ca_file))
        self.ssl_context.sni_callback = self._choose

    async def start(self) -> None:
        """Obtain the first certificate.

        Raises BadCertificate if mounted files can't be used. If the API can't be reached, returns without
        a certificate: `run` tries again.
        """
        await self._look(first=True)

    async def run(self) -> None:
        """Look again and again, until cancelled. An error is logged; what is served stays."""
        watching = asyncio.create_task(self._watch())
        try:
            while True:
                waiting = not self._ready or self._pending is not None
                await self._pause((SOON if waiting else POLL) * random.uniform(0.9, 1.1))  # noqa: S311
                try:
                    await self._look(first=False)
                except Exception:  # a loop that ended would end in an expired certificate
                    logger.exception("keeping the certificate valid failed; the one that is served stays")
        finally:
            watching.cancel()
            if self._local is not None:
                shutil.rmtree(self._local, ignore_errors=True)

    async def _pause(self, seconds: float) -> None:
        """Until the time is over, or the webhook configuration has changed."""
        over = asyncio.ensure_future(self._sleep(seconds))
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait({over, changed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
            changed.cancel()
        if self._changed.is_set():
            # So that not all replicas mend it at once, and a fight with somebody else is a slow one.
            await self._sleep(random.uniform(0, MEND))  # noqa: S311
            self._changed.clear()

    async def _watch(self) -> None:
        """Note every change of the webhook configuration, until cancelled: admissions fail without its caBundle."""
        if self._cluster is None:
            return
        said = ""
        while True:
            try:
                async for _ in self._cluster.watch_webhook_configuration(self._options.webhook_configuration_name):
                    self._changed.set()
            except ClusterError as error:
                if str(error) != said:
                    logger.warning("a changed caBundle is noticed within %g s only: %s", POLL, error)
                said = str(error)
                await self._sleep(POLL)

    def ready(self) -> bool:
        """Whether the API server trusts, or once trusted, what is served."""
        return self._ready

    def why_not_ready(self) -> str:
        """The reason; empty when ready."""
        return "" if self._ready else self._reason

    def current(self) -> Served | None:
        """The certificate that is served; None before the first."""
        return self._served

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _: ssl.SSLContext) -> int | None:
        if self._inner is None:
            return ssl.AlertDescription.ALERT_DESCRIPTION_INTERNAL_ERROR
        connection.context = self._inner
        return None

    async def _look(self, *, first: bool) -> None:
        """One round: find the certificate of this moment, serve it when it is time, see who trusts it."""
        try:
            client_ca = self._client_ca()
            pair = source.mounted(Path(self._options.cert_dir))
            if pair is not None:
                cached_context(pair, client_ca)  # refuse what can't be served before anything else
                await self._offer("mounted", pair, client_ca)
            elif self._served is not None and self._served.source == "mounted":
                raise BadCertificate(f"the files are gone from {self._options.cert_dir}")
            elif self._cluster is not None:
                await self._share(self._cluster, client_ca)
            else:
                self._improvise(client_ca)
        except (BadCertificate, OSError) as error:
            if first:
                raise BadCertificate(f"{self._options.cert_dir}: {error}") from None
            self._complain(f"{self._options.cert_dir}: {error}; the certificate in use stays")
        except ClusterError as error:
            self._complain(str(error))
        finally:
            self._complaints, self._latest = self._latest, set()

    def _complain(self, text: str) -> None:
        if not self._ready:
            self._reason = text
        self._latest.add(text)
        if text not in self._complaints:
            logger.warning("%s", text)

    def _client_ca(self) -> bytes:
        if not self._options.client_ca_file:
            return b""
        try:
            content = Path(self._options.client_ca_file).read_bytes()
        except OSError as error:
            raise BadCertificate(f"CLIENT_CA_FILE can't be read: {error}") from None
        if not blocks(content):
            raise BadCertificate("CLIENT_CA_FILE holds no certificate (PEM is expected)")
        return content

    # Mounted files and anything else: when to serve it

    async def _offer(self, kind: Kind, pair: Pair, client_ca: bytes) -> None:
        """Serve `pair` as soon as that breaks nothing, and note whether what is served is trusted."""
        if self._shown == (pair, client_ca) and self._ready:
            self._pending = None
            return
        if self._cluster is None:
            self._serve(kind, pair, client_ca)
            self._trusted()
            return
        if self._shown is None:  # nothing to lose, whatever the API says
            self._serve(kind, pair, client_ca)
        try:
            bundles = await self._bundle.read(self._cluster)
        except ClusterError:
            if kind == "mounted":
                self._serve(kind, pair, client_ca)
            raise
        self._judge(kind, pair, client_ca, bundles)

    def _judge(self, kind: Kind, pair: Pair, client_ca: bytes, bundles: Sequence[bytes]) -> None:
        """Serve `pair` if it is time, by the caBundles that the API server has for us."""
        now = self._now()
        if self._shown is None or self._shown[0] == pair or self._refusal(self._shown[0], bundles):
            self._serve(kind, pair, client_ca)
        elif refusal := self._refusal(pair, bundles):
            self._pending = (pair, datetime.max.replace(tzinfo=now.tzinfo))
            self._complain(f"a new certificate waits until the caBundle trusts it: {refusal}")
        elif self._pending is None or self._pending[0] != pair or self._pending[1] > now:
            self._pending = (pair, now)
        elif now - self._pending[1] >= PROPAGATION:
            self._serve(kind, pair, client_ca)
        if self._shown is not None and (refusal := self._refusal(self._shown[0], bundles)):
            self._complain(
                "the API server does not trust the certificate that is served, by the caBundle of "
                f"MutatingWebhookConfiguration {self._options.webhook_configuration_name}: {refusal}"
            )
        else:
            self._trusted()

    def _refusal(self, pair: Pair, bundles: Sequence[bytes]) -> str:
        """Why a caBundle does not trust `pair`; empty if each does."""
        context, dates = cached_context(pair), facts(pair.certificate)
        reasons = (why_untrusted(context, dates, bundle, self._names[0], self._now()) for bundle in bundles)
        return next(filter(None, reasons), "")

    def _trusted(self) -> None:
        if not self._ready:
            self._ready = True
            logger.info("callers trust the certificate that is served")

    def _serve(self, kind: Kind, pair: Pair, client_ca: bytes) -> None:
        self._pending = None
        if self._shown == (pair, client_ca):
            return
        dates = facts(pair.certificate)
        self._inner = cached_context(pair, client_ca)
        self._shown = (pair, client_ca)
        self._served = Served(kind, dates.not_before, dates.not_after, dates.names, dates.issuer)
        logger.info(
            "serving a certificate: source %s, names %s, valid until %s, issuer %s",
            kind,
            " ".join(dates.names),
            dates.not_after.isoformat(),
            dates.issuer,
        )

    # The shared Secret

    async def _share(self, cluster: Cluster, client_ca: bytes) -> None:
        """Adopt, create or renew what the replicas share; publish its CAs; serve its leaf."""
        for attempt in range(TRIES):
            try:
                shared = await self._agree(cluster)
                break
            except Conflict:
                if attempt == TRIES - 1:
                    raise
                await self._sleep(random.uniform(0, 0.1 * 2**attempt))  # noqa: S311
        self._shared = shared
        if self._shown is None:
            self._serve("secret", shared.leaf, client_ca)
        bundles = await self._bundle.publish(cluster, shared.bundle)
        self._judge("secret", shared.leaf, client_ca, bundles)

    async def _agree(self, cluster: Cluster) -> Shared:
        """What the Secret holds, after writing it if it has to change. Conflict: somebody was faster."""
        namespace, name = self._options.pod_namespace, self._options.tls_secret_name
        secret = await cluster.get_secret(namespace, name)
        stored = None if secret is None else source.content(secret)
        decision = decide(stored, self._names, self._now(), self._jitter, await self._to_keep(cluster, stored))
        if not decision.change:
            return decision.shared
        wanted = source.write(secret, namespace, name, decision.shared)
        if secret is None:
            await cluster.create_secret(namespace, wanted)
        else:
            await cluster.replace_secret(namespace, wanted)
        level = logging.WARNING if decision.damaged else logging.INFO
        logger.log(level, "Secret %s in namespace %s was written: %s", name, namespace, decision.change)
        return decision.shared

    async def _to_keep(self, cluster: Cluster, stored: Mapping[str, bytes] | None) -> list[bytes]:
        """CAs that other replicas may still serve leaves of, if the Secret is lost or unusable."""
        try:
            if stored is not None:
                source.read(stored, ca_name(self._names))
                return []
        except BadCertificate:
            pass
        known = blocks(self._shared.bundle) if self._shared else []
        try:
            published = [ca for bundle in await self._bundle.read(cluster) for ca in blocks(bundle)]
        except ClusterError:
            return known
        return known + [ca for ca in published if is_ca_named(ca, ca_name(self._names))]

    # Outside a cluster

    def _improvise(self, client_ca: bytes) -> None:
        """A pair of our own, kept in memory; its CA is written to a file for those who call."""
        stored = None if self._shared is None else source.fields(self._shared)
        decision = decide(stored, (*LOCAL_NAMES, *self._names), self._now(), self._jitter)
        if decision.change:
            self._shared = decision.shared
            if self._local is None:
                self._local = Path(tempfile.mkdtemp(prefix="litestream-hook-"))
            path = self._local / source.CA_BUNDLE
            path.write_bytes(self._shared.bundle)
            logger.info("made a certificate for local use: callers trust it with the CA in %s", path)
        self._serve("ephemeral", decision.shared.leaf, client_ca)
        self._trusted()


def open_certificates(
    options: Options, cluster: Cluster | None, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Certificates:
    """The certificates of this process: mounted, from the Secret, or (without a cluster) ephemeral."""
    return Certificates(options, cluster, now)
