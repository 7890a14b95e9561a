"""Choose the weight of the online model by its ranking of recently labelled transactions.

The comparison uses average precision, because log loss hardly moves when fraud is rare. It is computed from histograms
of logits: their size does not depend on the number of labels, and the order of labels does not matter.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DAYS: Final = 7  # with labels, kept for the comparison
BINS: Final = 40
MIN_LOGIT: Final = -8.0  # lower edge of the first bin; logits outside the range fall into the first or the last bin
BIN_WIDTH: Final = 0.4  # logits
WEIGHT_SLOPE: Final = 25.0  # 0.01 of average precision changes the odds of the weights by a quarter
CERTAIN_LOGIT: Final = 6.2  # a doubt of 0.2 %: half of all examples are more certain, and training can skip them
MIN_FRAUDS: Final = 20.0  # with fewer, both models weigh the same
MAX_DEFICIT: Final = 0.02  # of average precision over all days; beyond it the online model is switched off
MAX_RECENT_DEFICIT: Final = 0.05  # the same for the most recent days
MIN_RECENT_FRAUDS: Final = 60.0  # the most recent days are the last day, and days before it until this many frauds


class LabelledScore(msgspec.Struct, frozen=True, gc=False):
    """The logits of both models for a labelled transaction. A logit that is not finite ranks lowest."""

    pretrained: float
    online: float
    is_fraud: bool
    weight: float

    def is_uninformative(self) -> bool:
        """Whether the online model was right, and so certain that it would learn nothing from this example.

        >>> LabelledScore(pretrained=-5.0, online=-7.0, is_fraud=False, weight=1.0).is_uninformative()
        True
        >>> LabelledScore(pretrained=-5.0, online=-7.0, is_fraud=True, weight=1.0).is_uninformative()
        False
        """
        certainty = self.online if self.is_fraud else -self.online
        return certainty > CERTAIN_LOGIT + math.log(self.weight)


class DailyHistogram(msgspec.Struct, array_like=True, frozen=True):
    """Weighted counts of the transactions labelled on one UTC day, by bin of their logit."""

    day: int
    pretrained_frauds: list[float]
    pretrained_legitimate: list[float]
    online_frauds: list[float]
    online_legitimate: list[float]

    @classmethod
    def empty(cls, day: int) -> DailyHistogram:
        """Return the histogram of a day without labels."""
        return cls(day, *([0.0] * BINS for _ in range(4)))

    def with_scores(self, scores: Iterable[LabelledScore]) -> DailyHistogram:
        """Return the histogram with more transactions counted."""
        counts = [list(counted) for counted in msgspec.structs.astuple(self)[1:]]
        for score in scores:
            legitimate = int(not score.is_fraud)
            counts[legitimate][_bin(score.pretrained)] += score.weight
            counts[2 + legitimate][_bin(score.online)] += score.weight
        return DailyHistogram(self.day, *counts)


class ModelComparison(msgspec.Struct, array_like=True, frozen=True):
    """The histograms of the last `DAYS` days with labels, the newest last."""

    histograms: tuple[DailyHistogram, ...] = ()

    def with_scores(self, day: int, scores: Sequence[LabelledScore]) -> ModelComparison:
        """Return the comparison with the transactions that were labelled on a day since the epoch."""
        if not scores:
            return self
        *earlier, newest = self.histograms or (DailyHistogram.empty(day),)
        if newest.day != day:
            earlier, newest = [*earlier, newest], DailyHistogram.empty(day)
        return ModelComparison((*earlier, newest.with_scores(scores))[-DAYS:])

    def online_weight(self) -> float:
        """Return the share of the online model in the blend.

        ============================================  =======
        average precision                             share
        ============================================  =======
        fewer than `MIN_FRAUDS` frauds                0.5
        both models rank equally well                 0.5
        the online model ranks better                 up to 1
        the online model is worse by `MAX_DEFICIT`    0
        worse by `MAX_RECENT_DEFICIT` recently        0
        ============================================  =======

        >>> ModelComparison().online_weight()
        0.5
        >>> frauds = [LabelledScore(pretrained=0.0, online=2.0, is_fraud=True, weight=1.0)] * 20
        >>> legitimate = [LabelledScore(pretrained=1.0, online=1.0, is_fraud=False, weight=1.0)] * 20
        >>> round(ModelComparison().with_scores(20_000, frauds + legitimate).online_weight(), 3)
        1.0
        """
        lead = _lead(self.histograms)
        if lead is None:
            return 0.5
        days = 1
        while days < len(self.histograms) and _frauds(self.histograms[-days:]) < MIN_RECENT_FRAUDS:
            days += 1
        recent_lead = _lead(self.histograms[-days:])
        if lead < -MAX_DEFICIT or (recent_lead is not None and recent_lead < -MAX_RECENT_DEFICIT):
            return 0.0
        return 1.0 / (1.0 + math.exp(-WEIGHT_SLOPE * lead))


def _bin(logit: float) -> int:
    if not math.isfinite(logit):
        return 0
    return min(max(int((logit - MIN_LOGIT) / BIN_WIDTH), 0), BINS - 1)


def _frauds(days: Sequence[DailyHistogram]) -> float:
    return math.fsum(count for day in days for count in day.online_frauds)


def _lead(days: Sequence[DailyHistogram]) -> float | None:
    """Return the average precision of the online model minus that of the pretrained one; None with too few frauds."""
    if _frauds(days) < MIN_FRAUDS:
        return None
    online = binned_average_precision([day.online_frauds for day in days], [day.online_legitimate for day in days])
    pretrained = binned_average_precision(
        [day.pretrained_frauds for day in days], [day.pretrained_legitimate for day in days]
    )
    return online - pretrained


def binned_average_precision(frauds: Sequence[Sequence[float]], legitimate: Sequence[Sequence[float]]) -> float:
    """Return the average precision of the counts of several days; each day has one count per bin."""
    return average_precision_of_groups(
        (math.fsum(day[index] for day in frauds), math.fsum(day[index] for day in legitimate))
        for index in reversed(range(BINS))
    )


def average_precision_of_groups(groups: Iterable[tuple[float, float]]) -> float:
    """Return the average precision of a ranking, the figure of merit where fraud is rare.

    `groups` are the counts of frauds and of legitimate transactions at each score, the highest score first. Each fraud
    contributes the precision among all transactions that score at least as high. There must be a fraud.

    >>> average_precision_of_groups([(1, 0), (1, 0), (0, 5)])  # both frauds rank first
    1.0
    >>> average_precision_of_groups([(1, 0), (0, 1), (0, 1), (1, 0)])  # precision 1/1 and 2/4
    0.75
    >>> average_precision_of_groups([(1, 3)])  # one score for all: the share of fraud
    0.25
    """
    area = caught = alerted = 0.0
    for frauds, legitimate in groups:
        caught += frauds
        alerted += frauds + legitimate
        if frauds > 0:
            area += frauds * caught / alerted
    return area / caught
