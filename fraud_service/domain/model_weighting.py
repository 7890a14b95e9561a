"""Which component deserves the more weight: how well both rank the transactions that were labelled in the last days.

Average precision is what a fraud team lives on, so it decides, not a loss that rare frauds hardly move. It is computed
from counts of logits in bins, which take the same room however many labels come, and add up in any order.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import msgspec

from fraud_service.domain.ranking import average_precision

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DAYS: Final = 7  # of labels in memory
LOWEST: Final = -8.0  # logits; what lies below or above falls into the first or last bin
WIDTH: Final = 0.4
BINS: Final = 40
SHARPNESS: Final = 25.0  # one hundredth of average precision moves the odds of the weights by a quarter
SURE: Final = 6.2  # logits, a doubt of 0.2 %: half of all examples are surer, and without them nothing is lost
MIN_FRAUDS: Final = 20.0  # fewer decide nothing
WORSE: Final = 0.02  # so much average precision behind over the days in memory: the online model is switched off
MUCH_WORSE: Final = 0.05  # the same for the last day
LATELY: Final = 60.0  # frauds: where a day has fewer, the days before it are taken in, for twenty decide by chance


class LabelledScore(msgspec.Struct, frozen=True, gc=False):
    """What both components said of a transaction, and what it was. A logit that is not finite ranks lowest."""

    pretrained: float
    online: float
    is_fraud: bool
    weight: float

    def is_uninformative(self) -> bool:
        """Whether the online model was right with so little doubt that the transaction would teach it nothing."""
        doubt = self.online if self.is_fraud else -self.online
        return doubt > SURE + math.log(self.weight)


class DailyHistogram(msgspec.Struct, array_like=True, frozen=True):
    """Transactions labelled on one UTC day: weighted counts by bin of their logit, of frauds and genuine ones."""

    day: int
    pretrained_frauds: list[float]
    pretrained_genuine: list[float]
    online_frauds: list[float]
    online_genuine: list[float]

    @classmethod
    def empty(cls, day: int) -> DailyHistogram:
        """Return the tally of a day that begins."""
        return cls(day, *([0.0] * BINS for _ in range(4)))

    def with_judged(self, judged: Iterable[LabelledScore]) -> DailyHistogram:
        """Count more transactions."""
        counts = [list(counted) for counted in msgspec.structs.astuple(self)[1:]]
        for one in judged:
            genuine = int(not one.is_fraud)
            counts[genuine][_bin(one.pretrained)] += one.weight
            counts[2 + genuine][_bin(one.online)] += one.weight
        return DailyHistogram(self.day, *counts)


class ModelComparison(msgspec.Struct, array_like=True, frozen=True):
    """The tallies of the last days on which something was labelled, the newest last."""

    tallies: tuple[DailyHistogram, ...] = ()

    def after(self, day: int, judged: Sequence[LabelledScore]) -> ModelComparison:
        """Take in what was judged on a day."""
        if not judged:
            return self
        *earlier, newest = self.tallies or (DailyHistogram.empty(day),)
        if newest.day != day:
            earlier, newest = [*earlier, newest], DailyHistogram.empty(day)
        return ModelComparison((*earlier, newest.with_judged(judged))[-DAYS:])

    def online_weight(self) -> float:
        """Return the share of the online model in the blend.

        It is a half when both rank equally well or nothing is known, and 0 when the online model is clearly worse, over
        all days in memory or over the last one alone.
        """
        lead = _lead(self.tallies)
        if lead is None:
            return 0.5
        days = 1
        while days < len(self.tallies) and _frauds(self.tallies[-days:]) < LATELY:
            days += 1
        lately = _lead(self.tallies[-days:])
        if lead < -WORSE or (lately is not None and lately < -MUCH_WORSE):
            return 0.0
        return 1.0 / (1.0 + math.exp(-SHARPNESS * lead))


def _bin(logit: float) -> int:
    if not math.isfinite(logit):
        return 0
    return min(max(int((logit - LOWEST) / WIDTH), 0), BINS - 1)


def _frauds(tallies: Sequence[DailyHistogram]) -> float:
    return math.fsum(count for tally in tallies for count in tally.online_frauds)


def _lead(tallies: Sequence[DailyHistogram]) -> float | None:
    """By how much the online model's average precision is the larger; None with too few frauds to tell."""
    if _frauds(tallies) < MIN_FRAUDS:
        return None
    online = binned_average_precision([t.online_frauds for t in tallies], [t.online_genuine for t in tallies])
    pretrained = binned_average_precision(
        [t.pretrained_frauds for t in tallies], [t.pretrained_genuine for t in tallies]
    )
    return online - pretrained


def binned_average_precision(frauds: Sequence[Sequence[float]], genuine: Sequence[Sequence[float]]) -> float:
    """Return the average precision of the counts of several days; each day has one count per bin."""
    return average_precision(
        (math.fsum(day[index] for day in frauds), math.fsum(day[index] for day in genuine))
        for index in reversed(range(BINS))
    )
