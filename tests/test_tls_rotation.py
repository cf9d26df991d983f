"""Replicas that keep a certificate valid against a stand-in's API."""

import asyncio
import base64
import logging
import random
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from injector.cluster import client
from injector.tls import BadCertificate, Certificates, rotation, source
from injector.tls.certificate import Pair, blocks, make_leaf
from injector.tls.renewal import decide
from injector.tls.rotation import PROPAGATION
from injector.tls.source import Shared
from tests import standin
from tests.standin import NAME as SERVICE
from tests.standin import NAMESPACE, SECRET, Api, Direct, Fault, Server
from tests.tls import (
    CA_NAME,
    NAME,
    NAMES,
    START,
    Clock,
    call,
    certificates,
    listening,
    made,
    mount,
    opts,
    published,
    trusting,
)

DAY = timedelta(days=1)
CA, LEAF = made(START)
STORED = source.fields(Shared(CA, (), LEAF))


def now() -> datetime:
    return datetime.now(UTC)


# Replicas and the API


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "account").mkdir()
    with standin.serving(tmp_path / "account") as found:
        found.api.put("mutatingwebhookconfigurations", "", standin.configuration())
        yield found


@pytest.fixture
def api() -> Api:
    found = Api()
    found.put("mutatingwebhookconfigurations", "", standin.configuration())
    return found


def replica(api: Api, clock: Clock, cert_dir: Path | str = "/nonexistent", **more: str) -> Certificates:
    return certificates(Direct(api), clock, cert_dir, **more)


def look(held: Certificates, times: int = 1) -> None:
    async def main() -> None:
        for _ in range(times):
            await held._look(first=False)

    asyncio.run(main())


def served(held: Certificates) -> bytes:
    assert held._shown is not None
    return held._shown[0].certificate


def patches(api: Api) -> int:
    return sum(request.startswith("PATCH") for request in api.requests)


def stored_in(api: Api) -> Shared:
    return source.read(source.content(api.secret()), CA_NAME)


@pytest.mark.slow
def test_twenty_replicas_at_once_end_with_one_ca_and_one_certificate(server: Server) -> None:
    """Each with its own connections, over TLS."""

    async def main() -> None:
        clusters = [server.cluster() for _ in range(20)]
        replicas = [certificates(cluster, now) for cluster in clusters]
        await asyncio.gather(*(held.start() for held in replicas))
        assert all(held.ready() for held in replicas), [held.why_not_ready() for held in replicas]
        assert len({served(held) for held in replicas}) == 1
        bundle = stored_in(server.api).bundle
        assert published(server.api) == [bundle, bundle]
        assert len(blocks(bundle)) == 1
        async with listening(replicas[7].ssl_context) as port:
            await call(port, trusting(bundle))
        await asyncio.gather(*(cluster.close() for cluster in clusters))

    asyncio.run(main())


