"""Durations: one notation for settings and options, exact, and written as a person would write them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from fraud_service.config.duration import format_duration, parse_duration, to_ms


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("500ms", timedelta(milliseconds=500)),
        ("45s", timedelta(seconds=45)),
        ("15m", timedelta(minutes=15)),
        ("1h", timedelta(hours=1)),
        ("7d", timedelta(days=7)),
        ("0s", timedelta(0)),
        ("0.1s", timedelta(milliseconds=100)),
        (".5s", timedelta(milliseconds=500)),
    ],
)
def test_a_duration_is_a_number_and_its_unit(text, duration):
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", ["", "7", "d", "7 d", "7D", "7w", "-7d", "+7d", "1e3d", "1.d", "7d\n", "\u0667d"])
def test_text_without_number_or_known_unit_is_an_error_with_an_example(text):
    with pytest.raises(ValueError, match="as in 7d"):
        parse_duration(text)


def test_a_duration_beyond_what_python_can_count_is_an_error():
    with pytest.raises(ValueError, match="at most 999999999d"):
        parse_duration("9" * 30 + "d")


@pytest.mark.parametrize(
    "text", ["0s", "1ms", "100ms", "1500ms", "45s", "90s", "5m", "90m", "1h", "36h", "1d", "7d", "60d", "36500d"]
)
def test_a_duration_is_written_in_the_largest_unit_without_a_fraction(text):
    assert format_duration(parse_duration(text)) == text


@pytest.mark.parametrize("milliseconds", [1, 10, 1234, 3_600_001])
def test_a_written_duration_reads_back_to_the_millisecond(milliseconds):
    duration = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(duration)) == duration


@pytest.mark.parametrize("text", [".5ms", "0.0001ms", "60.0001s"])
def test_a_fraction_of_a_millisecond_is_an_error_because_event_time_has_none(text):
    with pytest.raises(ValueError, match="whole milliseconds"):
        parse_duration(text)


def test_milliseconds_are_whole():
    assert to_ms(timedelta(microseconds=1_999)) == 1
