"""Capture the offsets between which the topics of a running service are consistent with each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fraud_service.domain.codec import LATEST
from fraud_service.domain.errors import TopicReadError
from fraud_service.kafka.consumer_groups import committed_offsets, stable_ranges
from fraud_service.kafka.topic_reader import OffsetRange
from fraud_service.kafka.topics import topic_specs

if TYPE_CHECKING:
    from fraud_service.config.settings import Settings
    from fraud_service.kafka.topic_reader import TopicReader
    from fraud_service.verification.report import Findings

Ranges = dict[int, OffsetRange]
Offsets = dict[int, int | None]


class CapturedOffsets(NamedTuple):
    """Offsets by role of the topic and partition.

    `present` is everything on a topic, `checked` leaves out records from before `--since` and records whose
    counterparts expired. Alerts from `open_alerts` on may belong to scores that are not visible. `processed`,
    `learned_labels` and `learned_scores` are the committed offsets of the groups. `PartitionScope` describes
    `incomplete_until_ms` and `alerts_incomplete_until_ms`. Snapshots and risk rows must be signed from `signed_since`
    on.
    """

    present: dict[str, Ranges]
    checked: dict[str, Ranges]
    open_alerts: dict[int, int]
    processed: Offsets
    learned_labels: Offsets
    learned_scores: Offsets
    incomplete_until_ms: dict[int, int]
    alerts_incomplete_until_ms: dict[int, int]
    signed_since: dict[str, int]


def topic_names(settings: Settings) -> dict[str, str]:
    """Return the names of the topics by role, with that of the scorer's changelog."""
    names: dict[str, str] = settings.topics.model_dump()
    changelog = next(spec.name for spec in topic_specs(settings) if spec.role == "scorer_state")
    return names | {"changelog": changelog}


def capture_offsets(
    settings: Settings, reader: TopicReader, since: int | None, findings: Findings, *, with_state: bool
) -> CapturedOffsets:
    """Capture offsets in an order in which every processed input has its outputs, and every output its input.

    | step | captured | why then |
    | --- | --- | --- |
    | 1 | changelog | every row must have its decision in the outputs of step 4 |
    | 2 | ends of the alerts | later alerts may belong to scores that step 4 does not see |
    | 3 | committed offsets of the groups | what they cover is in the outputs of step 4 |
    | 4 | dead letters, scores, then alerts | after open transactions; every flagged score has its alert |
    | 5 | snapshots, risk, examples, labels, inputs | every output of step 4 has its input |
    | 6 | first records to check | leaves out what is older than `since` or lost its counterpart to retention |
    """
    names = topic_names(settings)
    present = {"changelog": stable_ranges(settings, reader, names["changelog"]) if with_state else {}}  # step 1
    open_alerts = {number: span.end for number, span in reader.offset_ranges(names["alerts"]).items()}  # step 2
    processed = committed_offsets(settings, settings.scorer_group, reader, names["transactions"])  # step 3
    learned_labels = committed_offsets(settings, settings.learner_group, reader, names["labels"])
    learned_scores = committed_offsets(settings, settings.learner_group, reader, names["scores"])
    for role in ("dead_letters", "scores", "alerts"):  # step 4
        present[role] = stable_ranges(settings, reader, names[role])
    for role in ("snapshots", "risk", "labelled", "labels", "transactions"):  # step 5
        present[role] = reader.offset_ranges(names[role])
    _require_equal_counts({names[role]: present[role] for role in ("transactions", "scores", "alerts")})
    moments = {} if since is None else dict.fromkeys(present["transactions"], since)  # step 6
    for role in ("transactions", "scores"):
        for number, moment in _expired_until(reader, names[role], present[role], findings).items():
            moments[number] = max(moment, moments.get(number, -1))
    checked = dict(present)
    for role in ("transactions", "scores", "alerts"):
        checked[role] = _without_older(reader, names[role], present[role], moments)
    for role in ("dead_letters", "labels", "labelled"):
        since_by_partition = {} if since is None else dict.fromkeys(present[role], since)
        checked[role] = _without_older(reader, names[role], present[role], since_by_partition)
    alerts_moments = _expired_until(reader, names["alerts"], reader.offset_ranges(names["alerts"]), findings)
    signed = (
        {} if since is None else {role: reader.offsets_since(names[role], since)[0] for role in ("snapshots", "risk")}
    )
    return CapturedOffsets(
        present, checked, open_alerts, processed, learned_labels, learned_scores, moments, alerts_moments, signed
    )


def _without_older(reader: TopicReader, topic: str, ranges: Ranges, moments: dict[int, int]) -> Ranges:
    """Leave out the records that are older than the moment of their partition."""
    begins = reader.offsets_since(topic, moments) if moments else {}
    return {
        number: OffsetRange(min(max(span.begin, begins.get(number, 0)), span.end), span.end)
        for number, span in ranges.items()
    }


def _expired_until(reader: TopicReader, topic: str, ranges: Ranges, findings: Findings) -> dict[int, int]:
    """Return the time of the first record of each partition that has lost older ones."""
    moments = {}
    for number, span in ranges.items():
        if span.begin > 0:
            first = next(reader.read(topic, number, *span), None)
            moments[number] = LATEST if first is None else first.timestamp
    if moments:
        findings.note(
            f"{topic} has lost older records in {len(moments)} of {len(ranges)} partitions: their counterparts "
            "were not verified"
        )
    return moments


def _require_equal_counts(ranges: dict[str, Ranges]) -> None:
    if len({len(partitions) for partitions in ranges.values()}) > 1:
        listed = ", ".join(f"{name} has {len(partitions)}" for name, partitions in ranges.items())
        raise TopicReadError(
            f"inputs, scores and alerts must have equally many partitions, but {listed}: run `topics check`"
        )
