"""The state of cards: every profile on the changelog is, byte for byte, what the decisions in the log make of its card.

A profile is a fold over the transactions of a card and what was decided on them, and both are on the topics. Each row
of the changelog says up to which transaction it was made, so that the state of a live service can be checked too.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from fraud_service.domain.codec import UNREADABLE
from fraud_service.domain.errors import InvalidRecord
from fraud_service.domain.profile import (
    NOT_LEGACY,
    RECENT,
    UNKNOWN_CURRENCY,
    Profile,
    decode_profile,
    encode_profile,
)
from fraud_service.domain.records import decode_score
from fraud_service.processors.scorer import PROFILE
from fraud_service.runtime.changelogs import PROCESSED, on_disk, suffix
from fraud_service.verification.decision_verifier import FIRST, decision_of
from fraud_service.verification.findings import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rocksdict import Rdict

    from fraud_service.domain.events import Transaction
    from fraud_service.kafka.topic_reader import Record
    from fraud_service.runtime.changelogs import LocalState
    from fraud_service.verification.findings import Findings
    from fraud_service.verification.pairing import Pair

UPGRADED: Final = frozenset(
    {"merchants", "countries", "devices", "recent", "has_crcs"}
)  # what schema 4 wrote otherwise
CUT: Final = b""  # instead of a profile that retention makes impossible to fold


class Scope(NamedTuple):
    """Which part of a partition is looked at.

    `topic` are the transactions, `changelog` the state; `committed` is the group's offset on the transactions, None
    before its first. `is_cut` says that retention has removed the first transactions.
    """

    topic: str
    changelog: str
    partition: int
    committed: int | None
    is_cut: bool


class _Row(msgspec.Struct, array_like=True, frozen=True):
    """The last word of the changelog on a card; without a value it was erased."""

    offset: int
    processed: int
    value: bytes | None


_rows = msgspec.msgpack.Decoder(_Row)


def follow(scope: Scope, changelog: Iterable[Record], pairs: Iterable[Pair], findings: Findings) -> None:
    """Fold the decisions of one partition, and compare every profile. Rows and profiles lie on disk meanwhile."""
    with on_disk() as rows, on_disk() as folded:
        for entry in changelog:
            row = _row(scope, entry, findings)
            if row is not None:
                rows[(entry.key or b"").removesuffix(suffix(PROFILE))] = msgspec.msgpack.encode(row)
        without = _fold(scope, pairs, rows, folded)
        for card, data in rows.items():
            _compare(scope, _rows.decode(data), folded.get(card), findings)
        if without:
            findings.count("cards_without_profile", without)
            findings.note(
                f"{without} cards of {scope.changelog}[{scope.partition}] have decisions and no profile: they were "
                "erased, or their state is lost"
            )


def compare_volume(scope: Scope, volume: LocalState, changelog: Iterable[Record], findings: Findings) -> None:
    """Compare a volume with the changelog, key by key, as far as it has taken it in."""
    with on_disk() as rows:
        for entry in changelog:
            rows[entry.key or b""] = entry.offset.to_bytes(8) + (entry.value or b"")
        for key, row in rows.items():
            offset, value = int.from_bytes(row[:8]), row[8:]
            if offset > volume.changelog_offset:
                continue
            if volume.rows.get(key, b"") == value:
                findings.count("profiles_on_volume", bool(value))
                continue
            what = "the volume has another profile than the changelog up to which it says it was made"
            findings.wrong_at(Kind.STATE, scope.changelog, scope.partition, offset, what)
        strangers = sum(1 for key in volume.rows.keys() if key not in rows)  # noqa: SIM118 - it is no dict
    if strangers:
        what = f"the volume has {strangers} profiles of which the changelog knows nothing"
        findings.wrong_at(Kind.STATE, scope.changelog, scope.partition, volume.changelog_offset, what)


def _row(scope: Scope, entry: Record, findings: Findings) -> _Row | None:
    try:
        processed = json.loads(entry.header(PROCESSED) or "")[scope.topic]
        return _Row(entry.offset, int(processed), entry.value)
    except (ValueError, KeyError, TypeError):
        findings.wrong(Kind.UNREADABLE, entry, "the row does not say up to which transaction it was made")
        return None


def _fold(scope: Scope, pairs: Iterable[Pair], rows: Rdict, folded: Rdict) -> int:
    """Fold what rows have taken in; returns how many cards have decisions and no row."""
    without: set[bytes] = set()
    for one in pairs:
        if one.transaction is None or one.score is None or one.head is None or one.head.is_duplicate:
            continue
        card = one.transaction.card_id.encode()
        data = rows.get(card)
        if data is None:
            if one.offset < (scope.committed or 0):
                without.add(card)
        elif one.offset <= _rows.decode(data).processed:
            folded[card] = _with(one.transaction, one.score, folded.get(card))
    return len(without)


def _with(transaction: Transaction, score: bytes, known: bytes | None) -> bytes:
    """Return the profile with one more transaction."""
    if FIRST in score:  # of a card that the scorer did not know, or not any more
        profile = Profile()
    elif known is None or known == CUT:
        return CUT
    else:
        profile = decode_profile(known)
    try:
        decision = decision_of(decode_score(score))
    except InvalidRecord:
        return CUT
    profile.update(transaction)
    profile.add_decision(decision)
    return encode_profile(profile)


def _compare(scope: Scope, row: _Row, folded: bytes | None, findings: Findings) -> None:
    wrong = None
    if row.value is None:
        findings.count("profiles_erased")
    elif scope.committed is None or row.processed >= scope.committed:
        findings.count("profiles_in_flight")  # at-least-once, and the commit is still to come, or never came
    elif folded == row.value:
        findings.count("profiles")
    elif not _is_readable(row.value):
        wrong = "the profile cannot be read"
    elif folded and _is_upgraded(decode_profile(row.value), decode_profile(folded)):
        findings.count("profiles_upgraded")
    elif folded == CUT or (folded is None and scope.is_cut):
        findings.count("profiles_unproved")
    elif folded is None:
        wrong = "the state has a card that no decision in the log is about"
    else:
        wrong = "the profile is not what the decisions in the log make of its card"
    if wrong is not None:
        findings.wrong_at(Kind.STATE, scope.changelog, scope.partition, row.offset, wrong)


def _is_upgraded(found: Profile, folded: Profile) -> bool:
    """Whether a profile that an older schema began says the same, its fingerprints and currencies left out."""
    names = [name for name in found.__struct_fields__ if name not in UPGRADED]
    rows, expected = [*RECENT.iter_unpack(found.recent)], [*RECENT.iter_unpack(folded.recent)]
    return (
        all(getattr(found, name) == getattr(folded, name) for name in names)
        and [*found.merchants.values()] == [*folded.merchants.values()]
        and _are_known([*found.merchants], [*folded.merchants])
        and _are_known(found.countries, folded.countries)
        and _are_known(found.devices, folded.devices)
        and [row[:3] for row in rows] == [row[:3] for row in expected]
        and _are_known([row[3] for row in rows], [row[3] for row in expected])
        and all(row[4] in {UNKNOWN_CURRENCY, other[4]} for row, other in zip(rows, expected, strict=True))
    )


def _are_known(found: list[int], folded: list[int]) -> bool:
    """Whether fingerprints are the expected ones, those of the older schema left out."""
    return len(found) == len(folded) and all(
        one == other or one < NOT_LEGACY for one, other in zip(found, folded, strict=True)
    )


def _is_readable(value: bytes) -> bool:
    try:
        decode_profile(value)
    except (InvalidRecord, *UNREADABLE):
        return False
    return True
