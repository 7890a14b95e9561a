"""The guard of the model topic accepts each record once, in the order of sequence numbers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from confluent_kafka import TopicPartition

from fraud_service.config.settings import Settings
from fraud_service.domain.errors import FatalStreamError, RejectedRecord
from fraud_service.kafka import clients, model_topic, waiting
from fraud_service.kafka.model_topic import SEQUENCE_HEADER, ModelTopicReader, ReplayGuard
from fraud_service.security.signatures import Keyring, RejectReason

pytestmark = pytest.mark.attack

RING = Keyring({"2026": b"k" * 32}, "2026")


def headers(number: bytes, ring: Keyring = RING) -> list[tuple[str, bytes]]:
    return ring.sign_headers("models", b"key", b"value", [(SEQUENCE_HEADER, number)])


def test_a_record_with_a_sequence_number_that_does_not_grow_is_rejected():
    gate = ReplayGuard(RING)
    for number in (b"5", b"7"):
        gate.check(b"key", b"value", headers(number))
    for number in (b"7", b"6"):
        with pytest.raises(RejectedRecord) as refused:
            gate.check(b"key", b"value", headers(number))
        assert refused.value.reason == RejectReason.REPLAYED
    gate.check(b"key", b"value", headers(b"8"))
    assert gate.newest == 8


@pytest.mark.parametrize("ring", [RING, Keyring()], ids=["signed", "unsigned"])
@pytest.mark.parametrize("number", [b"9" * 5000, b"-1", b"0x10", b"\xff", "٣".encode()], ids=repr)
def test_an_invalid_sequence_number_is_rejected_and_the_next_record_is_accepted(ring, number):
    gate = ReplayGuard(ring)
    with pytest.raises(RejectedRecord):
        gate.check(b"key", b"value", headers(number, ring))
    gate.check(b"key", b"value", headers(b"1", ring))


def test_a_record_without_a_sequence_number_is_accepted_only_without_keys():
    ReplayGuard(Keyring()).check(b"key", b"value", [])
    with pytest.raises(RejectedRecord):
        ReplayGuard(RING).check(b"key", b"value", RING.sign_headers("models", b"key", b"value", []))


class StalledConsumer:
    """A consumer in an outage: it stays at offset 3 of 5."""

    def __init__(self, *_: object) -> None:
        self.is_closed = False

    def assign(self, partitions: list[TopicPartition]) -> None:
        self.partitions = partitions

    def position(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        return [TopicPartition(one.topic, one.partition, 3) for one in partitions]

    def get_watermark_offsets(self, *_: object, **__: object) -> tuple[int, int]:
        return 0, 5

    def consume(self, *_: object, **__: object) -> list[object]:
        return []

    def close(self) -> None:
        self.is_closed = True


def test_in_an_outage_a_refresh_returns_what_has_arrived_and_a_start_fails(monkeypatch):
    monkeypatch.setattr(clients, "reader", StalledConsumer)
    reader = ModelTopicReader(Settings(), "test")
    monkeypatch.setattr(reader, "_parse", lambda _: [b"model"])
    clock = iter(range(1000))
    monkeypatch.setattr(waiting, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    models = reader.read_to_end()
    assert 0 < len(models) <= model_topic.REFRESH_TIMEOUT_S
    with pytest.raises(FatalStreamError, match="sent nothing for 60 s"):
        list(reader.catch_up())
    reader.close()
    assert reader._consumer.is_closed


def test_an_unsigned_sequence_number_does_not_block_signed_records():
    gate = ReplayGuard(RING)
    with pytest.raises(RejectedRecord):
        gate.check(b"key", b"value", [(SEQUENCE_HEADER, b"9" * 18)])
    gate.check(b"key", b"value", headers(b"1"))


def test_publishing_fails_when_no_higher_sequence_number_is_left(monkeypatch):
    monkeypatch.setattr(model_topic, "deliver", lambda *_: pytest.fail("a record was sent that every reader rejects"))
    gate = ReplayGuard(Keyring())
    gate.check(b"key", b"value", [(SEQUENCE_HEADER, b"9" * 18)])
    with pytest.raises(FatalStreamError, match="leaves no higher one"):
        model_topic.publish_all(Settings(), gate, [(b"key", b"value")])
