"""What the labels of a history cover: which figures they allow, and what to change if they allow none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fraud_service.domain.time import DAY, rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fraud_service.domain.events import LabelledTransaction
    from fraud_service.evaluation.metrics import Figures


class LabelCoverage:
    """Count the labels of a history, with the event times of their payments and the times at which they came."""

    def __init__(self, label_delay_ms: int) -> None:
        self._delay_ms = label_delay_ms
        self.labels = self.frauds = 0
        self.last_event = 0
        self._first = self._last = self._first_known = 0

    def add(self, event: LabelledTransaction) -> None:
        """Add the next row of the history."""
        self.last_event = event.transaction.timestamp
        label = event.label(self._delay_ms)
        if label is None:
            return
        if not self.labels:
            self._first, self._first_known = self.last_event, label.labelled_at
        self._last = self.last_event
        self._first_known = min(self._first_known, label.labelled_at)
        self.labels += 1
        self.frauds += label.is_fraud

    @property
    def span(self) -> str:
        """The event times of the first and the last labelled payment."""
        return f"{rfc3339(self._first)} to {rfc3339(self._last)}"

    def warnings(self, figures: Figures, assumed_legitimate: int) -> Iterator[str]:
        """Name the figures that the labels cannot give, and how the run counted payments without a label.

        `assumed_legitimate` counts payments without a label that count as legitimate.
        """
        if not figures.rows:
            yield self._nothing()
        elif assumed_legitimate:
            yield (
                f"all {figures.frauds:,} labels say fraud, so {assumed_legitimate:,} payments without a label count as "
                "legitimate"
            )
        elif figures.unlabelled:
            yield (
                f"{figures.unlabelled:,} of {figures.unlabelled + figures.rows:,} payments have no label: they count "
                "only in the number of alerts, and all other figures leave them out"
            )
        if figures.rows and not figures.frauds:
            yield f"none of {figures.rows:,} labels says fraud: only the number of alerts and false alarms was measured"
        elif figures.rows == figures.frauds and figures.rows:
            yield "no payment is legitimate: precision and ranking say nothing"
        if self.labels and self._first_known > self.last_event:
            yield (
                f"no label became known before the end of the file, {rfc3339(self.last_event)}, with a delay of "
                f"{self._delay_ms / DAY:g} days (--label-delay): the run learned from no label"
            )

    def _nothing(self) -> str:
        if not self.labels:
            return "nothing was measured: the file has no label"
        return (
            f"nothing was measured: no payment in the measured days has a label. The labelled payments of the file are "
            f"from {self.span}: change --from and --to"
        )

    def shortage(self, late_frauds: int, rows: int) -> str:
        """Say why a training window has too few frauds, and what to do.

        `late_frauds` counts those of the window that became known too late, and `rows` all its payments.
        """
        if not rows:
            return "no payment is in it: shorten --label-delay or widen --train-from/--train-to"
        if not self.labels:
            return "no row has a label"
        if not self.frauds:
            return f"the file has {self.labels:,} labels, and none says fraud: check the column of the label"
        if late_frauds:
            return (
                f"{late_frauds:,} more became known later than --label-delay after its end: raise --label-delay to use "
                "them"
            )
        return (
            f"the file has {self.frauds:,} rows labelled as fraud, and its labelled payments are from {self.span}: "
            "widen --train-from/--train-to or shorten --label-delay"
        )
