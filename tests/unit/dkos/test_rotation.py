"""Replacing authorities: whoever is one step behind or ahead is understood at every step, proven with certificates."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from haneul.dkos.credentials import Endpoints, component_data, component_profiles
from haneul.dkos.keyring import Keyring, keyring_from, new_authorities
from haneul.dkos.rotation import ROTATE_BEFORE, USES, Age, Record, Step, decide
from haneul.kernel.pki import LeafProfile, issue_leaf

NAME = "shop/plain"
HOUR = timedelta(hours=1)
STEPS = [*Step, Step.STEADY]


@pytest.fixture(scope="module")
def life(now: datetime) -> list[Keyring]:
    """A keyring at every step of one replacement, the last of them steady again."""
    rings = [Keyring(new_authorities(NAME, now))]
    for step in STEPS[1:]:
        rings.append(rings[-1].at(step, cluster=NAME, requested=1, now=now))
    return rings


def trusts(bundle: bytes, leaf: bytes) -> bool:
    """Say whether a certificate was issued by one of a bundle's."""
    certificate = x509.load_pem_x509_certificate(leaf)
    for root in x509.load_pem_x509_certificates(bundle):
        try:
            certificate.verify_directly_issued_by(root)
        except (ValueError, InvalidSignature):
            continue
        return True
    return False


def neighbours(rings: list[Keyring]) -> list[tuple[Keyring, Keyring]]:
    """Return every pair of states that two parties may be in at the same time."""
    near = [(one, other) for one, other in itertools.pairwise(rings)]
    return [*zip(rings, rings, strict=True), *near, *((other, one) for one, other in near)]


def test_no_party_presents_what_a_counterpart_one_step_away_does_not_trust(
    life: list[Keyring], endpoints: Endpoints, now: datetime
) -> None:
    """Masters among each other: who presents which leaf to whom, and the file that the other trusts by."""
    meetings = [
        ("etcd", "server.crt", "kube-apiserver", "etcd-ca.crt"),
        ("etcd", "server.crt", "etcd", "ca.crt"),
        ("kube-apiserver", "etcd-client.crt", "etcd", "ca.crt"),
        ("kube-apiserver", "front-proxy-client.crt", "kube-apiserver", "front-proxy-ca.crt"),
    ]
    for client in ("kube-controller-manager", "kube-scheduler", "cilium-operator"):
        meetings.append((client, "client.crt", "kube-apiserver", "ca.crt"))
        meetings.append(("kube-apiserver", "server.crt", client, "ca.crt"))
    profiles = component_profiles(endpoints, cilium=True)
    made = {
        id(ring): {name: component_data(name, wanted, ring, endpoints, now) for name, wanted in profiles.items()}
        for ring in life
    }
    for mine, theirs in neighbours(life):
        for component, leaf, counterpart, bundle in meetings:
            presented, trusted = made[id(mine)][component][leaf], made[id(theirs)][counterpart][bundle]
            assert trusts(trusted, presented), (mine.record, theirs.record, component, counterpart)


def given_to_machine(rings: list[Keyring], at: int) -> set[bytes]:
    """Return what a machine surely trusts at a step: what stood in its file when it was made, if not less since."""
    wanted = rings[at].machine_era
    made = next(ring for ring in rings if ring.machine_era == wanted)
    roots = set(_split(made.trusted("cluster")))
    return roots & set(_split(rings[at].trusted("cluster")))


def _split(bundle: bytes) -> list[bytes]:
    return [root.public_bytes(serialization.Encoding.PEM) for root in x509.load_pem_x509_certificates(bundle)]


def test_machines_and_masters_one_step_apart_trust_each_other(
    life: list[Keyring], endpoints: Endpoints, now: datetime
) -> None:
    """A machine keeps the certificates and the trust that it was made with until it is made anew."""
    profiles = component_profiles(endpoints, cilium=False)["kube-apiserver"]
    node = LeafProfile("system:node:default-0", ("system:nodes",), client=True)
    for at, other in itertools.product(range(len(life)), repeat=2):
        if abs(at - other) > 1:
            continue
        masters = component_data("kube-apiserver", profiles, life[other], endpoints, now)
        # Its certificates were asked for at any time since it was made, and until now.
        since = [ring for ring in life[: at + 1] if ring.machine_era == life[at].machine_era]
        for ring in since:
            leaf = issue_leaf(ring.request_signer, node, now=now).certificate
            assert trusts(masters["ca.crt"], leaf), (life[at].record, life[other].record)
        roots = b"".join(given_to_machine(life, at))
        for name in ("server.crt", "kubelet-client.crt"):
            assert trusts(roots, masters[name]), (life[at].record, life[other].record, name)


def test_tokens_verify_and_secrets_can_be_read_one_step_away(life: list[Keyring]) -> None:
    for mine, theirs in neighbours(life):
        assert mine.token_keys[0] in theirs.token_keys
        assert mine.encryption_keys[0] in theirs.encryption_keys


def test_at_the_end_nothing_old_is_trusted_or_kept(life: list[Keyring], endpoints: Endpoints, now: datetime) -> None:
    first, last = life[0], life[-1]
    assert last.record.era == 1
    for name in ("cluster", "etcd", "front-proxy"):
        old = first.issuer(name)
        assert old.certificate not in last.trusted(name)
        assert first.old.pairs()[name].certificate.strip() not in b"".join(last.data().values())
        leaf = issue_leaf(old, LeafProfile("haneul:alice", ("haneul:owners",), client=True), now=now).certificate
        assert not trusts(last.trusted(name), leaf)
    assert not set(first.token_keys) & set(last.token_keys)
    assert not set(first.encryption_keys) & set(last.encryption_keys)
    # One name for two keys would make the second read what the first wrote.
    assert first.encryption_keys[0][0] != last.encryption_keys[0][0]


