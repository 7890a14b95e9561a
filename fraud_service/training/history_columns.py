"""Which column of a file is which field, and which fields have one value for all rows."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Final

from fraud_service.domain.errors import ConfigurationError
from fraud_service.training.column_guess import NAMES
from fraud_service.training.history_fields import FIELDS, IDS, TIMES, constant
from fraud_service.training.time_guess import NUMBER

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from fraud_service.training.history_arrow import pa
    from fraud_service.training.mapping import FileMapping

ALIASES: Final = {"is_fraud": "label"}
REQUIRED: Final = tuple(name for name, field in FIELDS.items() if field.required)
ONE_FOR_EACH_ROW: Final = {"transaction_id", "timestamp"}

Columns = tuple[str, ...]
USUAL_NAMES: Final = {name.replace("_", "") for name in FIELDS} | {
    one for names in NAMES.values() for one in names.split()
}
# A number, a time, an amount of money, or text with an id of four digits.
VALUE: Final = re.compile(rf"^\s*({NUMBER.pattern})\s*$|[0-9]{{4}}|^[0-9]{{1,2}}[./-][0-9]|[$€£] ?[0-9]")


def choose_columns(
    path: Path, present: Sequence[str], mapping: FileMapping, required: Collection[str] = REQUIRED
) -> dict[str, Columns]:
    """Return the columns of each field: those of the mapping, else the column with the name of the field.

    A name may differ from the column in case and surrounding blanks, unless it then fits several columns.
    """
    fixed = {ALIASES.get(name, name) for name in mapping.constants}
    if mapping.number_rows:
        fixed.add("transaction_id")
    chosen = _mapped(path, present, mapping, fixed)
    taken = {columns[0] for columns in chosen.values() if len(columns) == 1}
    chosen |= _own(path, present, taken, {*chosen, *fixed})
    for field, columns in chosen.items():
        for column in columns:
            if present.count(column) > 1:
                raise ConfigurationError(
                    f"{path}: {present.count(column)} columns are named `{column}`, so the field `{field}` could be "
                    "any of them: rename all but one"
                )
    missing = [name for name in required if name not in {*chosen, *fixed}]
    if missing:
        _require_header(path, present, mapping)
        raise ConfigurationError(
            f"{path}: no column for {', '.join(f'`{name}`' for name in missing)}; the file has"
            f" {', '.join(present) or 'no columns'}. Name the column with --map COLUMN=FIELD (as in"
            f" `--map customer_id=card_id`) or set a value for all rows with --set FIELD=VALUE (as in"
            f" `--set currency=EUR`){NUMBER_ROWS if 'transaction_id' in missing else ''}"
        )
    return chosen


NUMBER_ROWS: Final = ". For a file without ids, --number-rows makes them"


def parse_constants(constants: Mapping[str, str | float]) -> dict[str, pa.Scalar]:
    """Return the value of each field that is the same in all rows."""
    values: dict[str, pa.Scalar] = {}
    for name, given in constants.items():
        text = str(given).lower() if isinstance(given, bool) else str(given)
        option = f"--set {name}={text}"
        field = field_named(name, option)
        if field in ONE_FOR_EACH_ROW:
            raise ConfigurationError(
                f"`{option}`: `{field}` differs from row to row, so it must come from a column: use --map COLUMN=FIELD"
            )
        try:
            values[field] = constant(field, text)
        except ValueError as error:
            raise ConfigurationError(f"`{option}`: {error}") from None
    return values


def field_named(name: str, option: str) -> str:
    """Return the field of a name or alias. Raises `ConfigurationError` if there is none."""
    field = ALIASES.get(name, name)
    if field not in FIELDS:
        raise ConfigurationError(f"`{option}`: there is no field `{name}`{_nearest(name, FIELDS)}")
    return field


def _mapped(path: Path, present: Sequence[str], mapping: FileMapping, fixed: Collection[str]) -> dict[str, Columns]:
    chosen: dict[str, Columns] = {}
    for name, given in mapping.fields.items():
        columns = (given,) if isinstance(given, str) else given
        option = f"--map {','.join(columns)}={name}"
        field = field_named(name, option)
        found = tuple(_column(path, column, present, option, mapping) for column in columns)
        if mapping.number_rows and field == "transaction_id":
            raise ConfigurationError(f"`{option}`: --number-rows makes the ids: remove one of the two")
        if field in chosen or field in fixed:
            raise ConfigurationError(f"`{option}`: another --map or --set already provides the field `{field}`")
        if len(found) != 1 and field not in {*IDS, *TIMES}:
            raise ConfigurationError(
                f"`{option}`: only the columns of an id or a time can be joined; `{field}` needs one column"
            )
        if not found:
            raise ConfigurationError(f"`{option}`: the list of columns is empty")
        chosen[field] = found
    return chosen


def _own(path: Path, present: Sequence[str], taken: Collection[str], provided: Collection[str]) -> dict[str, Columns]:
    """Return the columns that have the name of a field."""
    exact = {ALIASES.get(column, column) for column in present}
    own: dict[str, Columns] = {}
    for column in present:
        name = column if ALIASES.get(column, column) in FIELDS else _plain(column)
        field = ALIASES.get(name, name)
        if field not in FIELDS or field in provided or column in taken or (name != column and field in exact):
            continue
        if own.get(field, (column,)) != (column,):
            raise ConfigurationError(
                f"{path}: the columns `{own[field][0]}` and `{column}` both map to the field `{field}`;"
                f" choose with `--map {column}={field}`"
            )
        own[field] = (column,)
    return own


def seem_values(names: Sequence[str]) -> bool:
    """Whether the first line of a file seems to be a row of data: it has digits of values and no name of a field."""
    known = {"".join(sign for sign in name.lower() if sign.isalnum()) for name in names} & USUAL_NAMES
    return not known and any(VALUE.search(name) for name in names)


def _require_header(path: Path, present: Sequence[str], mapping: FileMapping) -> None:
    """Raise an error without the names of the columns if these seem to be values, which may be card data."""
    given = {
        column for columns in mapping.fields.values() for column in ([columns] if isinstance(columns, str) else columns)
    }
    if seem_values(present) and not given & {*present}:
        raise ConfigurationError(
            f"{path}: the first line seems to be a row of data, not the names of the columns. Write a line with names "
            "above it. If these are names, say what they are with --map COLUMN=FIELD"
        )


def _column(path: Path, name: str, present: Sequence[str], option: str, mapping: FileMapping) -> str:
    if name in present:
        return name
    alike = {column for column in present if _plain(column) == _plain(name)}
    if len(alike) != 1:
        _require_header(path, present, mapping)
        raise ConfigurationError(f"`{option}`: {path} has no column `{name}`{_nearest(name, present)}")
    return alike.pop()


def _plain(column: str) -> str:
    return column.strip().lower()


def _nearest(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean `{close[0]}`?" if close else "."
    return f"{hint} Known are {', '.join(known) or 'none'}"
