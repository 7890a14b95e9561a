"""Dead letters and redrive marks, compared with the messages and dead letters that they name."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_service.domain.errors import InvalidRecord
from fraud_service.kafka.dead_letters import (
    MAX_OFFSET,
    MAX_PARTITION,
    DeadLetterParser,
    LetterHeaders,
    RedriveMark,
    matches_source,
)
from fraud_service.kafka.topic_reader import Record
from fraud_service.verification.log_reader import DeadLetterIndex
from fraud_service.verification.report import FindingKind, Findings

pytestmark = pytest.mark.attack

SOURCE = Record("payments", 0, 5, b"card-1", b'{"amount": 1}', 0, [])
DIGEST = sha256(SOURCE.value).hexdigest().encode()
LENGTH = str(len(SOURCE.value)).encode()


def letter(key: bytes | None, value: bytes | None, **headers: bytes) -> Record:
    named = [("fraud-" + name.replace("_", "-"), text) for name, text in headers.items()]
    return Record("letters", 0, 0, key, value, 0, named)


@pytest.mark.parametrize(
    "entry",
    [
        letter(b"card-1", SOURCE.value),
        letter(b"card-1", None, content_length=LENGTH, content_sha256=DIGEST),
        letter(None, SOURCE.value, key_length=b"6", key_sha256=sha256(b"card-1").hexdigest().encode()),
        letter(b"card-1", b'{"amount": [card number]}', masked=b"card data"),
    ],
)
def test_a_dead_letter_with_the_content_or_the_hash_of_its_source_matches_it(entry):
    assert matches_source(entry, SOURCE)


@pytest.mark.parametrize(
    "entry",
    [
        letter(b"card-2", SOURCE.value),
        letter(None, SOURCE.value),
        letter(b"card-1", b'{"amount": 2}'),
        letter(b"card-1", None),
        letter(b"card-1", b""),
        letter(b"card-1", None, content_length=b"1", content_sha256=DIGEST),
        letter(b"card-1", None, content_length=LENGTH, content_sha256=b"0" * 64),
        letter(b"card-1", None, content_length=LENGTH),
        letter(None, SOURCE.value, key_length=b"6", key_sha256=DIGEST),
    ],
)
def test_a_dead_letter_with_any_other_content_does_not_match_its_source(entry):
    assert not matches_source(entry, SOURCE)


def test_a_forged_mark_does_not_make_a_real_mark_an_anomaly():
    findings = Findings()
    named = {"reason": b"not_json", "source_topic": b"payments", "source_partition": b"0", "source_offset": b"5"}
    written = [letter(b"card-1", b"x", **named)]
    written += [letter(key, None, redriven_offset=b"0") for key in (b"forged", b"card-1", b"card-1")]
    DeadLetterIndex().add([one._replace(offset=offset) for offset, one in enumerate(written)], findings)
    report = findings.report()
    assert [(one.kind, one.offset) for one in report.findings] == [
        (FindingKind.UNEXPECTED, 1),
        (FindingKind.DUPLICATED, 3),
    ]
    assert report.counts["redriven"] == 2


NAMES = ["fraud-reason", "fraud-source-topic", "fraud-source-partition", "fraud-source-offset", "fraud-redriven-offset"]
TEXTS = st.none() | st.binary(max_size=30) | st.from_regex(r"\A\d{1,21}\Z").map(str.encode) | st.just(b"0")
HEADERS = st.lists(st.tuples(st.sampled_from([*NAMES, "fraud-masked", "other"]), TEXTS), max_size=8)
RECORDS = st.lists(st.tuples(st.none() | st.binary(max_size=9), st.none() | st.binary(max_size=9), HEADERS), max_size=9)


@given(RECORDS)
def test_every_record_is_a_dead_letter_a_mark_or_of_another_format(records):
    sorter, letters = DeadLetterParser(), {}
    for offset, (key, value, headers) in enumerate(records, start=5):
        try:
            found = sorter.parse(Record("letters", 0, offset, key, value, 0, headers))
        except InvalidRecord:
            continue
        if isinstance(found, LetterHeaders):
            assert 0 <= found.offset <= MAX_OFFSET
            assert 0 <= found.partition <= MAX_PARTITION
            letters[offset] = key
        else:
            assert isinstance(found, RedriveMark)
            is_known = letters.get(found.offset, ()) == key and value is None
            assert (found.problem is None) == (is_known or found.offset < 5)