def test_new_authorities_have_subjects_of_their_own(life: list[Keyring], now: datetime) -> None:
    third = life[-1].at(Step.SPREAD, cluster=NAME, requested=2, now=now)
    subjects = {
        x509.load_pem_x509_certificate(pair.certificate).subject.rfc4514_string()
        for ring in (life[0], life[-1])
        for pair in ring.old.pairs().values()
    } | {
        x509.load_pem_x509_certificate(pair.certificate).subject.rfc4514_string()
        for pair in third.of(Age.NEW).pairs().values()
    }
    assert len(subjects) == 9


def test_keyring_comes_back_from_its_secret_at_every_step(life: list[Keyring]) -> None:
    for ring in life:
        assert keyring_from(ring.data()) == ring


def test_secret_that_is_older_than_replacements_is_understood(now: datetime) -> None:
    old = {
        name: value
        for name, value in Keyring(new_authorities(NAME, now)).data().items()
        if name not in ("rotation.json", "encryption.name")
    }
    ring = keyring_from(old)
    assert ring.record == Record()
    assert ring.encryption_keys[0][0] == "first"
    assert ring.mark("kube-apiserver") == ""


def test_a_component_is_made_anew_only_when_something_of_its_own_changes(life: list[Keyring]) -> None:
    def changes(component: str) -> list[Step]:
        pairs = itertools.pairwise(life)
        return [after.record.step for before, after in pairs if before.mark(component) != after.mark(component)]

    assert changes("etcd") == [Step.SPREAD, Step.ISSUE, Step.WITHDRAW]
    assert changes("kube-scheduler") == [Step.SPREAD, Step.ISSUE, Step.WITHDRAW]
    assert changes("kube-controller-manager") == [Step.SPREAD, Step.SIGN, Step.ISSUE, Step.WITHDRAW]
    assert changes("kube-apiserver") == [Step.SPREAD, Step.SIGN, Step.ISSUE, Step.WITHDRAW]


def test_machines_are_made_anew_exactly_once(life: list[Keyring]) -> None:
    assert [ring.machine_era for ring in life] == [0, 0, 0, 1, 1, 1, 1]


def test_keys_are_not_shown_when_a_keyring_is_printed(life: list[Keyring]) -> None:
    for ring in life:
        assert "PRIVATE KEY" not in repr(ring)
        assert all(key.decode() not in repr(ring) for _, key in ring.encryption_keys)


def test_new_signs_only_where_it_was_trusted_the_step_before() -> None:
    for before, after in itertools.pairwise([USES[step] for step in Step]):
        for signer in (after.masters, after.requests):
            assert signer in before.trusted
        assert after.tokens[0] in before.tokens
        assert after.secrets[0] in before.secrets


# When the next step is begun.


def test_replacement_begins_a_year_before_the_end_or_when_asked(now: datetime) -> None:
    def begun(record: Record, requested: int, left: timedelta) -> bool:
        verdict = decide(record, requested=requested, expires=now + left, waits_on="", grace=HOUR, now=now)
        return verdict.step is Step.SPREAD

    assert not begun(Record(), 0, ROTATE_BEFORE + HOUR)
    assert begun(Record(), 0, ROTATE_BEFORE - HOUR)
    assert begun(Record(), 1, ROTATE_BEFORE + HOUR)
    assert not begun(Record(revision=1), 1, ROTATE_BEFORE + HOUR)


@given(
    step=st.sampled_from([step for step in Step if step is not Step.STEADY]),
    waits_on=st.sampled_from(["", "etcd"]),
    passed=st.integers(-100, 10_000),
    grace=st.integers(0, 7200),
)
def test_a_step_ends_when_nothing_is_waited_for_and_the_grace_is_over(
    step: Step, waits_on: str, passed: int, grace: int
) -> None:
    since = datetime.fromisoformat("2026-11-24T12:00:00+00:00")
    verdict = decide(
        Record(step, 3, 2, since),
        requested=9,
        expires=since,
        waits_on=waits_on,
        grace=timedelta(seconds=grace),
        now=since + timedelta(seconds=passed),
    )
    stays = bool(waits_on) or (step is Step.ISSUE and passed < grace)
    assert verdict.step is (step if stays else STEPS[STEPS.index(step) + 1])
    assert verdict.waits_on == waits_on
    assert (verdict.until is not None) == (stays and not waits_on)


def test_request_that_comes_meanwhile_is_taken_up_afterwards(now: datetime) -> None:
    ring = Keyring(new_authorities(NAME, now))
    for step in STEPS[1:]:
        ring = ring.at(step, cluster=NAME, requested=1 if step is Step.SPREAD else 2, now=now)
    assert (ring.record.era, ring.record.revision) == (1, 1)
    verdict = decide(ring.record, requested=2, expires=ring.expires, waits_on="", grace=HOUR, now=now)
    assert verdict.step is Step.SPREAD


def test_keyring_without_new_authorities_gives_none_away(now: datetime) -> None:
    ring = Keyring(new_authorities(NAME, now))
    with pytest.raises(ValueError, match="nothing is being replaced"):
        ring.of(Age.NEW)
    with pytest.raises(ValueError, match="nothing is being replaced"):
        replace(ring, record=Record(Step.SIGN)).trusted("cluster")
