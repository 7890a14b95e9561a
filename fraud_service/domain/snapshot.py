"""The snapshot: the learned state up to an event-time boundary. The store selects one for each transaction."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import deque
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Final, Protocol

import msgspec

from fraud_service.domain.codec import Count, ModelVersion, Moment, json_decoder
from fraud_service.domain.errors import InvalidRecord
from fraud_service.domain.features import NAMES
from fraud_service.domain.online_model import OnlineModel
from fraud_service.domain.risk import NO_RISK, RiskTable, card_key, merchant_key
from fraud_service.domain.time import DAY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fraud_service.domain.risk import Risk

UNTRAINED: Final = "untrained"  # begins the version of the snapshot before any label; published
SWITCHED_OFF: Final = "+online-off"  # ends the version of a snapshot whose online model is switched off
VERSION: Final = re.compile(r"\d{8,9}T\d{4}-[0-9a-f]{8}", re.ASCII)  # as in `Snapshot.with_digest`
MAX_BYTES: Final = 1 << 20  # the largest model makes a snapshot of 50 KB
MAX_APPLIED_AT_ONCE: Final = 256  # snapshots activated together when many are pending, as at a start
RETENTION_MS: Final = 31 * DAY  # event time for which superseded snapshots stay in memory
MAX_PENDING: Final = 1_000  # the newest pending snapshots are always kept; a start may read those of years


class Snapshot(msgspec.Struct, frozen=True):
    """The learned state up to the boundary `as_of`. Equal versions have equal bits. Times are epoch milliseconds.

    Transactions use it from the event time `effective_from` on. `interval_ms` is the time between boundaries. `model`
    is the version of the pretrained model that the online model belongs to. `examples` counts the labelled examples so
    far; those before the first maturity trained risk only. `label_horizon` is when the newest of their labels became
    known. `risk_rows` is the number of risk rows that changed with this snapshot, `risk_digest` the digest of the whole
    risk table. `digest` is the SHA-256 of all other fields; `version` contains its beginning.
    """

    version: str
    as_of: Moment
    effective_from: Moment
    interval_ms: Count
    model: ModelVersion
    online: OnlineModel
    online_weight: Annotated[float, msgspec.Meta(ge=0, le=1)]
    examples: Count
    label_horizon: Moment
    risk_rows: Count
    risk_digest: str
    digest: str = ""

    def with_digest(self) -> Snapshot:
        """Return the snapshot with its digest and version filled in."""
        content = msgspec.structs.replace(self, version="", digest="")
        digest = sha256(msgspec.json.encode(content)).hexdigest()
        moment = datetime.fromtimestamp(self.as_of / 1000, UTC)
        return msgspec.structs.replace(self, digest=digest, version=f"{moment:%Y%m%dT%H%M}-{digest[:8]}")

    def verify_digest(self) -> None:
        """Raise `InvalidRecord` unless digest and version match the content."""
        try:
            expected = self.with_digest()
        except (OverflowError, ValueError, OSError) as error:  # depends on the platform and the year
            raise InvalidRecord(f"`as_of` of a snapshot is not a valid time: {error}") from error
        if self != expected:
            raise InvalidRecord(f"snapshot {self.version} does not match its digest: it was altered or truncated")
        weights = len(self.online.weights)
        if weights != len(NAMES):
            raise InvalidRecord(
                f"the online model has {weights} weights for {len(NAMES)} features: it is of another version"
            )

    def is_stale_at(self, timestamp: int) -> bool:
        """Whether a newer snapshot should be active at this event time."""
        return not self.is_untrained and timestamp >= self.effective_from + self.interval_ms

    @property
    def is_untrained(self) -> bool:
        """Whether this is the snapshot before any label."""
        return self.version.startswith(UNTRAINED)

    def without_online_model(self) -> Snapshot:
        """Return the snapshot with the online model switched off, and a version that says so.

        A score names this version, so a replay can compute the same score again.
        """
        return msgspec.structs.replace(self, version=self.version + SWITCHED_OFF, online_weight=0.0)


def untrained(model: str, online: OnlineModel) -> Snapshot:
    """Return the snapshot before any label: its online score equals the pretrained score."""
    return Snapshot(UNTRAINED, 0, 0, 0, model, online, 0.5, 0, 0, 0, RiskTable().digest())


encode_snapshot: Final[Callable[[Snapshot], bytes]] = msgspec.json.Encoder().encode  # floats keep every bit
_decode_snapshot: Final = json_decoder(Snapshot, "a snapshot record")


def decode_snapshot(data: bytes) -> Snapshot:
    """Decode a snapshot. Raises `InvalidRecord` if it cannot be read, is too large, or was altered."""
    if len(data) > MAX_BYTES:
        raise InvalidRecord(f"a snapshot has {len(data)} bytes; at most {MAX_BYTES} are allowed")
    snapshot = _decode_snapshot(data)
    snapshot.verify_digest()
    return snapshot


class SnapshotView(msgspec.Struct, frozen=True):
    """A snapshot together with the risk table as of its boundary."""

    snapshot: Snapshot
    table: RiskTable

    def merchant(self, merchant_id: str) -> Risk:
        """Return the label counts of a merchant."""
        return self._row(merchant_key(merchant_id))

    def card(self, card_id: str) -> Risk:
        """Return the label counts of a card."""
        return self._row(card_key(card_id))

    def without_online_model(self) -> SnapshotView:
        """Return the same view with the online model switched off."""
        return SnapshotView(self.snapshot.without_online_model(), self.table)

    def _row(self, key: str) -> Risk:
        return NO_RISK if self.snapshot.is_untrained else self.table.get(key, self.snapshot.as_of)


class SnapshotSource(Protocol):
    """Selects the snapshot of a transaction: by event time when live, by the recorded version in a replay."""

    def at(self, timestamp: int) -> SnapshotView:
        """Return the snapshot for an event time."""


class SnapshotStore:
    """Holds the snapshots received so far; `at` returns the one that is active at an event time.

    The records of the two broadcast topics arrive in any order. A snapshot becomes active as a whole: when all its risk
    rows have arrived and the table has the digest that it names. Superseded snapshots stay for `kept_ms` of
    event time. `incomplete` lists the versions that could not become active.

    One writer thread calls `receive_*` and `apply_received`. Any thread may call `at`.
    """

    def __init__(self, initial: Snapshot, kept_ms: int = RETENTION_MS) -> None:
        self._kept_ms = kept_ms
        self._table = RiskTable()
        self._models = {initial.model: len(initial.online.leaf_weights)}
        self._is_online = True
        self._views: tuple[SnapshotView, ...] = (SnapshotView(initial, self._table),)
        # Start times and views, replaced in one assignment, so that readers always see both of one state.
        self._active: tuple[tuple[int, ...], tuple[SnapshotView, ...]] = ((-1,), self._views)
        self._pending: dict[str, Snapshot] = {}
        self._rows: dict[str, dict[str, bytes | None]] = {}
        self._prune_above = 2 * MAX_PENDING
        self._dropped = self._applied = ""  # the newest version that was dropped, or applied
        self.incomplete: list[str] = []

    @property
    def views(self) -> tuple[SnapshotView, ...]:
        """The snapshots that can score, the oldest first, beginning with the initial one."""
        return self._active[1]

    @property
    def newest(self) -> Snapshot:
        """The newest complete snapshot."""
        return self._active[1][-1].snapshot

    def at(self, timestamp: int) -> SnapshotView:
        """Return the newest snapshot whose `effective_from` is at or before this event time."""
        starts, views = self._active
        return views[max(bisect_right(starts, timestamp) - 1, 0)]

    @property
    def is_waiting_for_rows(self) -> bool:
        """Whether a snapshot has arrived without all its risk rows."""
        return bool(self._pending)

    def is_behind(self, timestamp: int) -> bool:
        """Whether a newer snapshot should exist for this event time, or none has arrived yet."""
        return self.newest.is_untrained or self.newest.is_stale_at(timestamp)

    def register_model(self, model: str, leaves: int) -> None:
        """Accept snapshots of another pretrained model, whose online model has this number of leaves."""
        self._models[model] = leaves

    def switch_online_model(self, *, online: bool) -> None:
        """Switch the online model on or off for all snapshots."""
        self._is_online = online
        self._publish(self._views)

    def receive_snapshot(self, snapshot: Snapshot) -> None:
        """Add a snapshot record; it stays pending until its risk rows have arrived."""
        if snapshot.as_of <= self.newest.as_of:  # a restarted learner published it again
            self._rows.pop(snapshot.version, None)
        elif snapshot.version > self._dropped:
            self._pending[snapshot.version] = snapshot
            if len(self._pending) > self._prune_above:
                self._prune()

    def receive_risk(self, version: str, key: str, row: bytes | None) -> None:
        """Add one risk row of the snapshot with this version; None removes the row."""
        # Versions sort by boundary. Rows up to the last applied version are a repeated publication.
        if version > self._applied:
            self._rows.setdefault(version, {})[key] = row

    def apply_received(self, *, final: bool = False) -> None:
        """Apply pending snapshots, the oldest first, as far as they are complete.

        `final`: both topics were read to their end, so compaction removed the rows that are still missing. The rows of
        an incomplete snapshot are applied with the next complete one.
        """
        pending = sorted(self._pending.values(), key=lambda snapshot: snapshot.as_of)
        complete = pending[: self._count_complete(pending, final=final)]
        versions = deque(sorted(self._rows))
        for start in range(0, len(complete), MAX_APPLIED_AT_ONCE):
            batch = complete[start : start + MAX_APPLIED_AT_ONCE]
            self._activate([snapshot for snapshot in batch if self._apply(snapshot, versions)])

    def _prune(self) -> None:
        """Drop superseded pending snapshots. The newest dropped one keeps their rows, each key once."""
        pending = sorted(self._pending.values(), key=lambda snapshot: snapshot.as_of)
        oldest = pending[-1].effective_from - self._kept_ms
        dropped = [snapshot.version for snapshot in pending[:-MAX_PENDING] if snapshot.effective_from <= oldest]
        rows: dict[str, bytes | None] = {}
        versions = deque(sorted(self._rows))
        for version in dropped:
            del self._pending[version]
            self._dropped = version
        while versions and versions[0] <= self._dropped:
            rows |= self._rows.pop(versions.popleft())
        if rows:
            self._rows[self._dropped] = rows
        self._prune_above = max(2 * MAX_PENDING, 2 * len(self._pending))

    def _count_complete(self, pending: list[Snapshot], *, final: bool) -> int:
        """Return how many of the pending snapshots can be applied now; the oldest come first.

        A snapshot is complete when all its risk rows have arrived. The first incomplete one ends the count, because its
        rows are still on the way. With `final`, the last complete one ends it. Compaction removes the tombstones of
        deleted rows, so with `final` a snapshot also counts whose table digest fits without the missing rows.
        """
        is_complete = [len(self._rows.get(snapshot.version, {})) >= snapshot.risk_rows for snapshot in pending]
        if not final:
            return [*is_complete, False].index(False)
        count = len(is_complete) - [*is_complete[::-1], True].index(True)
        rows: dict[str, bytes | None] = {}
        versions = deque(sorted(self._rows))
        for number, snapshot in enumerate(pending, start=1):
            for version in _take_versions(snapshot, versions):
                rows |= self._rows[version]
            if number > count and self._table.digest_with(rows) == snapshot.risk_digest:
                count = number
        return count

    def _apply(self, snapshot: Snapshot, versions: deque[str]) -> bool:
        """Write the snapshot's rows to the table; return whether the snapshot can be active."""
        del self._pending[snapshot.version]
        for version in _take_versions(snapshot, versions):
            for key, row in self._rows.pop(version).items():
                self._table.put(key, snapshot.as_of, row)
        self._applied = snapshot.version
        # The online model needs the leaves of its pretrained model, so that one must be registered.
        has_model = self._models.get(snapshot.model) == len(snapshot.online.leaf_weights)
        if has_model and self._table.digest() == snapshot.risk_digest:
            return True
        self.incomplete.append(snapshot.version)
        return False

    def _activate(self, snapshots: list[Snapshot]) -> None:
        """Make complete snapshots active, and drop those that they supersede."""
        if not snapshots:
            return
        initial, *views = self._views
        oldest = snapshots[-1].effective_from - self._kept_ms
        views += [SnapshotView(snapshot, self._table) for snapshot in snapshots]
        views = [view for view in views if view.snapshot.effective_from > oldest]
        self._publish((initial, *views))
        self._table.forget_before(views[0].snapshot.as_of)

    def _publish(self, views: tuple[SnapshotView, ...]) -> None:
        self._views = views
        starts = (-1, *(view.snapshot.effective_from for view in views[1:]))
        self._active = starts, views if self._is_online else tuple(view.without_online_model() for view in views)


def _take_versions(snapshot: Snapshot, versions: deque[str]) -> Iterator[str]:
    """Remove and yield the versions up to that of a snapshot, also those of expired or rejected snapshots."""
    while versions and versions[0] <= snapshot.version:
        yield versions.popleft()
