"""How many labels an hour may bring, so that a flood, forged or by mistake, teaches nothing.

What goes beyond a limit is not taken in: its letter waits with the other dead letters until somebody has looked at it.
Counted is by the broker's time of the messages and in the order of the log, so the same log always has the same flood.
The state is one small row a partition: cards are counted in `CELLS` cells that they share, so a card is never counted
too low, and one that shares its cell with a busy one is held back too early, if at all.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from fraud_service.domain.codec import decode
from fraud_service.domain.errors import InvalidEvent
from fraud_service.domain.events import DeadLetterReason
from fraud_service.domain.profile import fingerprint
from fraud_service.domain.time import HOUR

if TYPE_CHECKING:
    from fraud_service.domain.events import Label
    from fraud_service.domain.label_join import KeyValueStore

CELLS: Final = 4096
MAX_PER_CARD: Final = 65_535  # what a cell can count
KEY: Final = "hour"


class LabelRateLimits(msgspec.Struct, frozen=True):
    """Labels an hour in one partition, of one source and of one card; 0 where there is no limit."""

    per_source: int = 0
    per_card: int = 0


class _Hour(msgspec.Struct, array_like=True):
    """What came in an hour since the epoch: labels by source, and by cell of their card, two bytes each."""

    number: int = -1
    sources: dict[str, int] = {}
    cells: Annotated[bytes, msgspec.Meta(min_length=2 * CELLS, max_length=2 * CELLS)] = bytes(2 * CELLS)


class LabelRateLimiter:
    """The limits of one partition."""

    def __init__(self, store: KeyValueStore, limits: LabelRateLimits) -> None:
        self._store = store
        self._limits = limits

    def admit(self, label: Label, timestamp: int) -> None:
        """Count a label that the broker took at `timestamp` (epoch milliseconds).

        Raises
        ------
        InvalidEvent
            When its source or its card has had all labels of the hour.
        """
        if self._limits == LabelRateLimits():
            return
        data = self._store.get(KEY)
        hour = _Hour() if data is None else decode(_decoder, data, "the hour's count of labels")
        if timestamp // HOUR > hour.number:
            hour = _Hour(timestamp // HOUR)
        cells, cell = array("H", hour.cells), fingerprint(label.card_id) % CELLS
        of_source = hour.sources.get(label.source, 0)
        if 0 < self._limits.per_source <= of_source:
            raise InvalidEvent(
                DeadLetterReason.LABEL_FLOOD, f"{of_source} labels of {label.source} within an hour before it"
            )
        if 0 < self._limits.per_card <= cells[cell]:
            raise InvalidEvent(
                DeadLetterReason.LABEL_FLOOD, f"{cells[cell]} labels of its card within an hour before it"
            )
        hour.sources[label.source] = of_source + 1
        cells[cell] = min(cells[cell] + 1, MAX_PER_CARD)
        hour.cells = cells.tobytes()
        self._store.put(KEY, _encoder.encode(hour))


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Hour)
