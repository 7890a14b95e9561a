"""Re-fit: what is labelled by now, from the topic or a file; challenger against champion; promotion by broadcast."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Final

import structlog

from fraud_service.config import factories
from fraud_service.domain.errors import InvalidRecord
from fraud_service.domain.records import decode_labelled, encode_record
from fraud_service.kafka import model_topic
from fraud_service.kafka.topic_reader import TopicReader
from fraud_service.models.received import last
from fraud_service.training.dataset import Examples, TrainingWindow, collect
from fraud_service.training.refit import LabelledWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fraud_service.config.settings import Settings
    from fraud_service.domain.records import LabelledRecord, RefitRecord
    from fraud_service.models.onnx_forest import OnnxForest
    from fraud_service.training.history import History

log = structlog.get_logger(__name__)

BATCH: Final = 2000  # records


def champion(settings: Settings) -> OnnxForest:
    """Return the model that reigns: the last one promoted, or the artifact that pods start with."""
    topic = model_topic.ModelTopicReader(settings, "fraud-refit")
    try:
        promoted = last(topic.catch_up(), lambda error: log.warning("promoted_model_refused", reason=str(error)))
    finally:
        topic.close()
    return promoted or factories.pretrained(settings)


def labelled_on_topic(settings: Settings, progress: Callable[[int], None] = lambda _: None) -> Examples | None:
    """Read the labelled topic to its present end. Calls `progress` with the number of records of each batch.

    Raises
    ------
    ArchiveError
        When the topic cannot be read.
    """
    window, unreadable, topic = LabelledWindow(), 0, settings.topics.labelled
    with TopicReader(settings, "fraud-refit-labelled") as archive:
        for partition in archive.spans(topic):
            entries = archive.read(topic, partition)
            while batch := [entry.value for entry in islice(entries, BATCH) if entry.value is not None]:
                found = [*readable(batch)]
                window.add(found)
                unreadable += len(batch) - len(found)
                progress(len(batch))
    if unreadable:
        log.warning("labelled_examples_skipped", count=unreadable, topic=topic)
    return window.examples()


def readable(batch: Iterable[bytes]) -> Iterator[LabelledRecord]:
    """Skip records that are no labelled examples: one of them would otherwise end every re-fit until it expires."""
    for data in batch:
        with suppress(InvalidRecord):
            yield decode_labelled(data)


def labelled_in_file(history: History, label_delay: int, progress: Callable[[], None] = lambda: None) -> Examples:
    """Return what is labelled at the end of a history. Raises as `fraud_service.training.dataset.collect` does."""
    times = [event.transaction.timestamp for event in history]
    known = times[-1] - label_delay if times else 0
    return collect(history, TrainingWindow(times[0] if times else 0, known + 1, label_delay), progress)


def report(settings: Settings, found: RefitRecord) -> None:
    """Tell the learner what the re-fit found. Raises as `fraud_service.kafka.model_topic.publish` does."""
    model_topic.publish(settings, model_topic.REFIT_KEY, encode_record(found))
