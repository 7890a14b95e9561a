"""A risk row is believed only if payments can be scored with it: one that cannot be read would end every scorer."""

from __future__ import annotations

import pytest

from fraud_service.domain.codec import LATEST
from fraud_service.domain.errors import InvalidRecord
from fraud_service.domain.risk import MAX_ROW_BYTES, NO_RISK, Risk, RiskDay, encode_risk
from fraud_service.processors.snapshot_reader import MAX_KEY_BYTES, VERSION_HEADER, risk_row

pytestmark = pytest.mark.attack

KEY = b"merchant:m-1"
ROW = encode_risk(NO_RISK.with_label(1, 1, is_fraud=True, amount_is_anomalous=False))
VERSION = [(VERSION_HEADER, b"20240101T0000-0123abcd")]


def test_a_risk_row_and_its_removal_are_accepted():
    assert risk_row(KEY, ROW, VERSION) == ("20240101T0000-0123abcd", "merchant:m-1", ROW)
    assert risk_row(KEY, None, [("traceparent", b"\xff"), *VERSION]) == (VERSION[0][1].decode(), KEY.decode(), None)


@pytest.mark.parametrize(
    ("key", "value", "headers"),
    [
        (None, ROW, VERSION),
        (b"\xff", ROW, VERSION),
        (b"m" * (MAX_KEY_BYTES + 1), ROW, VERSION),
        (KEY, b"", VERSION),
        (KEY, b"no row", VERSION),
        (KEY, b"\x91" * 10_000, VERSION),
        (KEY, ROW + bytes(MAX_ROW_BYTES), VERSION),
        (KEY, encode_risk(Risk(days=(RiskDay(1 << 40, 1, 1),))), VERSION),
        (KEY, encode_risk(Risk(days=(RiskDay(-1, 1, 1),))), VERSION),
        (KEY, encode_risk(Risk(streak=1, last_fraud=LATEST + 1)), VERSION),
        (KEY, ROW, []),
        (KEY, ROW, [(VERSION_HEADER, None)]),
        (KEY, ROW, [(VERSION_HEADER, b"\xff")]),
        (KEY, ROW, [(VERSION_HEADER, b"99999999T9999-" + b"0" * 5000)]),
        (KEY, ROW, [(VERSION_HEADER, "\u0662\u0660240101T0000-0123abcd".encode())]),
    ],
)
def test_an_invalid_risk_row_is_rejected(key, value, headers):
    with pytest.raises(InvalidRecord):
        risk_row(key, value, headers)
