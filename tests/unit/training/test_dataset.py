"""Training sets: nothing from after the window changes an example, and each transaction is one example."""

from __future__ import annotations

import msgspec
import pytest
from support.histories import hourly_history
from support.worlds import DAY, HOUR, MONDAY

from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.features import NAMES
from fraud_service.training.dataset import TrainingWindow, collect


def changed(event, **facts):
    return msgspec.structs.replace(event, **facts)


def test_a_fraud_known_only_after_window_and_delay_counts_as_legitimate():
    events = hourly_history(90)
    window = TrainingWindow(MONDAY, MONDAY + 90 * HOUR, DAY)
    deadline = window.end + window.label_delay_ms
    in_time, too_late = list(events), list(events)
    in_time[30] = changed(events[30], labelled_at=deadline)
    too_late[30] = changed(events[30], labelled_at=deadline + 1)
    assert collect(in_time, window).labels.sum() == 30
    labels = collect(too_late, window).labels
    assert labels.sum() == 29
    assert not labels[30]


def test_transactions_after_the_window_change_no_example():
    window = TrainingWindow(MONDAY, MONDAY + 90 * HOUR, DAY)
    before, after = collect(hourly_history(90), window), collect(hourly_history(120, merchant_id="merchant-1"), window)
    assert after.features.tolist() == before.features.tolist()
    assert after.labels.tolist() == before.labels.tolist()


def test_a_label_known_after_the_window_changes_no_feature():
    window = TrainingWindow(MONDAY, MONDAY + 90 * HOUR, DAY)
    events = hourly_history(90)
    other = [*events[:80], *(changed(event, is_fraud=not event.is_fraud) for event in events[80:])]
    assert collect(other, window).features.tolist() == collect(events, window).features.tolist()


def test_transactions_before_the_window_only_warm_the_profiles():
    window = TrainingWindow(MONDAY + 20 * HOUR, MONDAY + 90 * HOUR, DAY)
    examples = collect(hourly_history(90), window)
    assert examples.features.shape == (70, len(NAMES))
    assert examples.timestamps.min() == window.start
    assert examples.features[0, NAMES.index("count_30d")] == 20


def test_a_duplicate_transaction_is_one_example():
    events = hourly_history(90)
    window = TrainingWindow(MONDAY, MONDAY + 90 * HOUR, DAY)
    assert len(collect([*events[:41], events[40], *events[41:]], window).labels) == 90
    later = msgspec.structs.replace(events[40].transaction, timestamp=MONDAY + 41 * HOUR)
    another = changed(events[40], transaction=later)  # under a used id
    assert len(collect([*events[:41], another, *events[41:]], window).labels) == 91


def test_a_transaction_without_a_label_counts_as_legitimate():
    events = hourly_history(90)
    events[30] = changed(events[30], is_fraud=None, labelled_at=None)
    assert not collect(events, TrainingWindow(MONDAY, MONDAY + 90 * HOUR, DAY)).labels[30]


def test_the_error_of_too_few_frauds_says_what_to_do():
    with pytest.raises(ConfigurationError) as caught:
        collect(hourly_history(30), TrainingWindow(MONDAY, MONDAY + 30 * HOUR, DAY))
    assert "has 10 known frauds in 30 transactions and needs at least 20" in str(caught.value)
    assert "--train-from/--train-to" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"is_fraud": None}, "no row has a label"),
        ({"is_fraud": False}, "the file has 90 labels, and none says fraud: check the column of the label"),
        ({"labelled_at": MONDAY + 99 * DAY}, "30 more became known later than --label-delay after its end"),
    ],
)
def test_the_error_of_too_few_frauds_says_what_is_missing(change, said):
    with pytest.raises(ConfigurationError, match="has 0 known frauds in 90 transactions") as caught:
        collect(
            [changed(event, **change) for event in hourly_history(90)], TrainingWindow(MONDAY, MONDAY + 90 * HOUR, DAY)
        )
    assert said in str(caught.value)


def test_the_error_of_a_window_without_payments_says_so():
    with pytest.raises(ConfigurationError, match="no payment is in it: shorten --label-delay"):
        collect(hourly_history(90), TrainingWindow(MONDAY - DAY, MONDAY, DAY))


@pytest.mark.parametrize("fraud_comes_first", [True, False])
@pytest.mark.parametrize("moved", [0, 1])
def test_of_contradicting_labels_of_a_repeated_transaction_the_later_counts_and_of_equal_ones_fraud(
    moved, fraud_comes_first
):
    events = hourly_history(90)
    window = TrainingWindow(MONDAY, MONDAY + 90 * HOUR, DAY)
    genuine = changed(events[30], is_fraud=False, labelled_at=events[30].labelled_at + moved)
    pair = [events[30], genuine] if fraud_comes_first else [genuine, events[30]]
    labels = collect([*events[:30], *pair, *events[31:]], window).labels
    assert (len(labels), labels[30]) == (90, moved == 0)
