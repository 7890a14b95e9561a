"""The fields of a transaction, and how columns of many types are converted to them.

A field has the same value in a file of any format and in a message. Numbers that Arrow would convert by way of binary
fractions (decimals, single precision) become text first, as they are in CSV.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from fraud_service.domain.countries import one_spelling
from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.events import ABSENT, LOST_DIGITS, MAX_AMOUNT, MAX_OFFSET_MIN, TEXT_FIELDS
from fraud_service.domain.text import HIDDEN, SURROGATES
from fraud_service.training.history_arrow import pa, pc, types
from fraud_service.training.history_rows import whole_numbers
from fraud_service.training.history_times import TimeFormat, convert_times, explain_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from fraud_service.training.history_faults import Faults
    from fraud_service.training.mapping import FileMapping

    Convert = Callable[[pa.ChunkedArray, "Form"], pa.ChunkedArray]

BETWEEN_NAMES: Final = "`, `"
EXACT_IN_A_FLOAT: Final = 2.0**53
# With more digits, Arrow may reject the number as too large. A positive exponent shows that digits were lost.
NUMBER: Final = r"^[+-]?(\d{1,99}\.?\d{0,99}|\.\d{1,99})([eE]-\d{1,2})?$"

CURRENCY: Final = r"^([A-Z]{3}|[A-Z]{0,2}\p{Sc})[\s\x{a0}\x{202f}]*|[\s\x{a0}\x{202f}]*([A-Z]{3}|\p{Sc})$"
GROUP_SIGNS: Final = (" ", "\u00a0", "\u202f", "\u2009", "'", "\u2019")  # besides the point or comma
FRAUD_WORDS: Final = ("true", "t", "yes", "y", "ja", "j", "1", "1.0")
LEGITIMATE_WORDS: Final = ("false", "f", "no", "n", "nein", "0", "0.0")
NEGATIVE: Final = re.compile(r"^\W*[-\u2212]\W*\d|\d\s*-\W*$|^\W*\(.*\d.*\)\W*$")
DECIMAL_COMMA: Final = re.compile(r"\d,\d{1,2}\D*$|\d\.\d{3},")
DECIMAL_POINT: Final = re.compile(r"\d\.\d{1,2}\D*$|\d,\d{3}\.")


class Form(NamedTuple):
    """How a file writes times, numbers and labels."""

    times: TimeFormat = TimeFormat()
    decimal: str = "."
    fraud_values: frozenset[str] = frozenset()

    @classmethod
    def of(cls, mapping: FileMapping) -> Form:
        """Read the entries of a mapping."""
        fraud_values = frozenset(value.strip().lower() for value in mapping.fraud_values)
        return cls(TimeFormat.of(mapping), mapping.decimal, fraud_values)


class Field(NamedTuple):
    """The conversion of a field, the complaint about an invalid value, and whether the field is required.

    `convert` takes a column as `_plain` returns it. A value that it cannot convert becomes null. Without `convert`, the
    field is a time.
    """

    convert: Convert | None
    complaint: str = ""
    required: bool = False
    absent: frozenset[str] = ABSENT | {"NA"}  # which R writes; as text, it is Namibia

    def values(self, column: pa.ChunkedArray, form: Form) -> pa.ChunkedArray:
        """Convert a plain column."""
        return convert_times(column, form.times) if self.convert is None else self.convert(column, form)

    def explain(self, name: str, value: pa.Scalar, form: Form) -> str:
        """Say what is wrong with a value, without quoting it."""
        if not value.is_valid:
            return f"`{name}` must not be missing"
        written = value.as_py()
        if isinstance(written, str) and LOST_DIGITS.fullmatch(written):
            return "a number with an exponent, so its last digits are lost: export the column as text, not from a sheet"
        if self.convert is None:
            return explain_time(value, name, form.times)
        return f"{self.complaint}{_hint(name, str(written), form)}"


def convert(name: str, columns: Mapping[str, pa.ChunkedArray], form: Form, faults: Faults) -> pa.ChunkedArray:
    """Convert one or several columns to a field, and report the values that are invalid. These become null."""
    field, column = FIELDS[name], joined_names(columns)
    try:
        given = plain_values(name, list(columns.values()))
    except pa.ArrowInvalid:
        raise ConfigurationError(f"{faults.path}, column `{column}`: not UTF-8 text") from None
    values = field.values(given, form)
    bad = values.is_null() if field.required else pc.and_not(values.is_null(), given.is_null())
    faults.add(column, bad, lambda position: field.explain(name, given[position], form))
    return values


def plain_values(name: str, columns: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    """Return the values of a field as its conversion takes them."""
    absent = FIELDS[name].absent if name in FIELDS else ABSENT
    return _joined(name, [_plain(values, absent, is_text=name in TEXT_FIELDS) for values in columns])


def joined_names(columns: Iterable[str]) -> str:
    """Return the names of the columns of a field for a message, which writes them between backticks."""
    return BETWEEN_NAMES.join(columns)


def split_names(joined: str) -> list[str]:
    """Return the names of the columns from what `joined_names` made of them."""
    return joined.split(BETWEEN_NAMES)


def constant(name: str, text: str) -> pa.Scalar:
    """Convert the text of an option to a field. Raises `ValueError` with the complaint."""
    field, given = FIELDS[name], pa.chunked_array([[text]], pa.string())
    value = field.values(given, Form())[0]
    if not value.is_valid:
        raise ValueError(field.explain(name, given[0], Form()))
    return value


def between(values: pa.ChunkedArray, lowest: float, highest: float) -> pa.ChunkedArray:
    """Return the mask of the values in [lowest, highest]."""
    return pc.and_(pc.greater_equal(values, lowest), pc.less_equal(values, highest))


def _joined(name: str, columns: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    """Join the values of several columns: those of a time with a blank, others with a hyphen.

    A time needs all of its parts, an id only one. A part that cannot be text makes the field invalid.
    """
    if len(columns) == 1:
        return columns[0]
    if nested := next((column for column in columns if types.is_nested(column.type)), None):
        return nested
    texts = [_part(column) for column in columns]
    if name in TIMES:
        return pc.binary_join_element_wise(*texts, " ")
    joined = pc.binary_join_element_wise(*texts, "-", null_handling="replace", null_replacement="")
    return _where(pc.match_substring_regex(joined, "[^-]"), joined)


def _part(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a part of a joined field as CSV has it: numbers as integers if all of them are whole."""
    if types.is_floating(column.type):
        column = pa.chunked_array(
            [[None if number is None else repr(number) for number in column.to_pylist()]], pa.string()
        )
    elif not types.is_decimal(column.type):
        return column.cast(pa.string())
    return whole_numbers(column.cast(pa.string()))


