"""Any bytes in place of a record decode, or raise the declared error of the decoder."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.worlds import MONDAY, DictStore, label, score, transaction

from fraud_service.domain.codec import UNREADABLE
from fraud_service.domain.errors import InvalidEvent, InvalidRecord, ModelError
from fraud_service.domain.label_join import LabelJoin
from fraud_service.domain.label_join_rows import DueItem
from fraud_service.domain.online_model import OnlineModel
from fraud_service.domain.online_training import LearnerState, decode_learner_state, encode_learner_state
from fraud_service.domain.profile import Profile, decode_profile, encode_profile
from fraud_service.domain.records import (
    RefitRecord,
    decode_labelled,
    decode_refit,
    decode_score,
    decode_switch,
    encode_record,
)
from fraud_service.domain.risk import NO_RISK, decode_risk, encode_risk
from fraud_service.domain.snapshot import decode_snapshot, encode_snapshot, untrained
from fraud_service.domain.time import LearningSchedule
from fraud_service.models import artifact
from fraud_service.models.onnx_graph import onnx_bytes
from fraud_service.models.trees import Trees, features_on_path, require_consistent, to_nested
from fraud_service.processors.snapshot_reader import VERSION_HEADER, risk_row
from fraud_service.security.label_rate_limit import KEY, LabelRateLimiter, LabelRateLimits

pytestmark = pytest.mark.attack


def profile() -> bytes:
    known = Profile()
    for number in range(3):
        known.update(transaction(f"t{number}", 1_700_000_000_000 + number))
    return encode_profile(known)


def row(kind: str) -> bytes:
    """Return a row of the label join with a transaction and a label."""
    store = DictStore()
    LabelJoin(store, LearningSchedule()).add_label(label("t1"), -1)
    LabelJoin(store, LearningSchedule()).add_scored(score("t1"), -1)
    (found,) = [value for key, value in sorted(store.items()) if key.startswith(kind) and key.count("/") > 1][:1]
    return found


def hour() -> bytes:
    """Return a count of labels."""
    store = DictStore()
    LabelRateLimiter(store, LabelRateLimits(9, 9)).check(label(), MONDAY)
    return store[KEY]


def count(data: bytes) -> None:
    with suppress(InvalidEvent):
        LabelRateLimiter(DictStore({KEY: data}), LabelRateLimits(9, 9)).check(label(), MONDAY)


def settle(data: bytes) -> None:
    store = DictStore({"t/6/card-1/t1": data})
    LabelJoin(store, LearningSchedule()).resolve(DueItem(0, "6/card-1/t1"), MONDAY)


def manifest(data: bytes) -> None:
    """Read the manifest of a promoted model."""
    try:
        artifact.read_manifest(msgspec.msgpack.encode({artifact.MANIFEST: data}))
    except ModelError as error:
        raise InvalidRecord(str(error)) from error


def model(data: bytes) -> None:
    """Read a promoted model."""
    try:
        artifact.unpack(data)
    except ModelError as error:
        raise InvalidRecord(str(error)) from error


def trees(data: bytes) -> None:
    """Decode trees and load them as a model does."""
    try:
        found = msgspec.msgpack.decode(data, type=Trees)
        require_consistent(found)
    except (ValueError, *UNREADABLE) as error:
        raise InvalidRecord(str(error)) from error
    onnx_bytes(found)
    features_on_path(to_nested(found))


STUMP = Trees([0], [0, 0, 0], [1.0, 0.0, 0.0], [1, -1, -1], [2, -1, -1], [0.1, 0.0, 0.5])
SHIPPED = artifact.read(artifact.shipped_folder())

DECODERS = {
    "manifest": (manifest, msgspec.json.encode(SHIPPED.manifest)),
    "model": (model, artifact.pack(SHIPPED)),
    "trees": (trees, msgspec.msgpack.encode(STUMP)),
    "risk_row": (
        lambda data: risk_row(b"card:c", data, [(VERSION_HEADER, b"20240101T0000-0123abcd")]),
        encode_risk(NO_RISK),
    ),
    "entry": (settle, row("t/")),
    "due": (
        lambda data: list(LabelJoin(DictStore({"d/1": b"1", "d/1/0": data}), LearningSchedule()).pop_due(1)),
        row("d/"),
    ),
    "risk": (decode_risk, encode_risk(NO_RISK.with_label(MONDAY, MONDAY, is_fraud=True, amount_is_anomalous=False))),
    "hour": (count, hour()),
    "profile": (decode_profile, profile()),
    "progress": (decode_learner_state, encode_learner_state(LearnerState.starting_at(5))),
    "snapshot": (decode_snapshot, encode_snapshot(untrained("m", OnlineModel.untrained()))),
    "refit": (decode_refit, encode_record(RefitRecord(1, "m", 0.5, 0.6, 0.01, 14.0, 5, 1, None))),
    "score": (decode_score, b'{"transaction_id": "t", "timestamp": 1, "features": null, "reasons": []}'),
    "labelled": (decode_labelled, b'{"transaction_id": "t", "timestamp": 1, "features": null}'),
    "switch": (decode_switch, b'{"at": 1}'),
}
NOISE = st.binary(max_size=4) | st.sampled_from(
    [b"null", b"NaN", b"1e999", b"9" * 5000, b"[" * 2000, b'{"a":' * 2000, b"\x91" * 2000, b"\xdd\xff\xff\xff\xff"]
)


@pytest.mark.parametrize("name", DECODERS)
@settings(max_examples=150, deadline=1000, derandomize=True)
@given(place=st.integers(0, 400), noise=NOISE, dropped=st.integers(0, 9))
@example(place=0, noise=b'{"a":' * 10_000, dropped=0)  # deeper than Python's stack: it ended the learner
@example(place=0, noise=b"\x91" * 10_000, dropped=0)
def test_altered_bytes_decode_or_raise_the_declared_error(name, place, noise, dropped):
    decode, good = DECODERS[name]
    with suppress(InvalidRecord):
        decode(good[:place] + noise + good[place + dropped :])


@pytest.mark.parametrize("name", DECODERS)
def test_bytes_nested_deeper_than_the_stack_are_rejected(name):
    decode, good = DECODERS[name]
    deep = b'{"unknown":' * 5000 if good[:1] == b"{" else good[:1] + b"\x91" * 5000
    with pytest.raises(InvalidRecord):
        decode(deep)
