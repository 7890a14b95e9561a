"""Mappings: what they may say, and the errors of those that cannot work."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from fraud_service.domain.errors import ConfigurationError
from fraud_service.training.mapping import FileMapping, load_mapping


@pytest.fixture
def written(tmp_path):
    """Write the text of a mapping."""

    def build(text):
        path = tmp_path / "bank.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return build


@pytest.mark.parametrize("origin", ["2017-12-01T00:00:00Z", '"2017-12-01T00:00:00Z"', '"2017-12-01T01:00:00+01:00"'])
def test_a_mapping_is_loaded_from_toml(written, origin):
    text = f"""
        delimiter = "tab"
        time_unit = "h"
        time_origin = {origin}
        number_rows = true
        [fields]
        card_id = "customer"
        timestamp = ["day", "time"]
        [constants]
        currency = "USD"
        merchant_category_code = 5912
    """
    assert load_mapping(written(text)) == FileMapping(
        delimiter="tab",
        time_unit="h",
        time_origin=datetime(2017, 12, 1, tzinfo=UTC),
        number_rows=True,
        fields={"card_id": "customer", "timestamp": ("day", "time")},
        constants={"currency": "USD", "merchant_category_code": 5912},
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("time_unit = 'fortnights'", "--time-unit fortnights: write one of ms s us ns min h d"),
        ("time_zone = 'Berlin'", "--time-zone Berlin: there is no such zone; .*Europe/Berlin"),
        ("time_format = '%Q'", "--time-format %Q: write a format of strptime"),
        ("time_origin = 2017-12-01T00:00:00", "--time-origin 2017-12-01 00:00:00: it has no offset"),
        *(
            (f"time_format = '%Y-{one}'", rf"--time-format %Y-{one}: .*, with each directive once")
            for one in ("%Y", "%d%d")
        ),
        *(
            (f"encoding = '{one}'", f"--encoding {one}: there is no such encoding of text")
            for one in ("hex", "rot13", "base64", "bz2", "zlib", "uu", "quopri", "undefined", "idna", "punycode")
        ),
        ("encoding = 'unicode_escape'", "--encoding unicode_escape: there is no such encoding of text"),
        ("encoding = 'raw_unicode_escape'", "--encoding raw_unicode_escape: there is no such encoding of text"),
        (r'encoding = "utf-8\u0000"', "--encoding utf-8\0: there is no such encoding"),
        *((rf'quote = "{one}"', "--quote .*: write one ASCII sign") for one in (r"\u0000", r"\n", " ", r"\u001b")),
        (r'delimiter = "\u0000"', "--delimiter '.x00': write one ASCII character"),
        ("encoding = 'klingon'", "--encoding klingon: there is no such encoding"),
        ("delimiter = '||'", "--delimiter '||': write one ASCII character, or tab"),
        ("delimiter = ','\ndecimal = ','", "--delimiter ',': the decimal sign is the same"),
        ("quote = 'ab'", "--quote 'ab': write one ASCII sign"),
        ("delimiter = ';'\nquote = ';'", "--quote ';': write one ASCII sign"),
        ("decimal = 'x'", r"--decimal x: write one of \. ,"),
        ("delimeter = ';'", "unknown field `delimeter`"),
        ("[fields", "not a mapping"),
    ],
)
def test_an_entry_that_cannot_work_is_refused_with_its_file(written, text, complaint):
    with pytest.raises(ConfigurationError, match=rf"bank\.toml: .*{complaint}"):
        load_mapping(written(text))


def test_a_mapping_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"gone\.toml: cannot be read"):
        load_mapping(str(tmp_path / "gone.toml"))
    with pytest.raises(ConfigurationError, match="--mapping sparkow: there is no ready mapping of this name"):
        load_mapping("sparkow")
