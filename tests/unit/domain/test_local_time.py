"""Night and weekend follow the local time: that of the producer, else of the country, else of the setting."""

from __future__ import annotations

import json
import tomllib
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import pytest
from support.worlds import DAY, HOUR, MINUTE, MONDAY, LinearModel, online_model, transaction

from fraud_service.config import settings
from fraud_service.domain.codec import LATEST
from fraud_service.domain.countries import alpha2
from fraud_service.domain.decision import Policy
from fraud_service.domain.detector import Detector
from fraud_service.domain.errors import ConfigurationError, InvalidEvent
from fraud_service.domain.events import decode_transaction, encode
from fraud_service.domain.local_time import QUARTER, clock, offset_min, zone, zone_names, zones_by_country
from fraud_service.domain.records import decode_score, encode_record, score_record
from fraud_service.domain.snapshot import SnapshotStore, untrained
from fraud_service.domain.time import FIRST_EVENT, rfc3339

WINTER, SUMMER = 1_704_074_400_000, 1_719_799_200_000  # 2024-01-01T02:00:00Z and 2024-07-01T02:00:00Z
ROW = {"transaction_id": "t", "card_id": "c", "merchant_id": "m", "amount": 9, "currency": "EUR"}


def assessed(payment, time_zone="UTC", policy=Policy()):  # noqa: B008 - immutable
    snapshots = SnapshotStore(untrained("model-1", online_model()))
    (assessment,) = Detector(LinearModel(), policy, time_zone=time_zone).assess([payment], {}, snapshots)
    return assessment


def hour(payment, time_zone="UTC"):
    return assessed(payment, time_zone).features.hour_of_day


