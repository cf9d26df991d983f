"""What is to be shared at a moment, by what is stored."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from injector.tls import source
from injector.tls.certificate import Pair, blocks, facts, make_ca, make_leaf
from injector.tls.renewal import SETTLE, decide
from injector.tls.source import Shared
from tests.tls import CA_NAME, NAME, NAMES, START, made

DAY = timedelta(days=1)
CA, LEAF = made(START)
STORED = source.fields(Shared(CA, (), LEAF))


def test_the_first_one_makes_a_ca_and_a_leaf() -> None:
    decision = decide(None, NAMES, START)
    assert decision.change == "there was none"
    assert not decision.damaged
    assert decision.shared.old == ()
    assert source.signer(decision.shared.leaf.certificate, [decision.shared.ca.certificate])


def test_what_is_fine_is_kept() -> None:
    for day in range(58):
        decision = decide(STORED, NAMES, START + day * DAY)
        assert decision.change == ""
        assert decision.shared == Shared(CA, (), LEAF)


def test_a_leaf_is_renewed_after_two_thirds_of_its_life_and_the_jitter() -> None:
    assert decide(STORED, NAMES, START + 59 * DAY).change == ""
    assert decide(STORED, NAMES, START + 60.1 * DAY).change == "it was time for a new certificate"
    assert decide(STORED, NAMES, START + 60.1 * DAY, jitter=0.05).change == ""
    decision = decide(STORED, NAMES, START + 65 * DAY, jitter=0.05)
    assert decision.change == "it was time for a new certificate"
    assert not decision.damaged
    assert decision.shared.ca == CA


def test_a_ca_is_renewed_beside_the_old_one_and_signs_only_after_everybody_knows_it() -> None:
    at = START + 244 * DAY
    leaf = make_leaf(CA, NAMES, at - 10 * DAY)
    first = decide(source.fields(Shared(CA, (), leaf)), NAMES, at)
    assert first.change == "it was time for a new CA"
    assert first.shared.leaf == leaf
    assert blocks(first.shared.bundle) == blocks(first.shared.ca.certificate + CA.certificate)

    stored = source.fields(first.shared)
    assert decide(stored, NAMES, at + SETTLE - timedelta(seconds=1)).change == ""
    second = decide(stored, NAMES, at + SETTLE)
    assert second.change == "there was a new CA to sign it"
    assert source.signer(second.shared.leaf.certificate, [first.shared.ca.certificate])
    assert second.shared.bundle == first.shared.bundle

    stored = source.fields(second.shared)
    kept = decide(stored, NAMES, START + 364 * DAY, jitter=0.05)
    assert CA.certificate.strip() in kept.shared.bundle
    dropped = decide(source.fields(kept.shared), NAMES, START + 365 * DAY, jitter=0.05)
    assert dropped.change == "an old CA has expired"
    assert blocks(dropped.shared.bundle) == blocks(first.shared.ca.certificate)


def damaged(**changes: bytes | None) -> dict[str, bytes]:
    fields = {key.replace("_", "."): value for key, value in changes.items()}
    return {key: value for key, value in (STORED | fields).items() if value is not None}


@pytest.mark.parametrize(
    ("stored", "at", "why", "same_ca"),
    [
        (damaged(tls_crt=b"x"), START, "tls.crt or tls.key: there is no certificate in it", True),
        (damaged(tls_key=None), START, "there is no private key in it", True),
        (damaged(tls_key=made(START)[1].key), START, "does not belong to the certificate", True),
        (STORED, START + 91 * DAY, "the certificate is expired on 2026-04-01", True),
        (STORED, START - DAY, "the CA is not valid before", False),
        (STORED, START + 366 * DAY, "the CA is expired on 2027-01-01", False),
        (damaged(ca_crt=b""), START, "ca.crt is empty", False),
        (damaged(ca_key=LEAF.key), START, "the CA's key does not belong", False),
        ({}, START, "ca.crt is empty", False),
        (
            source.fields(Shared(CA, (), make_leaf(CA, ["a.svc"], START))),
            START,
            f"the certificate is not for {NAME}",
            True,
        ),
        (source.fields(Shared(CA, (), made(START)[1])), START, "not signed by a CA of ca.crt", True),
        (
            source.fields(Shared(make_ca("stranger", START), (), LEAF)),
            START,
            'the CA is not one of the webhook\'s, or does not sign itself: "CN=stranger"',
            False,
        ),
    ],
)
def test_what_is_wrong_is_replaced_and_named(stored: dict[str, bytes], at: datetime, why: str, same_ca: bool) -> None:
    decision = decide(stored, NAMES, at)
    assert decision.damaged
    assert why in decision.change
    assert (decision.shared.ca == CA) is same_ca
    assert decide(source.fields(decision.shared), NAMES, at).change == ""


@pytest.mark.parametrize("leaf", [LEAF, made(START)[1]], ids=["ours", "of another"])
def test_an_old_ca_that_cant_be_read_is_dropped(leaf: Pair) -> None:
    garbage = CA.certificate[:200] + CA.certificate[300:]
    decision = decide(source.fields(Shared(CA, (garbage,), leaf)), NAMES, START)
    assert decision.change
    assert decision.shared.old == ()
    assert source.signer(decision.shared.leaf.certificate, [CA.certificate])


def test_a_lost_ca_stays_trusted_by_whoever_still_knew_it() -> None:
    expired = make_ca(CA_NAME, START - 400 * DAY)
    keep = [CA.certificate, expired.certificate, b"garbage", CA.certificate]
    decision = decide({}, NAMES, START, keep=keep)
    assert decision.shared.old == (CA.certificate,)


@pytest.mark.slow  # thousands of pairs are made
@settings(max_examples=150)
@given(data=st.data())
def test_from_any_secret_at_any_time_one_step_leads_to_a_valid_certificate(data: st.DataObject) -> None:
    """Bytes cut, swapped between keys, or made up: after one write the next look finds nothing wrong."""
    stored = dict(STORED)
    for _ in range(data.draw(st.integers(0, 3))):
        key = data.draw(st.sampled_from(sorted(STORED)))
        text = stored.get(key, b"")
        start = data.draw(st.integers(0, len(text)))
        stored[key] = data.draw(
            st.sampled_from(
                [
                    text[:start],
                    text[:start] + data.draw(st.binary(max_size=9)) + text[start + 5 :],
                    data.draw(st.sampled_from([*STORED.values(), b""])),
                    text + text,
                ]
            )
        )
    at = START + data.draw(st.integers(-900, 900)) * DAY
    decision = decide(stored, NAMES, at)
    after = decide(source.fields(decision.shared), NAMES, at)
    assert not after.damaged, after.change
    leaf = facts(after.shared.leaf.certificate)
    assert not leaf.problem_at(at)
    assert source.signer(after.shared.leaf.certificate, blocks(after.shared.bundle))
