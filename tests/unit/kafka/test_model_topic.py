"""The topic of models lets each record pass once, in the order of its numbers, whatever somebody writes there."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fraud_service.config.settings import Settings
from fraud_service.domain.errors import FatalStreamError, RefusedRecord
from fraud_service.kafka import model_topic
from fraud_service.kafka.model_topic import SEQUENCE_HEADER, ModelTopicReader, ReplayGuard
from fraud_service.security.signatures import Keyring, RejectReason

pytestmark = pytest.mark.attack

RING = Keyring({"2026": b"k" * 32}, "2026")


def headers(number: bytes, ring: Keyring = RING) -> list[tuple[str, bytes]]:
    return ring.signed("models", b"key", b"value", [(SEQUENCE_HEADER, number)])


def test_numbers_grow_and_one_sent_a_second_time_is_refused():
    gate = ReplayGuard(RING)
    for number in (b"5", b"7"):
        gate.check(b"key", b"value", headers(number))
    for number in (b"7", b"6"):
        with pytest.raises(RefusedRecord) as refused:
            gate.check(b"key", b"value", headers(number))
        assert refused.value.reason == RejectReason.REPLAYED
    gate.check(b"key", b"value", headers(b"8"))
    assert gate.newest == 8


@pytest.mark.parametrize("ring", [RING, Keyring()], ids=["signed", "unsigned"])
@pytest.mark.parametrize("number", [b"9" * 5000, b"-1", b"0x10", b"\xff", "٣".encode()], ids=repr)
def test_a_number_that_is_none_is_refused_and_the_next_record_passes(ring, number):
    gate = ReplayGuard(ring)
    with pytest.raises(RefusedRecord):
        gate.check(b"key", b"value", headers(number, ring))
    gate.check(b"key", b"value", headers(b"1", ring))


def test_without_keys_a_record_of_an_older_version_has_no_number():
    ReplayGuard(Keyring()).check(b"key", b"value", [])
    with pytest.raises(RefusedRecord):
        ReplayGuard(RING).check(b"key", b"value", RING.signed("models", b"key", b"value", []))


def test_models_that_an_outage_keeps_back_end_no_loop_and_stop_a_start(monkeypatch):
    reader = ModelTopicReader(Settings(), "test")
    ends = SimpleNamespace(get_watermark_offsets=lambda *_, **__: (0, 5), close=reader._asker.close)
    monkeypatch.setattr(reader, "_asker", ends)
    monkeypatch.setattr(reader, "_position", lambda: 3)
    monkeypatch.setattr(reader, "_read", lambda _: [b"model"])
    clock = iter(range(1000))
    monkeypatch.setattr(model_topic, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    taken = reader.take_all()
    assert 0 < len(taken) <= model_topic.REQUEST_TIMEOUT_S
    with pytest.raises(FatalStreamError, match="nothing came for"):
        list(reader.catch_up())
    reader.close()


def test_an_unsigned_number_does_not_stand_in_the_way_of_signed_ones():
    gate = ReplayGuard(RING)
    with pytest.raises(RefusedRecord):
        gate.check(b"key", b"value", [(SEQUENCE_HEADER, b"9" * 18)])
    gate.check(b"key", b"value", headers(b"1"))


def test_when_no_number_is_left_the_publisher_says_so(monkeypatch):
    monkeypatch.setattr(model_topic, "deliver", lambda *_: pytest.fail("it was sent, and nobody would believe it"))
    gate = ReplayGuard(Keyring())
    gate.check(b"key", b"value", [(SEQUENCE_HEADER, b"9" * 18)])
    with pytest.raises(FatalStreamError, match="leaves no number for another"):
        model_topic.publish_all(Settings(), gate, [(b"key", b"value")])
