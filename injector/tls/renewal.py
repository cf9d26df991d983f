"""What the replicas are to share at a moment: a CA and a certificate of it, renewed in time, replaced when damaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from injector.tls import source
from injector.tls.certificate import SKEW, BadCertificate, blocks, facts, make_ca, make_leaf
from injector.tls.context import cached_context
from injector.tls.source import Shared

SETTLE = timedelta(minutes=10)  # from a new CA's birth until it may sign the leaf that all replicas serve
JITTER = 0.05  # of a certificate's life, after two thirds of it


@dataclass(frozen=True, slots=True)
class Decision:
    """What the replicas are to share from now on.

    `change` says why that differs from what is stored (empty: it does not); `damaged`, that what was
    stored was wrong rather than old.
    """

    shared: Shared
    change: str = ""
    damaged: bool = False


def decide(
    stored: Mapping[str, bytes] | None,
    names: Sequence[str],
    now: datetime,
    jitter: float = 0.0,
    keep: Sequence[bytes] = (),
) -> Decision:
    """What to share at `now`, given a Secret's data (None: there is none).

    `names` are those of the leaf, `jitter` the share of a life (0 to JITTER) by which renewal comes later
    than after two thirds, `keep` CAs (PEM) to go on trusting if the stored one turns out unusable.
    """
    if stored is None:
        return Decision(_new(names, now, keep), "there was none")
    try:
        shared = source.read(stored, ca_name(names))
        if problem := facts(shared.ca.certificate).problem_at(now):
            raise BadCertificate(f"the CA is {problem}")
    except BadCertificate as error:
        return Decision(_new(names, now, keep), str(error), damaged=True)

    ca, old, leaf = shared.ca, _valid(shared.old, now), shared.leaf
    if problem := _leaf_problem(shared, names, now):
        return Decision(Shared(ca, old, make_leaf(ca, names, now)), problem, damaged=True)
    if _due(ca.certificate, now, jitter):
        return Decision(Shared(make_ca(ca_name(names), now), (ca.certificate, *old), leaf), "it was time for a new CA")
    if now >= facts(ca.certificate).not_before + SKEW + SETTLE:
        if _due(leaf.certificate, now, jitter):
            return Decision(Shared(ca, old, make_leaf(ca, names, now)), "it was time for a new certificate")
        if source.signer(leaf.certificate, [ca.certificate]) is None:
            return Decision(Shared(ca, old, make_leaf(ca, names, now)), "there was a new CA to sign it")
    if old != shared.old:
        return Decision(Shared(ca, old, leaf), "an old CA has expired")
    return Decision(shared)


def ca_name(names: Sequence[str]) -> str:
    """The name of the CA that signs for `names`."""
    return f"litestream-hook CA of {names[0]}"


def _new(names: Sequence[str], now: datetime, keep: Sequence[bytes]) -> Shared:
    ca = make_ca(ca_name(names), now)
    return Shared(ca, _valid(keep, now), make_leaf(ca, names, now))


def _valid(cas: Sequence[bytes], now: datetime) -> tuple[bytes, ...]:
    found = []
    for ca in cas:
        try:
            if not facts(ca).problem_at(now) and ca not in found:
                found.append(ca)
        except BadCertificate:
            continue
    return tuple(found)


def _due(certificate: bytes, now: datetime, jitter: float) -> bool:
    dates = facts(certificate)
    return now >= dates.not_before + (dates.not_after - dates.not_before) * (2 / 3 + jitter)


def _leaf_problem(shared: Shared, names: Sequence[str], now: datetime) -> str:
    try:
        dates = facts(shared.leaf.certificate)
        cached_context(shared.leaf)
    except BadCertificate as error:
        return f"{source.CERTIFICATE} or {source.KEY}: {error}"
    if problem := dates.problem_at(now):
        return f"the certificate is {problem}"
    if missing := [name for name in names if name not in dates.names]:
        return f"the certificate is not for {', '.join(missing)}"
    if source.signer(shared.leaf.certificate, blocks(shared.bundle)) is None:
        return f"the certificate is not signed by a CA of {source.CA_BUNDLE}"
    return ""
