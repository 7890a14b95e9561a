"""Propose a mapping for a file that is not known: from a sample of its columns."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from fraud_service.security.card_data import mask_text
from fraud_service.training.column_guess import MIN_LABELS, Column, by_name, by_values
from fraud_service.training.history_arrow import pa, pc, types
from fraud_service.training.mapping import FileMapping
from fraud_service.training.time_guess import TimeGuess, guess_times

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SAMPLE: Final = 2000  # values of a column, spread over all rows
REQUIRED: Final = ("transaction_id", "timestamp", "card_id", "merchant_id", "amount", "currency")
GUESSED: Final = (*REQUIRED, "label")  # the fields that are searched by their values too
NO_CURRENCY: Final = "XXX"  # ISO 4217
SIGNS: Final = {"$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY"}
CODE: Final = re.compile(r"\b[A-Z]{3}\b")
DECIMAL_COMMA: Final = re.compile(r"[^,]*,\d{1,2}\D*|[^,]*\.\d{3}(\.\d{3})*,\d+\D*")
CLEAR: Final = re.compile(r"\D*(0[,.]|\d{4,}[,.]|\d+[,.]\d{4,}|\d+[,.]\d+[,.]).*")  # decimals, or groups of digits
DECIMAL_POINT: Final = re.compile(r"[^.]*\.\d{1,2}\D*")
FRAUD_WORDS: Final = ("fraud", "fraudulent", "fraudster", "positive", "bad", "chargeback")
ORDINARY_LABELS: Final = frozenset(["0", "1", "0.0", "1.0", "true", "false", "yes", "no", "y", "n", "t", "f"])


class Proposal(NamedTuple):
    """A mapping, and what is doubtful about it."""

    mapping: FileMapping
    doubts: list[str]


def propose(table: pa.Table, start: FileMapping = FileMapping()) -> Proposal:  # noqa: B008 - immutable
    """Propose a mapping for the rows of a table. `start` has delimiter and encoding."""
    columns = {name: _column(name, table[name]) for name in table.column_names}
    fields = by_name(table.column_names)
    used = {name for names in fields.values() for name in names}
    guessed = by_values([f for f in GUESSED if f not in fields], [c for c in columns.values() if c.name not in used])
    fields |= {field: [name] for field, name in guessed.items()}
    doubts = [f"`{name}` as `{field}` is a guess from its values alone" for field, name in guessed.items()]
    times = _times(fields, columns, doubts)
    written = [name for name in fields.get("amount", []) if types.is_string(table[name].type)]  # and not as numbers
    mapping = msgspec.structs.replace(
        start,
        decimal=_decimal([columns[name] for name in written], start.decimal, doubts),
        time_unit=times.unit or "ms",
        time_zone=times.zone,
        time_format=times.format,
        time_origin=times.origin,
        number_rows="transaction_id" not in fields,
        fraud_values=_fraud_values([columns[name] for name in fields.get("label", [])], doubts),
        fields={field: names[0] if len(names) == 1 else tuple(names) for field, names in fields.items()},
        constants=_constants(fields, columns, doubts),
    )
    return Proposal(mapping, doubts)


def _column(name: str, values: pa.ChunkedArray) -> Column:
    """Count the different values of a column, and take some from all parts of it."""
    present = values.drop_null()
    if types.is_nested(values.type):
        return Column(name, 0, [], len(values))
    chosen = pa.array(range(0, len(present), max(1, len(present) // SAMPLE)), pa.int64())
    texts = [_text(value) for value in present.take(chosen).to_pylist()]
    distinct = pc.count_distinct(values, mode="only_valid").as_py()
    return Column(name, distinct, [text for text in texts if text.strip()], len(values))


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _times(fields: Mapping[str, Sequence[str]], columns: Mapping[str, Column], doubts: list[str]) -> TimeGuess:
    names = fields.get("timestamp")
    if names is None:
        return TimeGuess()
    values = [" ".join(parts) for parts in zip(*(columns[name].values for name in names), strict=False)]
    guess = guess_times(values)
    if guess is None and values:
        doubts.append(f"`timestamp` from {_quoted(names)}: the form of these times is not known; write a time_format")
    if guess is None:
        return TimeGuess()
    doubts.extend(guess.doubts)
    return guess


def _constants(
    fields: Mapping[str, Sequence[str]], columns: Mapping[str, Column], doubts: list[str]
) -> dict[str, str | int | float | bool]:
    constants: dict[str, str | int | float | bool] = {}
    if "currency" not in fields:
        sign = next((SIGNS[s] for name in fields.get("amount", []) for s in SIGNS if _has(columns[name], s)), None)
        codes = {
            code for name in fields.get("amount", []) for value in columns[name].values for code in CODE.findall(value)
        }
        sign = codes.pop() if len(codes) == 1 else sign
        constants["currency"] = sign or NO_CURRENCY
        doubts.append(
            f"no column is the currency. {constants['currency']} is a guess from the amounts"
            if sign
            else f"no column is the currency: replace {NO_CURRENCY} (no currency) by the one of the file"
        )
    if "merchant_id" not in fields:
        constants["merchant_id"] = "unknown"
        doubts.append("no column is the merchant: all payments get one, so its risk says nothing")
    return constants


def _has(column: Column, sign: str) -> bool:
    return sum(sign in value for value in column.values) * 2 > len(column.values)


def _decimal(columns: Sequence[Column], named: str, doubts: list[str]) -> str:
    """Return the decimal sign of the amounts. A number such as 1.234 or 1,234 decides nothing."""
    values = [value.strip() for column in columns for value in column.values]
    commas, points = (
        sum(one.fullmatch(value) is not None for value in values) for one in (DECIMAL_COMMA, DECIMAL_POINT)
    )
    if named == "." and not commas and not points:
        signs = {sign for value in values for sign in ".," if sign in value}
        if len(signs) == 1 and not any(CLEAR.fullmatch(value) for value in values):
            doubts.append(_ambiguous(signs.pop()))
    return "," if commas > points else "."


def _ambiguous(sign: str) -> str:
    meaning, other = ("thousands", "decimals") if sign == "," else ("decimals", "thousands")
    return (
        f"all amounts with a {sign!r} have three digits after it: thousands or decimals? They are read as {meaning}. "
        f"For {other}, add --decimal ,"
    )


def _fraud_values(columns: Sequence[Column], doubts: list[str]) -> tuple[str, ...]:
    """Return the words for fraud, unless they are the usual ones. Of two unknown words, it is the rarer one."""
    counts = Counter(value.strip() for column in columns for value in column.values)
    if {word.lower() for word in counts} <= ORDINARY_LABELS:
        return ()
    words = tuple(sorted(word for word in counts if word.lower() in FRAUD_WORDS))
    if words or len(counts) != MIN_LABELS:
        return words
    if any(mask_text(word) != word for word in counts):
        doubts.append("the values of the label seem to be card data: is it the right column?")
        return ()
    rarer = counts.most_common()[-1][0]
    doubts.append(f"`{rarer}` as the word for fraud is a guess: it is the rarer of two")
    return (rarer,)


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
