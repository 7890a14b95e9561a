"""Erase cards from the state while the service is stopped: cards by id, and cards without recent transactions.

Writes a tombstone to the changelog for every erased row. Processes apply it to their volumes at their next start. Kafka
cannot delete single records of the other topics: those expire with retention.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fraud_service.domain.errors import PreflightError
from fraud_service.domain.label_join_rows import card_of_row
from fraud_service.domain.profile import decode_profile
from fraud_service.kafka import consumer_groups, sender, topics
from fraud_service.kafka.topic_reader import TopicReader
from fraud_service.processors.learner import JOIN_KEY
from fraud_service.processors.scorer import PROFILE
from fraud_service.runtime import changelogs

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from fraud_service.config.settings import Settings
    from fraud_service.runtime.changelogs import Row

NAME = "fraud-erase"
PROCESSED = -1  # an input offset below all committed ones, so that every process applies the row


def erase(settings: Settings, cards: frozenset[str], before: int, *, really: bool) -> Iterator[str]:
    """Erase cards by id, and the profiles of cards whose newest transaction is older than `before` (epoch ms).

    Yields one line for each step. Raises `PreflightError` if cards are named and none of them has a row.
    """
    for group in (settings.scorer_group, settings.learner_group):
        consumer_groups.require_stopped(settings, group)
    names, known = settings.topics, {spec.role: spec.name for spec in topics.topic_specs(settings)}
    with TopicReader(settings, NAME) as reader:
        profiles = list(_profiles(changelogs.last_rows(settings, reader, known["scorer_state"]), cards, before))
        learner_rows = list(_learner_rows(changelogs.last_rows(settings, reader, known["learner_state"]), cards))
    yield f"profiles: {len(profiles):,}, rows of the learner: {len(learner_rows):,}"
    unknown = sorted(cards - {card for *_, card in (*profiles, *learner_rows)})
    if unknown:
        yield f"no row of {', '.join(unknown)}: check the card_id. Cards that were erased have none either"
    if cards and not profiles and not learner_rows:
        raise PreflightError("nothing was erased")
    if not really:
        yield "nothing was done: add --yes to do it"
        return
    for changelog, inputs, erased in (
        (known["scorer_state"], [names.transactions], profiles),
        (known["learner_state"], [names.scores, names.labels], learner_rows),
    ):
        headers = changelogs.row_headers(inputs, PROCESSED)
        tombstones = (sender.OutgoingRecord(changelog, key, None, headers, number) for number, key, _ in erased)
        sender.produce_all(settings, tombstones)
    yield "done: processes delete them from their volumes at their next start"


def _profiles(rows: Iterable[Row], cards: Container[str], before: int) -> Iterator[tuple[int, bytes, str]]:
    suffix = changelogs.key_suffix(PROFILE)
    for number, key, value in rows:
        card = key.removesuffix(suffix).decode()
        if card in cards or decode_profile(value).last_seen < before:
            yield number, key, card


def _learner_rows(rows: Iterable[Row], cards: Container[str]) -> Iterator[tuple[int, bytes, str]]:
    for number, key, value in rows:
        prefix, _, name = key.partition(b"|")
        if prefix != JOIN_KEY:
            continue
        card = card_of_row(json.loads(name), value)
        if card is not None and card in cards:
            yield number, key, card
