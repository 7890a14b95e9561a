"""Label counts of merchants and cards, and the versioned table that snapshots read them from.

A row counts labelled transactions by the UTC day on which their label became *known*, so a snapshot never contains
later information. The table keeps rows as bytes in versions. A snapshot sees the newest version of each row that is not
newer than the snapshot.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from fraud_service.domain.codec import LATEST, Moment, msgpack_decoder
from fraud_service.domain.time import DAY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DAYS_KEPT: Final = 31  # today and the thirty days before
MAX_ROW_BYTES: Final = 4096  # ten times the size of a month of labels
MAX_ROWS: Final = 4096  # cached decoded: few merchants have labelled fraud, and every payment there reads their row

Day = Annotated[int, msgspec.Meta(ge=0, le=LATEST // DAY)]  # of the epoch


class RiskDay(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Labels that became known on one UTC day."""

    day: Day
    labelled: int
    frauds: int


class Risk(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The label counts of one merchant or card. Times are event times of transactions, epoch milliseconds.

    `streak` counts the frauds since the last legitimate transaction, in the order in which labels became known.
    `lowamount_frauds` counts the frauds of the streak whose amount was not anomalous for the card.
    """

    days: tuple[RiskDay, ...] = ()
    streak: int = 0
    lowamount_frauds: int = 0
    streak_started_at: Moment | None = None
    last_fraud: Moment | None = None
    last_legitimate: Moment | None = None
    last_lowamount_fraud: Moment | None = None

    def labelled(self, as_of: int, *windows: int) -> list[tuple[int, int]]:
        """Return the labels and frauds of windows in days, the shortest first; each adds the day of `as_of`.

        One pass, because every payment at a merchant with labelled fraud calls this.

        >>> DAY_MS = 86_400_000
        >>> risk = Risk().with_label(20 * DAY_MS, 19 * DAY_MS, is_fraud=False, amount_is_anomalous=False)
        >>> risk = risk.with_label(23 * DAY_MS, 22 * DAY_MS, is_fraud=True, amount_is_anomalous=False)
        >>> risk.labelled(23 * DAY_MS, 1, 7)  # (labels, frauds) of 1 day and of 7 days
        [(1, 1), (2, 1)]
        """
        newest, found = as_of // DAY, []
        labelled = frauds = 0
        oldest = newest - windows[0]
        for bucket in reversed(self.days):
            day = bucket.day
            while day < oldest:
                found.append((labelled, frauds))
                if len(found) == len(windows):
                    return found
                oldest = newest - windows[len(found)]
            if day <= newest:
                labelled += bucket.labelled
                frauds += bucket.frauds
        return found + [(labelled, frauds)] * (len(windows) - len(found))

    def with_label(self, known_at: int, timestamp: int, *, is_fraud: bool, amount_is_anomalous: bool) -> Risk:
        """Add a label that became known at `known_at`, for a transaction made at `timestamp`."""
        days = _counted(self.days, known_at // DAY, 1, int(is_fraud))
        if not is_fraud:
            return msgspec.structs.replace(
                self, days=days, streak=0, lowamount_frauds=0, streak_started_at=None, last_legitimate=timestamp
            )
        return msgspec.structs.replace(
            self,
            days=days,
            streak=self.streak + 1,
            lowamount_frauds=self.lowamount_frauds + (not amount_is_anomalous),
            streak_started_at=timestamp if self.streak == 0 else self.streak_started_at,
            last_fraud=timestamp,
            last_lowamount_fraud=self.last_lowamount_fraud if amount_is_anomalous else timestamp,
        )

    def without_label(self, known_at: int, *, was_fraud: bool) -> Risk:
        """Remove a label that a later one contradicts. The streak stays as it is."""
        day, row = known_at // DAY, self
        if any(bucket.day == day for bucket in self.days):
            row = msgspec.structs.replace(self, days=_counted(self.days, day, -1, -int(was_fraud)))
        if was_fraud and not any(bucket.frauds for bucket in row.days):
            row = msgspec.structs.replace(row, last_fraud=None, last_lowamount_fraud=None)
        return row

    def has_fraud_history(self) -> bool:
        """Whether scorers need this row: it has a streak, or a fraud within `DAYS_KEPT`."""
        if self.streak > 0:
            return True
        for bucket in self.days:  # noqa: SIM110 - `any` takes three times as long, and every label calls this
            if bucket.frauds:
                return True
        return False


NO_RISK: Final = Risk()


def _counted(days: tuple[RiskDay, ...], day: int, labelled: int, frauds: int) -> tuple[RiskDay, ...]:
    if labelled > 0 and days and days[-1].day <= day:  # nearly always: labels arrive in order
        last = days[-1]
        if last.day == day:
            return (*days[:-1], RiskDay(day, last.labelled + labelled, last.frauds + frauds))
        kept = days if days[0].day > day - DAYS_KEPT else tuple(b for b in days if b.day > day - DAYS_KEPT)
        return (*kept, RiskDay(day, labelled, frauds))
    counts = {bucket.day: bucket for bucket in days}
    old = counts.get(day, RiskDay(day, 0, 0))
    counts[day] = RiskDay(day, old.labelled + labelled, old.frauds + frauds)
    oldest = max(counts) - DAYS_KEPT
    return tuple(counts[d] for d in sorted(counts) if d > oldest)


def merchant_key(merchant_id: str) -> str:
    """Return the key of a merchant's row, in the table and on the risk topic."""
    return f"merchant:{merchant_id}"


def card_key(card_id: str) -> str:
    """Return the key of a card's row, in the table and on the risk topic."""
    return f"card:{card_id}"


encode_risk: Final[Callable[[Risk], bytes]] = msgspec.msgpack.Encoder().encode
decode_risk: Final = msgpack_decoder(Risk, "a row of the risk table")
_known = lru_cache(MAX_ROWS)(decode_risk)


class RiskTable:
    """Rows in versions: one thread appends, and readers of an older snapshot keep seeing the same rows."""

    def __init__(self) -> None:
        self._versions: dict[str, tuple[list[int], list[bytes | None]]] = {}
        self._written: deque[tuple[int, str]] = (
            deque()
        )  # versions that `forget_before` has not checked, the oldest first
        self._digest = 0

    def put(self, key: str, as_of: int, row: bytes | None) -> None:
        """Set the row from `as_of` on; None removes it."""
        self._digest = self._sum_with({key: row})
        self._written.append((as_of, key))
        versions = self._versions.get(key)
        if versions is None:  # one assignment: a concurrent reader never finds a key without a version
            self._versions[key] = ([as_of], [row])
        else:  # row first: a concurrent reader never finds a time without a row
            versions[1].append(row)
            versions[0].append(as_of)

    def get(self, key: str, as_of: int) -> Risk:
        """Return the row as it was at `as_of`; `NO_RISK` where there is none."""
        versions = self._versions.get(key)
        if versions is None:
            return NO_RISK
        times, rows = versions
        position = bisect_right(times, as_of)
        row = rows[position - 1] if position else None
        return NO_RISK if row is None else _known(row)

    def digest(self) -> str:
        """Return the digest of the newest version of all rows. It does not depend on their order."""
        return f"{self._digest:064x}"

    def digest_with(self, rows: Mapping[str, bytes | None]) -> str:
        """Return the digest that the table would have after these rows."""
        return f"{self._sum_with(rows):064x}"

    def _sum_with(self, rows: Mapping[str, bytes | None]) -> int:
        total = self._digest
        for key, row in rows.items():
            _, versions = self._versions.get(key, ([], [None]))
            total += row_digest(key, row) - row_digest(key, versions[-1])
        return total % _MODULUS

    def forget_before(self, as_of: int) -> None:
        """Drop the versions that no snapshot from `as_of` on can read."""
        while self._written and self._written[0][0] <= as_of:
            key = self._written.popleft()[1]
            times, rows = self._versions.get(key, ([], []))
            seen = bisect_right(times, as_of) - 1
            if seen == len(rows) - 1 and rows and rows[seen] is None:
                del self._versions[key]
            elif seen > 0:
                self._versions[key] = times[seen:], rows[seen:]


_MODULUS: Final = 1 << 256


def row_digest(key: str, row: bytes | None) -> int:
    """Return 256 bits of one row. The digest of the table is their sum modulo 2**256."""
    if row is None:
        return 0
    return int.from_bytes(sha256(len(key).to_bytes(4, "big") + key.encode() + row).digest(), "big")
