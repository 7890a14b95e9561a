"""How a file writes its times is guessed from a sample."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from fraud_service.training.time_guess import guess_times

MOMENTS = [datetime(2026, 1, 3, 4, 5, 6, tzinfo=UTC) + n * timedelta(hours=31) for n in range(200)]
NAIVE, DAYS = "no time zone", "days without a time of day"


@pytest.mark.parametrize(
    ("write", "unit", "zone", "written"),
    [
        (lambda m: f"{m.timestamp():.0f}", "s", None, None),
        (lambda m: f"{m.timestamp():.3f}", "s", None, None),
        (lambda m: f"{m.timestamp() * 1000:.0f}", None, None, None),
        (lambda m: f"{m.timestamp() * 1e6:.0f}", "us", None, None),
        (lambda m: f"{m.timestamp():.0f}000000000", "ns", None, None),
        (lambda m: m.isoformat(), None, None, None),
        (lambda m: f"{m:%Y-%m-%dT%H:%M:%SZ}", None, None, None),
        (lambda m: f"{m:%Y-%m-%d %H:%M:%S UTC}", None, "UTC", "%Y-%m-%d %H:%M:%S UTC"),
        (lambda m: f"{m:%Y-%m-%d %H:%M:%S}+00", None, "UTC", "%Y-%m-%d %H:%M:%S+00"),
        (lambda m: f"{m:%Y%m%dT%H%M%SZ}", None, "UTC", "%Y%m%dT%H%M%SZ"),
        (lambda m: f"{m:%a, %d %b %Y}"[5:] + f" {m:%H:%M:%S}", None, "UTC", "%d %b %Y %H:%M:%S"),
        (lambda m: f"{m:%Y-%m-%d %H:%M}", None, "UTC", None),
        (lambda m: f"{m:%d.%m.%Y %H:%M}", None, "UTC", "%d.%m.%Y %H:%M"),
        (lambda m: f"{m:%d.%m.%y %H:%M:%S}", None, "UTC", "%d.%m.%y %H:%M:%S"),
        (lambda m: f"{m:%m/%d/%Y %I:%M:%S %p}", None, "UTC", "%m/%d/%Y %I:%M:%S %p"),
        (lambda m: f"{m:%d/%m/%Y, %H:%M}", None, "UTC", "%d/%m/%Y, %H:%M"),
        (lambda m: f"{m:%d%b%Y:%H:%M:%S}", None, "UTC", "%d%b%Y:%H:%M:%S"),
        (lambda m: f"{m:%Y%m%d%H%M%S}", None, "UTC", "%Y%m%d%H%M%S"),
        (lambda m: f"{m.year} {m.month} {m.day} {m:%H:%M}", None, "UTC", "%Y %m %d %H:%M"),
    ],
)
def test_unit_zone_and_format_are_guessed(write, unit, zone, written):
    found = guess_times([write(moment) for moment in MOMENTS])
    assert (found.unit, found.zone, found.format, found.origin) == (unit, zone, written, None)


@pytest.mark.parametrize(
    ("values", "doubts"),
    [
        ([f"{m:%Y-%m-%d %H:%M:%S}" for m in MOMENTS], [NAIVE]),
        ([f"{m:%Y-%m-%d}" for m in MOMENTS], [NAIVE, DAYS]),
        ([f"{m:%Y%m%d}" for m in MOMENTS], [NAIVE, DAYS]),
        (["01/02/2026 10:00", "03/04/2026 11:00"], ["day and month could be swapped", NAIVE]),
        ([m.isoformat() for m in MOMENTS], []),
        ([f"{m.timestamp():.0f}" for m in MOMENTS[:199]] + ["1767225600000"], ["1 of 200 sampled times"]),
        ([m.isoformat() for m in MOMENTS] + ["1767225600000"], []),
        (["45352.5", "45353.25"], ["day numbers of a spreadsheet"]),
        (["1", "700"], ["Perhaps they count hours"]),
        (["0", "59"], ["Perhaps they count days"]),
        (["0", "172792"], ["Perhaps they count seconds"]),
    ],
)
def test_what_is_doubtful_is_said(values, doubts):
    found = guess_times(values).doubts
    assert len(found) == len(doubts)
    assert all(part in doubt for part, doubt in zip(doubts, found, strict=True))


@pytest.mark.parametrize("values", [[], ["blue"], ["-5", "3"], ["c1", "c2"], ["31.02.2026"], ["1850-01-01x"]])
def test_other_values_are_no_times(values):
    assert guess_times(values) is None
