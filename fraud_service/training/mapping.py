"""How to read a file of transactions: which column is which field, and how the file writes numbers and times."""

from __future__ import annotations

import codecs
import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.local_time import zone

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

SUFFIX: Final = ".toml"
READY: Final = Path(__file__).parent / "mappings"
DELIMITER_NAMES: Final = {"tab": "\t", "\\t": "\t"}  # a tab is hard to type in a shell
DECIMALS: Final = (".", ",")
TIME_UNITS: Final = ("ms", "s", "us", "ns", "min", "h", "d")
NO_DELIMITER: Final = '"\r\n\0'
ESCAPES: Final = ("idna", "punycode", "unicode-escape", "raw-unicode-escape")  # of other text, in ASCII


class FileMapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """How to read a file. Each entry has an option of the same name; the defaults fit a file that needs none.

    `fields` maps a field to its column, or to several whose values are joined: those of ids with a hyphen, those of
    times with a blank. `constants` maps a field to its value in all rows. `time_origin` is the instant from which
    numbers count; `time_format` is a format of `strptime`. The header line shows the `delimiter`, unless it is named.
    With `fraud_values`, a label is fraud if it is one of them, and else legitimate.

    Raises `ConfigurationError` for an entry that cannot work.
    """

    delimiter: str | None = None
    quote: str = '"'
    decimal: str = "."
    encoding: str = "utf-8"
    time_unit: str = "ms"
    time_zone: str | None = None
    time_format: str | None = None
    time_origin: datetime | None = None
    number_rows: bool = False
    fraud_values: tuple[str, ...] = ()
    fields: dict[str, str | tuple[str, ...]] = {}
    constants: dict[str, str | int | float | bool] = {}

    def __post_init__(self) -> None:
        for entry, value, allowed in (("time-unit", self.time_unit, TIME_UNITS), ("decimal", self.decimal, DECIMALS)):
            if value not in allowed:
                raise ConfigurationError(f"--{entry} {value}: write one of {' '.join(allowed)}")
        delimiter = self.separator
        if delimiter is not None and (len(delimiter) != 1 or not delimiter.isascii() or delimiter in NO_DELIMITER):
            raise ConfigurationError(f"--delimiter {delimiter!r}: write one ASCII character, or tab")
        if len(self.quote) != 1 or not "!" <= self.quote <= "~" or self.quote.isalnum() or self.quote == delimiter:
            raise ConfigurationError(f"--quote {self.quote!r}: write one ASCII sign, such as ' or \"")
        if delimiter == self.decimal:
            raise ConfigurationError(f"--delimiter {delimiter!r}: the decimal sign is the same")
        if not _is_encoding(self.encoding):
            raise ConfigurationError(
                f"--encoding {self.encoding}: there is no such encoding of text; write a name such as utf-8, latin-1 or"
                " cp1252"
            )
        if self.time_origin is not None and self.time_origin.tzinfo is None:
            raise ConfigurationError(f"--time-origin {self.time_origin}: it has no offset: write Z or +hh:mm")
        _ = self.zone
        self._check_format()

    @property
    def separator(self) -> str | None:
        """The delimiter as one character."""
        return None if self.delimiter is None else DELIMITER_NAMES.get(self.delimiter, self.delimiter)

    @property
    def zone(self) -> ZoneInfo | None:
        """The zone of times without an offset."""
        try:
            return None if self.time_zone is None else zone(self.time_zone)
        except KeyError:
            raise ConfigurationError(
                f"--time-zone {self.time_zone}: there is no such zone; write a name such as Europe/Berlin, or UTC"
            ) from None

    def _check_format(self) -> None:
        if self.time_format is None:
            return
        try:
            datetime.strptime(datetime(2026, 1, 31, tzinfo=UTC).strftime(self.time_format), self.time_format)  # noqa: DTZ007 - no instant
        except (ValueError, re.error):  # the latter for a directive that is there twice
            raise ConfigurationError(
                f"--time-format {self.time_format}: write a format of strptime, such as %d.%m.%Y %H:%M, with each "
                "directive once"
            ) from None


def _is_encoding(name: str) -> bool:
    """Whether a codec converts text to bytes: others compress it, or convert bytes to bytes."""
    try:
        "a".encode(name)
    except (LookupError, ValueError):
        return False
    return codecs.lookup(name).name.replace("_", "-") not in ESCAPES


def load_mapping(name: str) -> FileMapping:
    """Load a mapping from a TOML file, or a ready one by its name. Raises `ConfigurationError`."""
    path = Path(name)
    if path.suffix != SUFFIX and path.name == name:
        path = READY / f"{name}{SUFFIX}"
        if not path.is_file():
            known = ", ".join(sorted(one.stem for one in READY.glob(f"*{SUFFIX}"))) or "none"
            raise ConfigurationError(
                f"--mapping {name}: there is no ready mapping of this name. Known are {known}. The name of a file ends "
                f"in {SUFFIX}"
            )
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), FileMapping)  # both kinds of times
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    except (msgspec.MsgspecError, ValueError) as error:  # also text that is not UTF-8
        raise ConfigurationError(f"{path}: not a mapping: {error}") from None
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None
