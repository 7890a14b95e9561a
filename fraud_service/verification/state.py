"""Check the state of cards: every profile on the changelog equals the fold of its card's decisions, byte for byte.

A profile is a fold over the transactions of a card and the decisions on them, and both are on the topics. Each row of
the changelog names the last transaction in it. So the state of a running service can be checked, too.
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
from fraud_service.processors.scorer import PROFILE
from fraud_service.runtime.changelogs import PROCESSED, key_suffix, temporary_rows
from fraud_service.verification.decisions import FIRST_FEATURES, decision_of
from fraud_service.verification.report import FindingKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rocksdict import Rdict

    from fraud_service.domain.events import Transaction
    from fraud_service.kafka.topic_reader import Record
    from fraud_service.runtime.changelogs import LocalState
    from fraud_service.verification.matching import Pair
    from fraud_service.verification.report import Findings

UPGRADED: Final = frozenset({"merchants", "countries", "devices", "recent", "has_crcs"})  # fields that schema 4 changed
EXPIRED: Final = b""  # instead of a profile whose first transactions retention removed


class StateScope(NamedTuple):
    """Which part of a partition to check.

    `topic` has the transactions, `changelog` the state. `committed` is the group's offset on the transactions, None
    before its first commit. `is_truncated` says that retention removed the first transactions.
    """

    topic: str
    changelog: str
    partition: int
    committed: int | None
    is_truncated: bool


class _Row(msgspec.Struct, array_like=True, frozen=True):
    """The newest record of a card on the changelog; without a value the card was erased."""

    offset: int
    processed: int
    value: bytes | None


_rows = msgspec.msgpack.Decoder(_Row)


class StateCheck:
    """Fold the decisions of one partition and compare every profile: pass each pair to `take`, then call `finish`.

    `rows` and `folded` are empty maps on disk, for the rows of the changelog and the folded profiles.
    """

    def __init__(
        self, scope: StateScope, changelog: Iterable[Record], rows: Rdict, folded: Rdict, findings: Findings
    ) -> None:
        self._scope = scope
        self._rows = rows
        self._folded = folded
        self._findings = findings
        self._without_row: set[bytes] = set()
        for entry in changelog:
            row = self._row(entry)
            if row is not None:
                self._rows[(entry.key or b"").removesuffix(key_suffix(PROFILE))] = msgspec.msgpack.encode(row)

    def take(self, pair: Pair) -> None:
        """Fold the next decision into its profile, unless the changelog does not have it yet."""
        if pair.input is None or pair.transaction is None or pair.head is None or pair.head.is_duplicate:
            return
        card = pair.transaction.card_id.encode()
        data = self._rows.get(card)
        if data is None:
            if pair.input.offset < (self._scope.committed or 0):
                self._without_row.add(card)
        elif pair.input.offset <= _rows.decode(data).processed:
            self._folded[card] = _fold(pair, pair.transaction, self._folded.get(card))

    def finish(self) -> None:
        """Compare every profile."""
        for card, data in self._rows.items():
            self._compare(_rows.decode(data), self._folded.get(card))
        count = len(self._without_row)
        if count:
            self._findings.count("cards_without_profile", count)
            self._findings.note(
                f"{count} cards of {self._scope.changelog}[{self._scope.partition}] have decisions but no profile: "
                "they were erased, or their state is lost"
            )

    def _row(self, entry: Record) -> _Row | None:
        try:
            processed = json.loads(entry.header(PROCESSED) or "")[self._scope.topic]
            return _Row(entry.offset, int(processed), entry.value)
        except (ValueError, KeyError, TypeError):
            self._findings.add(
                FindingKind.UNREADABLE, entry, "the row does not say up to which transaction it was made"
            )
            return None

    def _compare(self, row: _Row, folded: bytes | None) -> None:
        scope, fault = self._scope, None
        if row.value is None:
            self._findings.count("profiles_erased")
        elif scope.committed is None or row.processed >= scope.committed:
            self._findings.count("profiles_in_flight")  # with at-least-once, the row may precede its commit
        elif folded == row.value:
            self._findings.count("profiles")
        elif not _is_readable(row.value):
            fault = "the profile cannot be read"
        elif folded and _is_upgraded(decode_profile(row.value), decode_profile(folded)):
            self._findings.count("profiles_upgraded")
        elif folded == EXPIRED or (folded is None and scope.is_truncated):
            self._findings.count("profiles_unproved")
        elif folded is None:
            fault = "the state has a card without a decision in the log"
        else:
            fault = "the profile differs from the fold of its card's decisions"
        if fault is not None:
            self._findings.add_at(FindingKind.STATE, scope.changelog, scope.partition, row.offset, fault)


def compare_volume(scope: StateScope, volume: LocalState, changelog: Iterable[Record], findings: Findings) -> None:
    """Compare a volume with the changelog, key by key, up to the offset that the volume has applied."""
    with temporary_rows() as rows:
        for entry in changelog:
            rows[entry.key or b""] = entry.offset.to_bytes(8) + (entry.value or b"")
        for key, row in rows.items():
            offset, value = int.from_bytes(row[:8]), row[8:]
            if offset > volume.changelog_offset:
                continue
            if volume.rows.get(key, b"") == value:
                findings.count("profiles_on_volume", bool(value))
                continue
            fault = "the volume has another profile than the changelog, although it has applied this offset"
            findings.add_at(FindingKind.STATE, scope.changelog, scope.partition, offset, fault)
        unknown = sum(1 for key in volume.rows.keys() if key not in rows)  # noqa: SIM118 - it is no dict
    if unknown:
        fault = f"the volume has {unknown} profiles that are not on the changelog"
        findings.add_at(FindingKind.STATE, scope.changelog, scope.partition, volume.changelog_offset, fault)


def _fold(pair: Pair, transaction: Transaction, known: bytes | None) -> bytes:
    """Return the profile with one more transaction."""
    if pair.score is not None and FIRST_FEATURES in (pair.score.value or b""):  # the scorer had no profile
        profile = Profile()
    elif known is None or known == EXPIRED:
        return EXPIRED
    else:
        profile = decode_profile(known)
    try:
        decision = decision_of(pair.record())
    except InvalidRecord:
        return EXPIRED
    profile.update(transaction)
    profile.add_decision(decision)
    return encode_profile(profile)


def _is_upgraded(found: Profile, folded: Profile) -> bool:
    """Whether a profile from an older schema is equal, without its fingerprints and currencies."""
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
    """Whether fingerprints are the expected ones, without those of the older schema."""
    return len(found) == len(folded) and all(
        one == other or one < NOT_LEGACY for one, other in zip(found, folded, strict=True)
    )


def _is_readable(value: bytes) -> bool:
    try:
        decode_profile(value)
    except (InvalidRecord, *UNREADABLE):
        return False
    return True
