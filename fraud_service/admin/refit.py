"""Read the labelled examples and the champion for a re-fit, and publish its report."""

from __future__ import annotations

from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Final

import structlog

from fraud_service.config import factories
from fraud_service.domain.records import encode_record, readable_examples
from fraud_service.kafka import model_topic
from fraud_service.kafka.topic_reader import TopicReader
from fraud_service.models.registry import ModelRegistry
from fraud_service.training.dataset import Examples, TrainingWindow, collect
from fraud_service.training.refit import LabelledWindow

if TYPE_CHECKING:
    from collections.abc import Callable

    from fraud_service.config.settings import Settings
    from fraud_service.domain.records import RefitRecord
    from fraud_service.models.onnx_forest import OnnxForest
    from fraud_service.training.history import History

log = structlog.get_logger(__name__)

BATCH_RECORDS: Final = 2000
ADVICE: Final = (
    "An example appears when a payment is labelled, or FRAUD_LABEL_MATURITY after it in event time. `fraud-service "
    "verify` names payments and labels that were not learned"
)


def champion(settings: Settings) -> OnnxForest:
    """Return the active model: the one promoted last, or the artifact that processes start with."""
    models = ModelRegistry(
        factories.pretrained(settings), lambda error: log.warning("promoted_model_rejected", reason=str(error))
    )
    with closing(model_topic.ModelTopicReader(settings, "fraud-refit")) as topic:
        models.activate_last(topic.catch_up())
    return models.active


def labelled_on_topic(settings: Settings, progress: Callable[[int], None] = lambda _: None) -> Examples | None:
    """Read the labelled topic to its present end. Calls `progress` with the number of records of each batch."""
    window, unreadable, topic = LabelledWindow(), 0, settings.topics.labelled
    with TopicReader(settings, "fraud-refit-labelled") as reader:
        for partition in reader.offset_ranges(topic):
            values = (entry.value for entry in reader.read(topic, partition) if entry.value is not None)
            while batch := list(islice(values, BATCH_RECORDS)):
                found = [*readable_examples(batch)]
                window.add(found)
                unreadable += len(batch) - len(found)
                progress(len(batch))
    if unreadable:
        log.warning("labelled_examples_skipped", count=unreadable, topic=topic)
    return window.examples()


def labelled_in_file(
    history: History, label_delay_ms: int, time_zone: str, progress: Callable[[], None] = lambda: None
) -> Examples:
    """Return the examples that are labelled at the end of a history."""
    times = [event.transaction.timestamp for event in history]
    known = times[-1] - label_delay_ms if times else 0
    return collect(history, TrainingWindow(times[0] if times else 0, known + 1, label_delay_ms), progress, time_zone)


def report(settings: Settings, found: RefitRecord) -> None:
    """Publish the report of a re-fit, which the learner exports."""
    model_topic.publish(settings, model_topic.REFIT_KEY, encode_record(found))
