"""Options of commands that read a file: each overrides one entry of the mapping."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from fraud_service.cli.file_options import FileOptions
from fraud_service.domain.errors import ConfigurationError
from fraud_service.training.mapping import FileMapping


@pytest.fixture
def mapping(tmp_path):
    """Write a mapping that sets several entries."""
    path = tmp_path / "bank.toml"
    path.write_text(
        """
        time_unit = "s"
        time_zone = "UTC"
        [fields]
        card_id = "customer"
        amount = "value"
        [constants]
        currency = "USD"
        country = "US"
        """,
        encoding="utf-8",
    )
    return str(path)


def test_without_options_the_mapping_is_that_of_the_file(mapping):
    assert FileOptions().file_mapping() == FileMapping()
    assert FileOptions(mapping=mapping).file_mapping() == FileMapping(
        time_unit="s",
        time_zone="UTC",
        fields={"card_id": "customer", "amount": "value"},
        constants={"currency": "USD", "country": "US"},
    )


def test_an_option_overrides_its_entry_and_keeps_the_others(mapping):
    options = FileOptions(
        mapping=mapping,
        time_unit="h",
        time_origin="2026-01-31T00:00:00Z",
        maps=["account=card_id", "land=country"],
        sets=["amount=5"],
    )
    assert options.file_mapping() == FileMapping(
        time_unit="h",
        time_origin=datetime(2026, 1, 31, tzinfo=UTC),
        time_zone="UTC",
        fields={"card_id": "account", "country": "land"},
        constants={"currency": "USD", "amount": "5"},
    )


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ({"maps": ["a=card_id", "b=card_id"]}, "--map b=card_id: another --map already provides the field `card_id`"),
        ({"maps": ["card_id"]}, "--map card_id: write NAME=VALUE"),
        ({"time_origin": "noon"}, "--time-origin noon: write a time such as"),
        ({"time_origin": "2026-01-31"}, "--time-origin 2026-01-31 00:00:00: it has no offset"),
        ({"time_unit": "weeks"}, "--time-unit weeks: write one of"),
    ],
)
def test_an_option_that_cannot_work_is_named(entries, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        FileOptions(**entries).file_mapping()
