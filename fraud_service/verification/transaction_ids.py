"""The payments under each transaction id, as the scores have them: a repetition must repeat a scored payment."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from fraud_service.domain.events import facts

if TYPE_CHECKING:
    from fraud_service.domain.records import ScoreRecord

WINDOW: Final = 100_000  # ids of one partition that are remembered, the newest


class Uses:
    """The payments under each id of one partition, in a bounded memory: only their hashes are kept."""

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        self._payments: OrderedDict[int, set[int]] = OrderedDict()

    def repeats_another(self, record: ScoreRecord) -> bool:
        """Take in the next score; returns whether it repeats a payment that was never scored under its id."""
        name, payment = hash((record.card_id, record.transaction_id)), hash(facts(record))
        if record.is_duplicate:
            return name in self._payments and payment not in self._payments[name]
        self._payments.setdefault(name, set()).add(payment)
        self._payments.move_to_end(name)
        if len(self._payments) > self._window:
            self._payments.popitem(last=False)
        return False