def test_the_certificate_and_its_dates_are_told(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    held = replica(api, Clock())
    asyncio.run(held.start())
    current = held.current()
    assert current is not None
    assert current.source == "secret"
    assert current.names == NAMES
    assert current.not_after == START + 90 * DAY
    assert current.issuer == f"CN={CA_NAME}"
    assert "source secret" in caplog.text
    assert "2026-04-01T00:00:00+00:00" in caplog.text
    assert "PRIVATE" not in caplog.text


def test_no_key_is_logged_or_shown(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    clock = Clock()
    held = replica(api, clock)
    asyncio.run(held.start())
    keys = [stored_in(api).ca.key, stored_in(api).leaf.key]
    clock.time += 300 * DAY  # a new CA and a new certificate
    look(held, 3)
    api.put("secrets", NAMESPACE, api.secret() | {"data": api.secret()["data"] | {"ca.key": "ZGFtYWdlZA=="}})
    look(held)
    keys += [stored_in(api).ca.key, stored_in(api).leaf.key]
    said = caplog.text + repr(stored_in(api)) + repr(decide(source.fields(stored_in(api)), NAMES, clock.time))
    assert "was written" in said
    assert "PRIVATE" not in said
    for key in keys:
        assert key.decode().splitlines()[1] not in said  # the rest is the public key, as in the certificate


def test_a_ca_that_nobody_is_to_trust_any_more_can_be_got_rid_of(api: Api) -> None:
    """As the operator does it: no replica running, no Secret, no caBundle."""
    asyncio.run(replica(api, Clock()).start())
    lost = stored_in(api).ca.certificate
    del api.objects["secrets", NAMESPACE, SECRET]
    api.put("mutatingwebhookconfigurations", "", standin.configuration())
    asyncio.run(replica(api, Clock()).start())
    assert len(blocks(published(api)[0])) == 1
    assert lost not in published(api)[0]


@pytest.mark.parametrize("key", ["ca.crt", "ca.key", "tls.crt", "tls.key"])
def test_a_damaged_secret_is_replaced_while_the_served_certificate_stays_trusted(
    api: Api, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    first, second = replica(api, clock), replica(api, clock)
    asyncio.run(first.start())
    asyncio.run(second.start())
    before, secret = served(first), api.secret()
    api.put("secrets", NAMESPACE, secret | {"data": secret["data"] | {key: "ZGFtYWdlZA=="}})
    restarted = replica(api, clock)  # knows nothing of before
    asyncio.run(restarted.start())
    assert f"Secret {SECRET} in namespace {NAMESPACE} was written: " in caplog.text
    for held in (first, second):
        assert accepted(published(api), before, clock.time)
        look(held)
        clock.time += PROPAGATION + timedelta(seconds=1)
        look(held)
    assert served(first) == served(second) == served(restarted) == stored_in(api).leaf.certificate
    assert served(first) != before


def test_a_deleted_secret_is_made_anew_without_a_gap(api: Api) -> None:
    clock = Clock()
    first, second = replica(api, clock), replica(api, clock)
    asyncio.run(first.start())
    asyncio.run(second.start())
    before = served(first)
    del api.objects["secrets", NAMESPACE, SECRET]
    look(first)
    assert served(first) == served(second) == before  # the API servers may not know the new CA yet
    assert accepted(published(api), before, clock.time)
    clock.time += PROPAGATION
    look(first)
    assert served(first) == stored_in(api).leaf.certificate != before
    look(second)
    assert served(second) == before
    clock.time += PROPAGATION
    look(second)
    assert served(second) == served(first)


FAULTS = [Fault(status, 10**9) for status in (500, 0, 403, 409, 429, 401)]


@pytest.mark.slow
@pytest.mark.parametrize("resource", ["secrets", "mutatingwebhookconfigurations"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.status or "reset"))
@pytest.mark.parametrize("when", ["start", "later"])
def test_no_fault_of_the_api_stops_serving(
    server: Server, fault: Fault, resource: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is short while there is a fault alone: a sound answer may take its time on a busy machine."""

    async def main() -> None:
        clock = Clock(now())
        cluster = server.cluster()
        cluster._sleep = clock.sleep
        held = certificates(cluster, clock)
        wrong = Fault(fault.status, fault.times, resource=resource)
        if when == "later":
            await held.start()
            server.api.faults.append(wrong)
            with monkeypatch.context() as patched:
                patched.setattr(client, "LIMIT", 0.5)
                await held._look(first=False)
            assert held.ready()
            async with listening(held.ssl_context) as port:
                await call(port, trusting(stored_in(server.api).bundle))
        else:
            server.api.faults.append(wrong)
            with monkeypatch.context() as patched:
                patched.setattr(client, "LIMIT", 0.5)
                await held.start()
            assert not held.ready()
            assert held.why_not_ready()
        wrong.times = 0
        await held._look(first=False)
        assert held.ready(), held.why_not_ready()
        await cluster.close()

    asyncio.run(main())


def test_losing_the_race_for_the_secret_means_adopting_the_winners(api: Api) -> None:
    winner = replica(api, Clock())

    class Late(Direct):
        raced = False

        async def create_secret(self, namespace: str, secret: dict[str, Any]) -> dict[str, Any]:
            if not self.raced:
                self.raced = True
                await winner.start()
            return await super().create_secret(namespace, secret)

    late = certificates(Late(api), Clock())
    asyncio.run(late.start())
    assert served(late) == served(winner)
    assert late.ready()


def test_without_a_configuration_it_is_not_ready_and_says_what_to_apply(api: Api) -> None:
    api.objects.clear()
    held = replica(api, Clock())
    asyncio.run(held.start())
    assert not held.ready()
    assert 'there is no MutatingWebhookConfiguration "litestream-hook"' in held.why_not_ready()
    api.put("mutatingwebhookconfigurations", "", standin.configuration(standin.webhook("a.b.c", "other")))
    look(held)
    assert "no webhook of" in held.why_not_ready()
    assert "SERVICE_NAME" in held.why_not_ready()
    api.put("mutatingwebhookconfigurations", "", standin.configuration())
    look(held)
    assert held.ready()
    assert held.why_not_ready() == ""


def test_a_missing_permission_is_the_reason_for_not_being_ready(api: Api) -> None:
    api.rules = [rule for rule in api.rules if "patch" not in rule.verbs]
    held = replica(api, Clock())
    asyncio.run(held.start())
    assert 'resourceNames: ["litestream-hook"], verbs: ["get"]' in held.why_not_ready()


# Mounted files


def bundled(api: Api, *cas: Pair) -> None:
    text = base64.b64encode(b"".join(ca.certificate for ca in cas)).decode()
    hooks = [standin.webhook(name, ca_bundle=text) for name in ("pods.example.com", "workloads.example.com")]
    api.put("mutatingwebhookconfigurations", "", standin.configuration(*hooks))


def test_mounted_files_win_and_the_secret_is_not_asked_for(api: Api, tmp_path: Path) -> None:
    mount(tmp_path, LEAF)
    bundled(api, CA)
    held = replica(api, Clock(), tmp_path)
    asyncio.run(held.start())
    assert held.ready()
    current = held.current()
    assert current is not None
    assert current.source == "mounted"
    assert not any("secrets" in request or "PATCH" in request for request in api.requests)


def test_a_mounted_certificate_is_ready_once_the_callers_trust_it_and_stays_so(api: Api, tmp_path: Path) -> None:
    mount(tmp_path, LEAF)
    held = replica(api, Clock(), tmp_path)
    asyncio.run(held.start())
    assert served(held) == LEAF.certificate
    assert "there is no certificate in it" in held.why_not_ready()
    bundled(api, made(START)[0])
    look(held)
    assert "does not trust the certificate" in held.why_not_ready()
    bundled(api, CA)
    look(held)
    assert held.ready()
    api.faults.append(Fault(500, 99))
    look(held)
    assert held.ready()


def test_one_of_two_webhooks_that_does_not_trust_us_is_enough_to_wait(api: Api, tmp_path: Path) -> None:
    mount(tmp_path, LEAF)
    bundled(api, CA)
    api.configuration()["webhooks"][1]["clientConfig"].pop("caBundle")
    held = replica(api, Clock(), tmp_path)
    asyncio.run(held.start())
    assert not held.ready()


def test_new_mounted_files_of_a_new_ca_wait_for_the_bundle(
    api: Api, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    mount(tmp_path, LEAF)
    bundled(api, CA)
    held = replica(api, clock, tmp_path)
    asyncio.run(held.start())
    new_ca, new_leaf = made(START)
    mount(tmp_path, new_leaf)
    look(held, 3)
    assert caplog.text.count("waits until the caBundle trusts it") == 1
    assert served(held) == LEAF.certificate
    bundled(api, CA, new_ca)
    look(held)
    assert served(held) == LEAF.certificate
    clock.time += PROPAGATION
    look(held)
    assert served(held) == new_leaf.certificate


def test_new_mounted_files_are_served_at_once_when_the_api_cant_be_asked(api: Api, tmp_path: Path) -> None:
    mount(tmp_path, LEAF)
    bundled(api, CA)
    held = replica(api, Clock(), tmp_path)
    asyncio.run(held.start())
    api.faults.append(Fault(500, 99))
    newer = make_leaf(CA, NAMES, START)
    mount(tmp_path, newer)
    look(held)
    assert served(held) == newer.certificate


@pytest.mark.parametrize("key", [b"", b"garbage", made(START)[1].key])
def test_bad_new_files_keep_the_old_certificate_and_say_why_once(
    tmp_path: Path, key: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    mount(tmp_path, LEAF)
    held = certificates(None, Clock(), tmp_path)
    asyncio.run(held.start())
    mount(tmp_path, Pair(LEAF.certificate, key))
    look(held, 3)
    assert served(held) == LEAF.certificate
    assert held.ready()
    assert caplog.text.count("the certificate in use stays") == 1
    newer = make_leaf(CA, NAMES, START)
    mount(tmp_path, newer)
    look(held)
    assert served(held) == newer.certificate


def test_bad_files_at_the_start_are_an_error(tmp_path: Path) -> None:
    mount(tmp_path, Pair(LEAF.certificate, made(START)[1].key))
    with pytest.raises(BadCertificate, match=f"{tmp_path}: the private key does not belong"):
        asyncio.run(certificates(None, Clock(), tmp_path).start())


def test_files_that_vanish_keep_the_certificate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mount(tmp_path, LEAF)
    held = certificates(None, Clock(), tmp_path)
    asyncio.run(held.start())
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).unlink()
    look(held)
    assert served(held) == LEAF.certificate
    assert "the files are gone" in caplog.text


def test_files_that_appear_later_take_over_from_the_secret(api: Api, tmp_path: Path) -> None:
    clock = Clock()
    held = replica(api, clock, tmp_path)
    asyncio.run(held.start())
    leaf = make_leaf(stored_in(api).ca, NAMES, START)
    mount(tmp_path, leaf)
    look(held)
    clock.time += PROPAGATION
    look(held)
    current = held.current()
    assert current is not None
    assert current.source == "mounted"
    assert served(held) == leaf.certificate


# The caBundle, watched


async def mended(api: Api) -> None:
    """Wait until every caBundle has a CA again."""
    while not all(published(api)):  # noqa: ASYNC110 (the stand-in has threads, and no event of this loop)
        await asyncio.sleep(0.01)


async def mends(held: Certificates, api: Api) -> None:
    """Clear the caBundle three times while the certificates are looked after, and wait for each to be written again."""
    running = asyncio.create_task(held.run())
    for _ in range(3):
        api.put("mutatingwebhookconfigurations", "", standin.configuration())
        await mended(api)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def test_a_ca_bundle_that_somebody_clears_is_written_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without waiting for the next look at everything, which never comes here."""
    monkeypatch.setattr(rotation, "POLL", 3600.0)
    monkeypatch.setattr(rotation, "MEND", 0.1)

    async def main(server: standin.Server) -> None:
        cluster = server.cluster()
        server.api.put("mutatingwebhookconfigurations", "", standin.configuration())
        held = certificates(cluster, now)
        await held.start()
        assert held.ready()
        await mends(held, server.api)
        await cluster.close()

    with standin.serving(tmp_path) as server:
        asyncio.run(main(server))


def test_without_permission_to_watch_that_is_said_once_and_the_next_look_mends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rotation, "POLL", 0.02)

    async def main(server: standin.Server) -> None:
        cluster = server.cluster()
        server.api.put("mutatingwebhookconfigurations", "", standin.configuration())
        server.api.rules = [rule._replace(verbs=[*set(rule.verbs) - {"watch"}]) for rule in server.api.rules]
        held = certificates(cluster, now)
        await held.start()
        await mends(held, server.api)
        await cluster.close()

    with standin.serving(tmp_path) as server:
        asyncio.run(main(server))
    assert caplog.text.count('verbs: ["watch"]') == 1


# Outside a cluster


def test_outside_a_cluster_a_pair_is_made_and_the_path_of_its_ca_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> Path:
        held = certificates(None, now)
        await held.start()
        assert held.ready()
        assert held._local is not None
        ca = held._local / "ca.crt"
        assert str(ca) in caplog.text
        assert [path.name for path in ca.parent.iterdir()] == ["ca.crt"]  # no key on the disk
        task = asyncio.create_task(held.run())
        async with listening(held.ssl_context) as port:
            for name in ("localhost", "127.0.0.1", NAME):
                await call(port, trusting(ca.read_bytes()), name)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return ca

    assert not asyncio.run(main()).exists()


# The loop and the years


def test_the_loop_survives_what_nobody_thought_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, api: Api
) -> None:
    async def main() -> None:
        clock = Clock()
        held = replica(api, clock)
        await held.start()
        looks = 0

        async def bad(*, first: bool) -> None:  # noqa: ARG001 (the name it is called by)
            nonlocal looks
            looks += 1
            if looks == 3:
                raise asyncio.CancelledError
            raise RuntimeError("unthought of")

        monkeypatch.setattr(held, "_look", bad)
        with pytest.raises(asyncio.CancelledError):
            await held.run()
        assert looks == 3
        assert held.ready()
        # Patient while all is well, soon while something is awaited.
        assert timedelta(seconds=3 * 0.9 * rotation.POLL) <= clock.time - START

    asyncio.run(main())
    assert caplog.text.count("the one that is served stays") == 2


def accepted(bundles: list[bytes], leaf: bytes, at: datetime, name: str = NAME) -> bool:
    """Whether cryptography's verifier, with each caBundle, accepts a leaf."""
    for bundle in bundles:
        store = Store(x509.load_pem_x509_certificates(bundle))
        verifier = PolicyBuilder().store(store).time(at).build_server_verifier(x509.DNSName(name))
        try:
            verifier.verify(x509.load_pem_x509_certificate(leaf), [])
        except x509.verification.VerificationError:
            return False
    return True


@pytest.mark.slow
def test_five_years_of_rotation_never_fail_a_client_that_connects_every_hour(api: Api) -> None:
    """Three replicas that look in turn, are restarted now and then, and are cut off for days.

    The client trusts the caBundle of this hour, and the one of an API server that is one look behind.
    The API has no socket here and the handshakes happen in memory, or it would take hours.
    """
    dice = random.Random(5)
    clock = Clock()

    async def main() -> tuple[int, set[bytes], set[bytes]]:
        replicas = [replica(api, clock) for _ in range(3)]
        for held in replicas:
            await held.start()
        cut_off = {0: 0, 1: 0, 2: 0}
        leaves: set[bytes] = set()
        cas: set[bytes] = set()
        connections = 0
        behind = published(api)
        for hour in range(5 * 365 * 24):
            clock.time += timedelta(hours=1)
            turn = hour % 3
            if dice.random() < 0.0005:
                cut_off[turn] = hour + dice.randrange(1, 5 * 24)
            if hour >= cut_off[turn]:
                if dice.random() < 0.001:
                    replicas[turn] = replica(api, clock)
                    await replicas[turn].start()
                await replicas[turn]._look(first=False)
            bundles = published(api)
            leaf = served(dice.choice(replicas))
            assert accepted(bundles[:1], leaf, clock.time), hour
            if bundles != behind or leaf not in leaves:
                for held in replicas:
                    assert held.ready()
                    assert accepted(bundles, served(held), clock.time), hour
                    assert accepted(behind, served(held), clock.time), hour
                    handshake(held, bundles[0])
            behind = bundles
            connections += 1
            leaves.add(leaf)
            cas.update(blocks(bundles[0]))
        assert len(blocks(published(api)[0])) <= 2
        return connections, leaves, cas

    connections, leaves, cas = asyncio.run(main())
    assert connections == 43_800
    assert len(leaves) > 25
    assert len(cas) >= 7


def handshake(held: Certificates, bundle: bytes) -> None:
    """A handshake in memory, through the outer context and its callback; dates are checked elsewhere."""
    client = trusting(bundle)
    client.verify_flags = ssl.VerifyFlags(client.verify_flags | 0x200000)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(back, there, server_hostname=NAME)
    theirs = held.ssl_context.wrap_bio(there, back, server_side=True)
    for side in (ours, theirs, ours, theirs):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert ours.version() == "TLSv1.3"


def test_a_clock_that_jumps_ahead_and_back_ends_well(api: Api) -> None:
    clock = Clock()
    held = replica(api, clock)
    asyncio.run(held.start())
    for jump in (400 * DAY, -400 * DAY):
        clock.time += jump
        for _ in range(3):
            look(held)
            clock.time += PROPAGATION
        assert accepted(published(api), served(held), clock.time)


def test_the_option_names_reach_the_calls(api: Api) -> None:
    names: dict[str, Callable[[], object]] = {
        "TLS_SECRET_NAME": lambda: api.objects["secrets", "other-ns", "other-secret"],
        "WEBHOOK_CONFIGURATION_NAME": lambda: api.objects["mutatingwebhookconfigurations", "", "other"],
    }
    webhook = standin.webhook("pods.example.com", "other-service")
    webhook["clientConfig"]["service"]["namespace"] = "other-ns"
    configuration = standin.configuration(webhook)
    configuration["metadata"]["name"] = "other"
    api.put("mutatingwebhookconfigurations", "", configuration)
    api.rules = [standin.Rule(rule.verbs, rule.group, rule.resource) for rule in api.rules]
    environment = {
        "POD_NAMESPACE": "other-ns",
        "SERVICE_NAME": "other-service",
        "TLS_SECRET_NAME": "other-secret",
        "WEBHOOK_CONFIGURATION_NAME": "other",
    }
    held = replica(api, Clock(), **environment)
    asyncio.run(held.start())
    assert held.ready(), held.why_not_ready()
    current = held.current()
    assert current is not None
    assert current.names == ("other-service.other-ns.svc", "other-service.other-ns.svc.cluster.local")
    for found in names.values():
        assert found()
    assert opts().service_name == SERVICE