def message(timestamp, **facts):
    return decode_transaction(json.dumps(ROW | {"timestamp": timestamp} | facts).encode())


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2024-01-01T03:00:00+01:00", 60),
        ("2024-01-01T03:00:00+0100", 60),
        ("2023-12-31t22:30:00.5-03:30", -210),
        ("2024-01-01T02:00:00Z", None),
        ("2024-01-01T02:00:00z", None),
        ("2024-01-01T02:00:00+00:00", None),
        ("2024-01-01T02:00:00-00:00", None),
        (WINTER, None),
    ],
)
def test_a_message_keeps_the_offset_that_its_time_states(written, expected):
    payment = message(written)
    assert (payment.timestamp // 1000, payment.utc_offset_min) == (WINTER // 1000, expected)
    assert decode_transaction(encode(payment)) == payment


def test_the_field_for_the_offset_precedes_the_time():
    assert message(WINTER, utc_offset_min=-300).utc_offset_min == -300
    assert message("2024-01-01T03:00:00+01:00", utc_offset_min=0).utc_offset_min == 0
    for bad in (1440, -1440, 1.5, "60", True):
        with pytest.raises(InvalidEvent, match="utc_offset_min"):
            message(WINTER, utc_offset_min=bad)


def test_the_offset_precedes_the_country_and_the_country_the_setting():
    given = {"timestamp": WINTER, "country": "JP", "utc_offset_min": -300}
    assert hour(transaction(**given)) == 21
    assert hour(transaction(**given | {"utc_offset_min": None}), "Europe/Berlin") == 11
    assert hour(transaction(timestamp=WINTER), "Europe/Berlin") == 3
    assert hour(transaction(timestamp=SUMMER), "Europe/Berlin") == 4
    assert hour(transaction(timestamp=WINTER)) == 2


@pytest.mark.parametrize("country", ["DE", "de", " De ", "DEU", "276"])
def test_a_country_may_have_any_code_of_iso_3166(country):
    assert hour(transaction(timestamp=SUMMER, country=country)) == 4


@pytest.mark.parametrize("country", ["", "Germany", "ZZ", "D", "999", "\N{SUPERSCRIPT TWO}76", "x" * 256])
def test_an_unknown_country_has_the_time_of_the_setting(country):
    assert hour(transaction(timestamp=WINTER, country=country), "Asia/Tokyo") == 11


def test_night_and_weekend_begin_at_local_midnight():
    friday = MONDAY + 4 * DAY + 23 * HOUR  # Saturday 00:00 in Berlin
    row = assessed(transaction(timestamp=friday, country="DE")).features
    assert (row.hour_of_day, row.is_night, row.is_weekend) == (0, 1, 1)
    row = assessed(transaction(timestamp=friday)).features
    assert (row.hour_of_day, row.is_night, row.is_weekend) == (23, 0, 0)
    row = assessed(transaction(timestamp=friday, country="IN")).features  # 04:30
    assert (row.hour_of_day, row.is_night, row.is_weekend) == (4, 1, 1)


def test_the_score_has_the_offset_and_its_transaction_has_the_same_local_time():
    assessment = assessed(transaction(timestamp=WINTER, country="JP"))
    record = decode_score(encode_record(score_record(assessment)))
    assert (record.utc_offset_min, record.transaction().utc_offset_min) == (540, 540)
    assert assessment.transaction.utc_offset_min == 540
    assert b"utc_offset_min" not in encode_record(score_record(assessed(transaction())))


def test_a_reason_has_the_local_time_with_its_offset():
    assert clock(WINTER, 60) == "03:00 UTC+01:00"
    assert clock(WINTER, -210) == "22:30 UTC-03:30"
    assert clock(LATEST, 840) == "13:59 UTC+14:00"


A_MINUTE_LATE = {
    *("America/Goose_Bay", "America/Moncton", "America/St_Johns", "Canada/Newfoundland"),
    *("Antarctica/Casey", "Asia/Gaza", "Asia/Hebron"),
}


def test_every_country_has_a_zone_and_every_zone_changes_only_at_quarters():
    codes = {alpha2(f"{number:03}") for number in range(1000)} - {None}
    assert len(codes) == 249
    assert codes - zones_by_country().keys() == {"BV", "HM"}  # two islands where nobody lives
    assert {name for zones in zones_by_country().values() for name in zones} <= zone_names()
    for name in sorted(zone_names() - {"Factory"}):
        moment = datetime.fromtimestamp(FIRST_EVENT / 1000, UTC)
        while moment.year < 2040:  # after that, rules repeat
            later = moment + timedelta(days=7)
            ours = offset_min(name, int(later.timestamp() * 1000))
            assert timedelta(minutes=ours) == later.astimezone(zone(name)).utcoffset()
            if later.astimezone(zone(name)).utcoffset() != moment.astimezone(zone(name)).utcoffset():
                late = {0, 60} if later.year < 2023 and name in A_MINUTE_LATE else {0}
                assert change(name, moment, later) % (QUARTER // 1000) in late
            moment = later


def change(name, before, after):
    """Return the second of a change of the clocks, by bisection."""
    first, last = int(before.timestamp()), int(after.timestamp())
    old = before.astimezone(zone(name)).utcoffset()
    while last - first > 1:
        middle = (first + last) // 2
        same = datetime.fromtimestamp(middle, UTC).astimezone(zone(name)).utcoffset() == old
        first, last = (middle, last) if same else (first, middle)
    return last


@pytest.mark.parametrize("timestamp", [FIRST_EVENT, LATEST])
@pytest.mark.parametrize("country", ["NZ", "US", "DE", None])
def test_the_first_and_the_last_possible_times_have_a_local_time(timestamp, country):
    assert 0 <= hour(transaction(timestamp=timestamp, country=country)) < 24
    assert 0 <= hour(transaction(timestamp=timestamp, utc_offset_min=-1439)) < 24


def test_the_rules_of_zones_are_pinned_and_come_from_the_package():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))
    assert f"tzdata=={version('tzdata')}" in project["project"]["dependencies"]
    assert zone("Europe/Berlin").key == "Europe/Berlin"
    for unknown in ("Berlin", "../zones", "/etc/localtime", "", "posixrules"):
        with pytest.raises(KeyError):
            zone(unknown)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Berlin", "did you mean Europe/Berlin?"),
        ("europe/berlin", "did you mean Europe/Berlin?"),
        ("Nowhere at all", "write a name such as Europe/Berlin"),
        ("+02:00", "write a name such as Europe/Berlin"),
        ("", "write a name such as Europe/Berlin"),
    ],
)
def test_an_unknown_zone_stops_the_start_with_the_fix(monkeypatch, name, hint):
    monkeypatch.setenv("FRAUD_TIME_ZONE", name)
    with pytest.raises(ConfigurationError) as caught:
        settings.load()
    assert str(caught.value) == f"FRAUD_TIME_ZONE={name!r}: there is no such time zone: {hint}"


def test_offsets_are_the_same_for_all_milliseconds_of_a_quarter():
    spring = 1_711_846_800_000  # 2024-03-31T01:00:00Z, when Berlin changes to summer time
    assert rfc3339(spring) == "2024-03-31T01:00:00.000Z"
    assert [offset_min("Europe/Berlin", spring + moved) for moved in (-1, 0, 14 * MINUTE)] == [60, 120, 120]
