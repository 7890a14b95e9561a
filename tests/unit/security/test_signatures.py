"""Signed records: no part of a record can be changed, moved or left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_service.domain.errors import RejectedRecord
from fraud_service.security.signatures import KEY_HEADER, SIGNATURE_HEADER, Keyring, RejectReason

pytestmark = pytest.mark.attack

RING = Keyring({"2025": b"o" * 32, "2026": b"n" * 32}, "2026")
PARTS = st.binary(max_size=20) | st.none()
HEADERS = st.lists(st.tuples(st.sampled_from(["fraud-snapshot", "fraud-sequence"]), st.binary(max_size=9)), max_size=3)


def refusal(ring: Keyring, role: str, key, value, headers) -> str:
    with pytest.raises(RejectedRecord) as rejected:
        ring.require_signature(role, key, value, headers)
    return rejected.value.reason


@given(PARTS, PARTS, HEADERS)
def test_a_signed_record_passes_with_added_tracing_headers(key, value, headers):
    signed = RING.sign_headers("risk", key, value, headers)
    RING.require_signature("risk", key, value, [*signed, ("traceparent", b"00-1")])


@given(PARTS, PARTS, HEADERS, st.data())
def test_any_change_is_a_forgery(key, value, headers, data):
    signed = RING.sign_headers("risk", key, value, headers)
    other = data.draw(PARTS)
    extra = ("fraud-snapshot", b"20990101T0000-ffffffff")
    changes = [("snapshots", key, value, signed), ("risk", key, value, [extra, *signed])]
    changes += [("risk", other, value, signed)] if other != key else []
    changes += [("risk", key, other, signed)] if other != value else []
    changes += [("risk", value, key, signed)] if key != value else []
    for change in changes:
        assert refusal(RING, *change) == RejectReason.FORGED


def test_an_unsigned_record_and_an_unknown_key_are_rejected_for_different_reasons():
    stranger = Keyring({"2024": b"x" * 32}, "2024").sign_headers("risk", b"k", b"v", [])
    assert refusal(RING, "risk", b"k", b"v", stranger) == RejectReason.UNKNOWN_KEY
    assert refusal(RING, "risk", b"k", b"v", []) == RejectReason.UNSIGNED
    half = [header for header in stranger if header[0] != SIGNATURE_HEADER]
    assert refusal(RING, "risk", b"k", b"v", half) == RejectReason.UNSIGNED
    claimed = [(name, b"2026" if name == KEY_HEADER else content) for name, content in stranger]
    assert refusal(RING, "risk", b"k", b"v", claimed) == RejectReason.FORGED


def test_an_older_key_verifies_until_it_is_removed():
    old = Keyring(RING.keys, "2025").sign_headers("risk", b"k", b"v", [])
    RING.require_signature("risk", b"k", b"v", old)
    assert refusal(Keyring({"2026": b"n" * 32}, "2026"), "risk", b"k", b"v", old) == RejectReason.UNKNOWN_KEY


def test_signing_again_replaces_the_signature():
    twice = RING.sign_headers(
        "risk", b"k", b"v", Keyring(RING.keys, "2025").sign_headers("risk", b"k", b"v", [("other", b"1")])
    )
    assert [name for name, _ in twice] == ["other", KEY_HEADER, SIGNATURE_HEADER]
    assert dict(twice)[KEY_HEADER] == b"2026"
    RING.require_signature("risk", b"k", b"v", twice)


def test_without_keys_no_signature_is_required_or_added():
    assert Keyring().sign_headers("risk", b"k", b"v", [("fraud-snapshot", b"1")]) == [("fraud-snapshot", b"1")]
    Keyring().require_signature("risk", b"k", b"v", [])


def test_a_keyring_never_shows_a_secret():
    assert repr(RING) == "Keyring(2025, 2026; active: 2026)"


def test_a_signature_is_valid_only_in_its_deployment():
    staging, production = (Keyring(RING.keys, "2026", place) for place in ("staging", "production"))
    signed = staging.sign_headers("models", b"online", b"{}", [])
    staging.require_signature("models", b"online", b"{}", signed)
    assert refusal(production, "models", b"online", b"{}", signed) == RejectReason.FORGED


def test_a_signature_without_a_deployment_is_valid_in_no_deployment():
    old = Keyring(RING.keys, "2026", deployment=None)
    signed = old.sign_headers("models", b"online", b"{}", [])
    old.require_signature("models", b"online", b"{}", signed)
    for place in ("", "models", "production"):
        assert refusal(Keyring(RING.keys, "2026", place), "models", b"online", b"{}", signed) == RejectReason.FORGED


@pytest.mark.parametrize(
    "headers",
    [
        [(KEY_HEADER, None), (SIGNATURE_HEADER, None)],
        [(KEY_HEADER, b"\xff"), (SIGNATURE_HEADER, b"\xff")],
        [(KEY_HEADER, b"2026"), (SIGNATURE_HEADER, "\u00e9".encode() * 1000)],
        [("fraud-snapshot", None), (KEY_HEADER, b"2026"), (SIGNATURE_HEADER, b"0" * 64)],
    ],
)
def test_headers_of_any_bytes_are_rejected_without_another_error(headers):
    assert refusal(RING, "risk", None, None, headers) in [*RejectReason]


def test_a_second_header_with_the_same_name_is_part_of_the_signature():
    signed = RING.sign_headers("risk", b"k", b"v", [("fraud-snapshot", b"1")])
    for extra in (("fraud-snapshot", b"2"), (KEY_HEADER, b"2026")):
        assert refusal(RING, "risk", b"k", b"v", [extra, *signed]) == RejectReason.FORGED
        assert refusal(RING, "risk", b"k", b"v", [*signed, extra]) == RejectReason.FORGED
