"""All snapshots received so far, and which of them scores a transaction."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from fraud_service.domain.risk import NO_RISK, RiskTable, card_key, merchant_key
from fraud_service.domain.snapshot import Snapshot
from fraud_service.domain.time import DAY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fraud_service.domain.risk import Risk

MAX_APPLIED_AT_ONCE: Final = 256  # snapshots brought into force together when many wait, as at a start
RETENTION_MS: Final = 31 * DAY  # event time for which superseded snapshots stay usable in memory
MAX_PENDING: Final = 1_000  # snapshots that wait to be settled however old they are: a start reads those of years


class SnapshotView(msgspec.Struct, frozen=True):
    """A snapshot together with the risk table as it was then."""

    snapshot: Snapshot
    table: RiskTable

    def merchant(self, merchant_id: str) -> Risk:
        """Return what labels said of the merchant."""
        return self._row(merchant_key(merchant_id))

    def card(self, card_id: str) -> Risk:
        """Return what labels said of the card."""
        return self._row(card_key(card_id))

    def without_online_model(self) -> SnapshotView:
        """Return the same view without a say of the online model."""
        return SnapshotView(self.snapshot.without_online_model(), self.table)

    def _row(self, key: str) -> Risk:
        return NO_RISK if self.snapshot.is_untrained else self.table.get(key, self.snapshot.as_of)


class SnapshotSource(Protocol):
    """What a transaction is scored with: the live service chooses by event time, a replay by what the score names."""

    def at(self, timestamp: int) -> SnapshotView:
        """Return the snapshot to score with."""


class SnapshotStore:
    """All snapshots received so far; each transaction is scored with the newest in force at its event time.

    Records arrive in any order across the two broadcast topics. A snapshot comes into force when all its risk rows are
    here and the table has the digest it names, never in part. One writer thread calls `receive_*` and `settle`; any
    thread may call `at`. Superseded snapshots stay for `kept` milliseconds of event time. `passed_over` names those
    that could not come into force.
    """

    def __init__(self, initial: Snapshot, kept: int = RETENTION_MS) -> None:
        self._kept = kept
        self._table = RiskTable()
        self._models = {initial.model: len(initial.online.leaf_weights)}
        self._is_online = True
        self._views: tuple[SnapshotView, ...] = (SnapshotView(initial, self._table),)
        # Starts and views, in one attribute: replaced at once, so that a reader never sees one without the other.
        self._in_force: tuple[tuple[int, ...], tuple[SnapshotView, ...]] = ((-1,), self._views)
        self._pending: dict[str, Snapshot] = {}
        self._rows: dict[str, dict[str, bytes | None]] = {}
        self._crowd = 2 * MAX_PENDING
        self._dropped = self._settled = ""
        self.passed_over: list[str] = []

    @property
    def incomplete(self) -> int:
        """How many snapshots were passed over."""
        return len(self.passed_over)

    @property
    def views(self) -> tuple[SnapshotView, ...]:
        """What can be scored with, the oldest first: the initial snapshot, and all that are kept."""
        return self._in_force[1]

    @property
    def newest(self) -> Snapshot:
        """The newest snapshot that is complete."""
        return self._in_force[1][-1].snapshot

    def at(self, timestamp: int) -> SnapshotView:
        """Return the newest snapshot whose `effective_from` is not after this event time."""
        starts, views = self._in_force
        return views[max(bisect_right(starts, timestamp) - 1, 0)]

    def is_behind(self, timestamp: int) -> bool:
        """Whether a transaction of this event time should find a newer snapshot than there is, or a first one."""
        return self.newest.is_untrained or self.newest.is_stale_at(timestamp)

    def register_model(self, model: str, leaves: int) -> None:
        """From now on take in snapshots of this pretrained model too, whose online model knows so many leaves."""
        self._models[model] = leaves

    def switch(self, *, online: bool) -> None:
        """Let the online model take part in scores, or not, from now on, whichever snapshot is in force."""
        self._is_online = online
        self._publish(self._views)

    def receive_snapshot(self, snapshot: Snapshot) -> None:
        """Take in a snapshot record; it waits for its rows."""
        if snapshot.as_of <= self.newest.as_of:  # published again by a learner that started over
            self._rows.pop(snapshot.version, None)
        elif snapshot.version > self._dropped:
            self._pending[snapshot.version] = snapshot
            if len(self._pending) > self._crowd:
                self._prune()

    def receive_risk(self, version: str, key: str, row: bytes | None) -> None:
        """Take in one risk row of the snapshot with this version; None removes the row."""
        # Versions begin with their boundary: rows of one that is settled were published a second time.
        if version > self._settled:
            self._rows.setdefault(version, {})[key] = row

    def apply_received(self, *, final: bool = False) -> None:
        """Bring pending snapshots into force, oldest first, as far as they are complete.

        Parameters
        ----------
        final
            Everything there is has been read: rows that are missing before a complete snapshot were compacted away.
            Such a snapshot is passed over and counted, its rows kept, because the complete one makes up for it.
        """
        waiting = sorted(self._pending.values(), key=lambda snapshot: snapshot.as_of)
        ripe = waiting[: self._count_complete(waiting, final=final)]
        versions = deque(sorted(self._rows))
        for start in range(0, len(ripe), MAX_APPLIED_AT_ONCE):
            self._activate([one for one in ripe[start : start + MAX_APPLIED_AT_ONCE] if self._apply(one, versions)])

    def _prune(self) -> None:
        """Drop waiting snapshots that newer ones supersede; one remembers their rows for all, each key once."""
        waiting = sorted(self._pending.values(), key=lambda snapshot: snapshot.as_of)
        oldest = waiting[-1].effective_from - self._kept
        dropped = [snapshot.version for snapshot in waiting[:-MAX_PENDING] if snapshot.effective_from <= oldest]
        rows: dict[str, bytes | None] = {}
        versions = deque(sorted(self._rows))
        for version in dropped:
            del self._pending[version]
            self._dropped = version
        while versions and versions[0] <= self._dropped:
            rows |= self._rows.pop(versions.popleft())
        if rows:
            self._rows[self._dropped] = rows
        self._crowd = max(2 * MAX_PENDING, 2 * len(self._pending))

    def _count_complete(self, waiting: list[Snapshot], *, final: bool) -> int:
        """How many of the waiting snapshots can be settled now."""
        complete = [len(self._rows.get(snapshot.version, {})) >= snapshot.risk_rows for snapshot in waiting]
        if not final:
            return [*complete, False].index(False)
        ripe = len(complete) - [*complete[::-1], True].index(True)
        rows: dict[str, bytes | None] = {}
        versions = deque(sorted(self._rows))
        for number, snapshot in enumerate(waiting, start=1):
            for version in _due_with(snapshot, versions):
                rows |= self._rows[version]
            # Removals are compacted away in the end: then the table fits although their rows are missing.
            if number > ripe and self._table.digest_with(rows) == snapshot.risk_digest:
                ripe = number
        return ripe

    def _apply(self, snapshot: Snapshot, versions: deque[str]) -> bool:
        """Put the rows that are due with a snapshot; returns whether it can be scored with."""
        del self._pending[snapshot.version]
        for version in _due_with(snapshot, versions):
            for key, row in self._rows.pop(version).items():
                self._table.put(key, snapshot.as_of, row)
        self._settled = snapshot.version
        # Taught beside a pretrained model that is not here, its online model takes inputs that nobody can give it.
        is_ours = self._models.get(snapshot.model) == len(snapshot.online.leaf_weights)
        if is_ours and self._table.digest() == snapshot.risk_digest:
            return True
        self.passed_over.append(snapshot.version)
        return False

    def _activate(self, snapshots: list[Snapshot]) -> None:
        """Bring complete snapshots into force, and forget what they supersede."""
        if not snapshots:
            return
        initial, *taught = self._views
        oldest = snapshots[-1].effective_from - self._kept
        taught += [SnapshotView(snapshot, self._table) for snapshot in snapshots]
        taught = [view for view in taught if view.snapshot.effective_from > oldest]
        self._publish((initial, *taught))
        self._table.forget_before(taught[0].snapshot.as_of)

    def _publish(self, views: tuple[SnapshotView, ...]) -> None:
        self._views = views
        starts = (-1, *(view.snapshot.effective_from for view in views[1:]))
        self._in_force = starts, views if self._is_online else tuple(view.without_online_model() for view in views)


def _due_with(snapshot: Snapshot, versions: deque[str]) -> Iterator[str]:
    """Take out the versions whose rows are in the table by then, those of snapshots expired or refused included."""
    while versions and versions[0] <= snapshot.version:
        yield versions.popleft()