def _plain(column: pa.ChunkedArray, absent: frozenset[str], *, is_text: bool) -> pa.ChunkedArray:
    """Reduce equivalent types to one, and what stands for a missing value to null. Decimals of ids and texts stay.

    Decimals and single precision become what their text says: `51.80` is 51.8, and not the nearest single.
    """
    if _is_text(column.type):
        column = column.cast(pa.string())
        return _where(pc.invert(pc.is_in(column, pa.array(sorted(absent)))), column)
    if types.is_decimal(column.type) and not is_text:
        return whole_numbers(column.cast(pa.string()))
    if types.is_floating(column.type):
        if not types.is_float64(column.type):
            column = column.cast(pa.float32()).cast(pa.string())
        column = column.cast(pa.float64())
        return _where(pc.invert(pc.is_nan(column)), column)
    return column


def _is_text(kind: pa.DataType) -> bool:
    """Whether a column is text. Some writers store text as bytes."""
    return bool(types.is_string(kind) or types.is_binary(kind) or types.is_fixed_size_binary(kind))


def _where(condition: pa.ChunkedArray, column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(condition, column, None)


def _is_number(column: pa.ChunkedArray) -> bool:
    return bool(types.is_integer(column.type) or types.is_floating(column.type))


def _whole(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert numbers to integers; fractions become null."""
    if types.is_decimal(column.type):
        text = pc.replace_substring_regex(column.cast(pa.string()), r"\.0+$", "")
        return _where(pc.match_substring_regex(text, "^-?[0-9]+$"), text)
    if types.is_floating(column.type):
        whole = pc.and_(pc.equal(pc.floor(column), column), pc.less(pc.abs(column), EXACT_IN_A_FLOAT))
        return _where(whole, column).cast(pa.int64())
    return column


HIDDEN_CHARACTERS: Final = "".join(rf"\x{{{first:x}}}-\x{{{last:x}}}" for first, last in HIDDEN if first != SURROGATES)


def _text(pattern: str) -> Convert:
    def convert(column: pa.ChunkedArray, _: Form) -> pa.ChunkedArray:
        if not (types.is_string(column.type) or types.is_decimal(column.type) or _is_number(column)):
            return pa.nulls(len(column), pa.string())
        # Pandas turns integers into floats to make room for NaN.
        text = _whole(column).cast(pa.string())
        for wrong in (f"[{HIDDEN_CHARACTERS}]", f"^(?:{LOST_DIGITS.pattern})$"):
            text = _where(pc.invert(pc.match_substring_regex(text, wrong)), text)
        return _where(pc.match_substring_regex(text, pattern), text)

    return convert


def _number(
    lowest: float, highest: float, *, money: bool = False
) -> Callable[[pa.ChunkedArray, Form], pa.ChunkedArray]:
    def convert(column: pa.ChunkedArray, form: Form) -> pa.ChunkedArray:
        if types.is_string(column.type):
            column = _numerals(column, form.decimal, money=money)
        elif not _is_number(column):
            return pa.nulls(len(column), pa.float64())
        numbers = column.cast(pa.float64(), safe=False)
        return pc.add(_where(between(numbers, lowest, highest), numbers), 0.0)  # minus zero becomes zero

    return convert


def _minutes(column: pa.ChunkedArray, form: Form) -> pa.ChunkedArray:
    return _whole(_number(-MAX_OFFSET_MIN, MAX_OFFSET_MIN)(column, form))


def _numerals(column: pa.ChunkedArray, decimal: str, *, money: bool) -> pa.ChunkedArray:
    """Return text as Arrow reads numbers; null where it is no number.

    Money may have a currency sign or code, and signs between groups of digits.
    """
    is_plain = pc.match_substring_regex(column, NUMBER)
    if decimal == "." and pc.all(is_plain).as_py():
        return column
    text = pc.utf8_trim_whitespace(column)
    if money:
        text = pc.replace_substring_regex(text, CURRENCY, "")
        for sign in (",", ".", *GROUP_SIGNS):
            if sign != decimal:
                grouped = rf"^[+]?\d{{1,3}}([{sign}]\d{{2,3}})*[{sign}]\d{{3}}([{decimal}]\d{{0,99}})?$"
                is_grouped = pc.match_substring_regex(text, grouped)
                text = pc.if_else(is_grouped, pc.replace_substring(text, sign, ""), text)
    if decimal != ".":
        text = pc.replace_substring(_where(pc.invert(pc.match_substring(text, ".")), text), decimal, ".")
    return _where(pc.match_substring_regex(text, NUMBER), text)


def _hint(name: str, written: str, form: Form) -> str:
    """Name the likely cause of an invalid number or label."""
    if name == "label":
        return "" if form.fraud_values else ", or name the text that means fraud with --fraud-value"
    if NEGATIVE.search(written):
        return ": it is negative, as of a refund, which is no payment" if name == "amount" else ""
    if form.decimal == "." and DECIMAL_COMMA.search(written):
        return ": for a decimal comma, add --decimal ,"
    if form.decimal == "," and DECIMAL_POINT.search(written):
        return ": it has a decimal point, but the option says --decimal ,"
    return ""


def _label(column: pa.ChunkedArray, form: Form) -> pa.ChunkedArray:
    if not (types.is_string(column.type) or types.is_boolean(column.type) or _is_number(column)):
        return pa.nulls(len(column), pa.bool_())
    text = pc.utf8_lower(pc.utf8_trim_whitespace(_whole(column).cast(pa.string())))
    if form.fraud_values:
        return _where(text.is_valid(), pc.is_in(text, pa.array(sorted(form.fraud_values))))
    fraud, legitimate = (pc.is_in(text, pa.array(words)) for words in (FRAUD_WORDS, LEGITIMATE_WORDS))
    return _where(pc.or_(fraud, legitimate), fraud)


def _country(column: pa.ChunkedArray, form: Form) -> pa.ChunkedArray:
    text = _any_text(column, form)
    spelled = {given: one_spelling(given) for given in text.unique().to_pylist()}
    if all(given == one for given, one in spelled.items()):
        return text
    return pa.chunked_array([pa.array(map(spelled.get, text.to_pylist()), pa.string())])


_any_text: Final = _text("(?s)^.{0,256}$")
VISIBLE: Final = " without control or invisible characters"
_ID: Final = Field(
    _text("(?s)^.{1,128}$"), f"not text of 1 to 128 characters{VISIBLE}, nor an integer", required=True, absent=ABSENT
)
_TEXT: Final = Field(_any_text, f"not text of at most 256 characters{VISIBLE}, nor an integer", absent=ABSENT)

# The fields of `Transaction`, then those of its label.
FIELDS: Final[Mapping[str, Field]] = {
    "transaction_id": _ID,
    "timestamp": Field(None, required=True),
    "card_id": _ID,
    "merchant_id": _ID,
    "amount": Field(_number(0, MAX_AMOUNT, money=True), f"not an amount from 0 to {MAX_AMOUNT:.0e}", required=True),
    "currency": Field(_text("^[A-Z]{3}$"), "not an ISO 4217 code such as EUR", required=True),
    "merchant_category_code": _TEXT,
    "country": _TEXT._replace(convert=_country),
    "entry_mode": _TEXT,
    "device_id": _TEXT,
    "ip": _TEXT,
    "latitude": Field(_number(-90, 90), "not a number of degrees from -90 to 90"),
    "longitude": Field(_number(-180, 180), "not a number of degrees from -180 to 180"),
    "utc_offset_min": Field(_minutes, f"not whole minutes from -{MAX_OFFSET_MIN} to {MAX_OFFSET_MIN}"),
    "label": Field(_label, "not a label: write true or false, yes or no, y or n, 1 or 0"),
    "labelled_at": Field(None),
}
TIMES: Final = frozenset({"timestamp", "labelled_at"})
IDS: Final = frozenset({"transaction_id", "card_id", "merchant_id", "device_id"})
