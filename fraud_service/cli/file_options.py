"""The options of every command that reads a file of transactions, written once."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, get_type_hints

import msgspec
import typer

from fraud_service.cli.options import date_ms, require_output
from fraud_service.cli.output import say
from fraud_service.config import settings
from fraud_service.config.duration import to_ms
from fraud_service.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pyarrow as pa

    from fraud_service.training.history import History
    from fraud_service.training.history_checks import CardDataCheck
    from fraud_service.training.history_faults import Skipped
    from fraud_service.training.label_file import LabelDefaults, LabelFile
    from fraud_service.training.mapping import FileMapping

PANEL: Final = "How the file is read"


def _option(name: str, help_text: str, metavar: str | None = None) -> Any:
    return typer.Option(name, help=help_text, metavar=metavar, rich_help_panel=PANEL, show_default=False)


@dataclasses.dataclass(frozen=True)
class FileOptions:
    """How to read a file. Each option overrides one entry of the mapping."""

    mapping: Annotated[
        str | None, _option("--mapping", "TOML file that says how to read this file, or a ready mapping.", "FILE|NAME")
    ] = None
    maps: Annotated[
        list[str] | None, _option("--map", "Read this column of the file as this field. Repeatable.", "COLUMN=FIELD")
    ] = None
    sets: Annotated[
        list[str] | None, _option("--set", "Give every row this value of a field. Repeatable.", "FIELD=VALUE")
    ] = None
    tokenized: Annotated[
        list[str] | None,
        _option(
            "--tokenize",
            "Replace card numbers in this column by tokens, with the key in FRAUD_TOKENIZER_KEY_DIR. Repeatable.",
            "COLUMN",
        ),
    ] = None
    delimiter: Annotated[
        str | None,
        _option("--delimiter", "Delimiter of a CSV file: a character or tab. By default, detected.", "CHAR"),
    ] = None
    quote: Annotated[
        str | None, _option("--quote", "Quote character of a CSV file. By default, a double quote.", "CHAR")
    ] = None
    decimal: Annotated[
        str | None, _option("--decimal", "Decimal sign of a CSV file: a point or a comma. By default, a point.", ".|,")
    ] = None
    encoding: Annotated[
        str | None,
        _option("--encoding", "Encoding of a text file, such as latin-1 or cp1252. By default, utf-8.", "NAME"),
    ] = None
    fraud_values: Annotated[
        list[str] | None,
        _option("--fraud-value", "A label with this text is fraud, and any other legitimate. Repeatable.", "VALUE"),
    ] = None
    number_rows: Annotated[bool | None, _option("--number-rows", "Make transaction ids from the row numbers.")] = None
    time_unit: Annotated[
        str | None, _option("--time-unit", "Unit of times that are numbers. By default, ms.", "ms|s|us|ns|min|h|d")
    ] = None
    time_origin: Annotated[
        str | None,
        _option("--time-origin", "Start of times that are numbers, as 2026-01-31T00:00:00Z. By default, 1970.", "TIME"),
    ] = None
    time_format: Annotated[
        str | None, _option("--time-format", "Format of times that are text, as '%d.%m.%Y %H:%M'.", "FORMAT")
    ] = None
    time_zone: Annotated[
        str | None, _option("--time-zone", "Zone of times without an offset: UTC, or as in Europe/Berlin.", "ZONE")
    ] = None

    skip_invalid: Annotated[
        bool, _option("--skip-invalid", "Leave out and save invalid rows. Fails if most rows are invalid.")
    ] = False
    skipped: Annotated[
        Path | None, _option("--skipped", "Save skipped rows to this file. By default, FILE.skipped.csv here.", "FILE")
    ] = None

    notes: list[str] = dataclasses.field(default_factory=list, init=False)  # which the command says at its end

    def open(self, file: Path, start: datetime | None = None, end: datetime | None = None) -> History:
        """Open a file as its options say, without card numbers: --tokenize replaces them."""
        from fraud_service.training.history import History
        from fraud_service.training.history_checks import check_entry_modes

        mapping = self.file_mapping()
        check_card_data = _card_data_check(file, self.tokenized or [])
        rejects = settings.load().reject_unknown_entry_modes

        def check(table: pa.Table, columns: Mapping[str, str], where: Callable[[int], str]) -> pa.Table:
            table = check_card_data(table, columns, where)
            if warning := check_entry_modes(table, columns, where, rejects=rejects):
                say(warning, err=True)
            return table

        self._check_skipped(file)
        history = History.open(
            file,
            mapping,
            date_ms(start),
            date_ms(end),
            check=check,
            skips=self.skip_invalid,
            latest=latest_event_ms(),
        )
        self._save_skipped(file, history.skipped)
        if mapping.fraud_values and not history.has_fraud:
            texts = ", ".join(map(repr, mapping.fraud_values))
            say(f"{file}: no label is {texts}, so every label counts as legitimate: is the spelling right?", err=True)
        return history

    def arguments(self) -> list[str]:
        """Return the options that say how to read the file, for another command on the same file."""
        found: list[str] = []
        for name, hint in get_type_hints(FileOptions, include_extras=True).items():
            value, option = getattr(self, name), getattr(hint, "__metadata__", ())
            if not option or not value or name == "skipped":
                continue
            flag = option[0].default  # Typer keeps the name there
            values = value if isinstance(value, list) else [value]
            found += [flag] if value is True else [word for one in values for word in (flag, str(one))]
        return found

    def open_labels(self, file: Path, defaults: LabelDefaults) -> LabelFile:
        """Read a file of labels as the options say."""
        if self.number_rows:
            raise ConfigurationError(
                "--number-rows: a label needs the id of its transaction; name the column with --map "
                "COLUMN=transaction_id"
            )
        from fraud_service.training.label_file import read_labels

        self._check_skipped(file)
        check = _card_data_check(file, self.tokenized or [])
        labels = read_labels(file, self.file_mapping(), defaults, check, skips=self.skip_invalid)
        self._save_skipped(file, labels.skipped)
        return labels

    def _check_skipped(self, file: Path) -> None:
        if self.skipped is not None and not self.skip_invalid:
            raise ConfigurationError(f"--skipped {self.skipped}: only --skip-invalid skips rows: add it")
        if self.skip_invalid:
            require_output(self._skipped_of(file), file)

    def _skipped_of(self, file: Path) -> Path:
        return self.skipped or Path(f"{file.resolve().name}.skipped.csv")

    def _save_skipped(self, file: Path, skipped: Skipped) -> None:
        if self.skip_invalid:
            path = self._skipped_of(file)
            skipped.save(path)
            self.notes.append(f"skipped {skipped}. They are in {path}")

    def file_mapping(self) -> FileMapping:
        """Return the mapping of `--mapping` and the other options."""
        from fraud_service.training.mapping import FileMapping, load_mapping

        return self.override(FileMapping() if self.mapping is None else load_mapping(self.mapping))

    def override(self, mapping: FileMapping) -> FileMapping:
        """Return a mapping with the other options in the place of its entries."""
        maps, sets = _pairs("--map", self.maps or []), _pairs("--set", self.sets or [])
        columns = _column_of_each_field(maps)
        given = {
            "fields": {name: column for name, column in mapping.fields.items() if name not in sets} | columns,
            "constants": {name: value for name, value in mapping.constants.items() if name not in columns} | sets,
            "delimiter": self.delimiter,
            "quote": self.quote,
            "decimal": self.decimal,
            "encoding": self.encoding,
            "fraud_values": tuple(self.fraud_values) if self.fraud_values else None,
            "number_rows": self.number_rows,
            "time_unit": self.time_unit,
            "time_origin": _origin(self.time_origin),
            "time_format": self.time_format,
            "time_zone": self.time_zone,
        }
        return msgspec.structs.replace(mapping, **{name: value for name, value in given.items() if value is not None})


def reads_file(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `FileOptions`; they arrive as its parameter `reading`."""
    shared = inspect.signature(FileOptions, eval_str=True).parameters
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        parameters += shared.values() if name == "reading" else [parameter]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        reading = FileOptions(**{name: given.pop(name) for name in shared})
        try:
            command(reading=reading, **given)
        finally:
            say(*reading.notes, err=True)  # at the end, where it is seen

    keywords = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    run.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined] # Typer reads it
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in keywords}
    return run


def latest_event_ms() -> int:
    """Return the latest event time that scorers accept now, epoch milliseconds."""
    return int(time.time() * 1000) + to_ms(settings.load().max_clock_skew)


def _card_data_check(file: Path, tokenized: list[str]) -> CardDataCheck:
    from fraud_service.training.history_checks import CardDataCheck

    chosen = settings.load()
    if not tokenized:
        return CardDataCheck(file, chosen.reject_pan)
    from fraud_service.processors.tokenizer import tokenizer

    return CardDataCheck(file, chosen.reject_pan, frozenset(tokenized), tokenizer(chosen))


def _pairs(option: str, texts: list[str]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise ConfigurationError(f"{option} {text}: write NAME=VALUE")
    return dict(text.split("=", 1) for text in texts)


def _column_of_each_field(maps: dict[str, str]) -> dict[str, str]:
    columns: dict[str, str] = {}
    for column, field in maps.items():
        if field in columns:
            raise ConfigurationError(f"--map {column}={field}: another --map already provides the field `{field}`")
        columns[field] = column
    return columns


def _origin(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"--time-origin {text}: write a time such as 2026-01-31T00:00:00Z") from None
    return moment.astimezone(UTC) if moment.tzinfo else moment
