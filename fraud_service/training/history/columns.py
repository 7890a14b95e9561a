"""Map the columns of a file, and constants, to fields."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final

from fraud_service.domain.errors import ConfigurationError
from fraud_service.training.history.arrow import pa
from fraud_service.training.history.fields import FIELDS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

ALIASES: Final = {"is_fraud": "label"}


def read_constants(texts: Mapping[str, str]) -> dict[str, pa.Scalar]:
    """Parse the options `--set FIELD=VALUE`: the value of each field that is the same in all rows."""
    values: dict[str, pa.Scalar] = {}
    for name, text in texts.items():
        option = f"--set {name}={text}"
        field = _field(name, option)
        if field in {"transaction_id", "timestamp"}:
            raise ConfigurationError(
                f"`{option}`: `{field}` differs from row to row, so it must come from a column: use --map COLUMN=FIELD"
            )
        values[field] = FIELDS[field].convert(pa.array([text]))[0]
        if not values[field].is_valid:
            raise ConfigurationError(f"`{option}`: {FIELDS[field].complaint}")
    return values


def choose(path: Path, present: list[str], mapping: Mapping[str, str], fixed: Collection[str]) -> dict[str, str]:
    """Return the column of each field; `mapping` is column to field.

    The mapping takes precedence over a column with the name of the field.
    """
    chosen = _mapped(path, present, mapping, fixed)
    own: dict[str, str] = {}
    for column in present:
        field = ALIASES.get(column, column)
        if field not in FIELDS or field in chosen or field in fixed or column in mapping:
            continue
        if field in own:
            raise ConfigurationError(
                f"{path}: the columns `{own[field]}` and `{column}` both map to the field `{field}`;"
                f" choose with `--map {column}={field}`"
            )
        own[field] = column
    chosen |= own
    missing = [name for name, field in FIELDS.items() if field.required and name not in {*chosen, *fixed}]
    if missing:
        raise ConfigurationError(
            f"{path}: no column for {', '.join(f'`{name}`' for name in missing)}; the file has"
            f" {', '.join(present) or 'no columns'}. Name the column with --map COLUMN=FIELD (as in"
            f" `--map customer_id=card_id`) or set a value for all rows with --set FIELD=VALUE (as in"
            f" `--set currency=EUR`)"
        )
    return chosen


def _mapped(path: Path, present: list[str], mapping: Mapping[str, str], fixed: Collection[str]) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for column, name in mapping.items():
        option = f"--map {column}={name}"
        field = _field(name, option)
        if column not in present:
            raise ConfigurationError(f"`{option}`: {path} has no column `{column}`{_nearest(column, present)}")
        if field in chosen or field in fixed:
            raise ConfigurationError(f"`{option}`: another --map or --set already provides the field `{field}`")
        chosen[field] = column
    return chosen


def _field(name: str, option: str) -> str:
    field = ALIASES.get(name, name)
    if field not in FIELDS:
        raise ConfigurationError(f"`{option}`: there is no field `{name}`{_nearest(name, FIELDS)}")
    return field


def _nearest(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean `{close[0]}`?" if close else "."
    return f"{hint} Known are {', '.join(known) or 'none'}"
