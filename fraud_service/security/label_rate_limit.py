"""Limit the number of labels in an hour, so that a flood of labels, forged or by mistake, does not train the model.

A label above a limit becomes a dead letter for an operator to examine. The limiter counts by broker timestamp, in the
order of the log. So the same log always gives the same result.

The state of a partition is one small row, in which cards share `CELLS` counters. So the count of a card is never too
low. But a card that shares its counter with a busy one may reach the limit too early.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from fraud_service.domain.codec import decode
from fraud_service.domain.errors import DeadLetterReason, InvalidEvent
from fraud_service.domain.profile import fingerprint
from fraud_service.domain.time import HOUR

if TYPE_CHECKING:
    from fraud_service.domain.events import Label
    from fraud_service.domain.label_join import KeyValueStore

CELLS: Final = 4096
MAX_PER_CARD: Final = 65_535  # the maximum of a counter of two bytes
KEY: Final = "hour"


class LabelRateLimits(msgspec.Struct, frozen=True):
    """Maximum labels in an hour and partition for one source and for one card; 0 means no limit."""

    per_source: int = 0
    per_card: int = 0


class _Hour(msgspec.Struct, array_like=True):
    """Counts of hour `number` since the epoch: labels by source, and by cell of the card, two bytes each."""

    number: int = -1
    sources: dict[str, int] = {}
    cells: Annotated[bytes, msgspec.Meta(min_length=2 * CELLS, max_length=2 * CELLS)] = bytes(2 * CELLS)


class LabelRateLimiter:
    """Apply the limits to the labels of one partition."""

    def __init__(self, store: KeyValueStore, limits: LabelRateLimits) -> None:
        self._store = store
        self._limits = limits

    def check(self, label: Label, timestamp: int) -> None:
        """Count a label with its broker timestamp (epoch milliseconds).

        Raises `InvalidEvent` if its source or its card has reached the limit of the hour.
        """
        if self._limits == LabelRateLimits():
            return
        data = self._store.get(KEY)
        hour = _Hour() if data is None else decode(_decoder, data, "the hour's count of labels")
        if timestamp // HOUR > hour.number:
            hour = _Hour(timestamp // HOUR)
        cells, cell = array("H", hour.cells), fingerprint(label.card_id) % CELLS
        source_count = hour.sources.get(label.source, 0)
        for limit, count, origin in (
            (self._limits.per_source, source_count, f"source {label.source}"),
            (self._limits.per_card, cells[cell], "this card"),
        ):
            if 0 < limit <= count:
                detail = f"{count} labels of {origin} in the same hour before this one"
                raise InvalidEvent(DeadLetterReason.LABEL_FLOOD, detail)
        hour.sources[label.source] = source_count + 1
        cells[cell] = min(cells[cell] + 1, MAX_PER_CARD)
        hour.cells = cells.tobytes()
        self._store.put(KEY, _encoder.encode(hour))


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Hour)
