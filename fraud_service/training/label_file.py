"""Labels from a file, as chargebacks arrive in bulk. Columns are chosen and converted as those of a history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.events import Label, LabelSource, rfc3339
from fraud_service.training.history_columns import choose_columns, parse_constants
from fraud_service.training.history_fields import convert, plain_values
from fraud_service.training.history_files import open_source, pa, pc
from fraud_service.training.history_times import TimeFormat

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fraud_service.training.history_checks import CardDataCheck
    from fraud_service.training.mapping import FileMapping

REQUIRED: Final = ("transaction_id", "card_id", "label")
READ: Final = (*REQUIRED, "labelled_at")
SOURCE: Final = "source"


class LabelDefaults(NamedTuple):
    """What rows have that do not say it: label (None if each row must have one), source, and time (epoch ms)."""

    is_fraud: bool | None
    source: LabelSource
    labelled_at: int


class LabelFile(NamedTuple):
    """The labels of a file in the order in which they became known, with their rows, and how many were repeated."""

    path: Path
    labels: list[Label]
    rows: list[int]
    repeated: int

    def require_known_by(self, latest: int) -> None:
        """Raise `ConfigurationError` for a label from the future, which the learner would reject."""
        if self.labels and self.labels[-1].labelled_at > latest:
            raise ConfigurationError(
                f"{self.path}, row {self.rows[-1]}: the label became known on "
                f"{rfc3339(self.labels[-1].labelled_at)}, which is in the future: correct the times"
            )


def read_labels(path: Path, mapping: FileMapping, defaults: LabelDefaults, check: CardDataCheck) -> LabelFile:
    """Read and check a file of labels. Rows that repeat another one are left out and counted.

    A row with a later time than another of the same transaction corrects it. Raises `ConfigurationError`, which names
    the row, for a value that is missing or invalid, card data, and two rows of one time that contradict each other.
    """
    if defaults.is_fraud is not None:
        constants = {**mapping.constants, "label": defaults.is_fraud}
        fields = {name: column for name, column in mapping.fields.items() if name not in {"label", "is_fraud"}}
        mapping = msgspec.structs.replace(mapping, constants=constants, fields=fields)
    table = check(*_columns(path, mapping))
    count = table.num_rows
    if not count:
        raise ConfigurationError(f"{path}: it has no rows")
    values = {
        name: table[name].to_pylist() if name in table.column_names else [None] * count for name in (*READ, SOURCE)
    }
    labels: dict[Label, int] = {}
    seen: dict[tuple[str, str, int], tuple[bool, int]] = {}
    for row, (transaction, card, is_fraud, at, source) in enumerate(zip(*values.values(), strict=True), 1):
        if is_fraud is None:
            raise ConfigurationError(f"{path}, row {row}: the label is missing: write true or false, 1 or 0")
        moment = defaults.labelled_at if at is None else at
        known, first = seen.setdefault((transaction, card, moment), (is_fraud, row))
        if known != is_fraud:
            raise ConfigurationError(
                f"{path}, row {row}: it contradicts row {first}, which has another label for the same transaction at "
                "the same time: keep one of them, or give the later one a later labelled_at"
            )
        label = Label(
            transaction_id=transaction,
            card_id=card,
            is_fraud=is_fraud,
            labelled_at=moment,
            source=defaults.source if source is None else LabelSource(source),
        )
        if first == row:
            labels[label] = row
    ordered = sorted(labels.items(), key=lambda one: (one[0].labelled_at, one[1]))
    return LabelFile(path, [label for label, _ in ordered], [row for _, row in ordered], count - len(ordered))


def _columns(path: Path, mapping: FileMapping) -> tuple[pa.Table, dict[str, str]]:
    """Return the converted fields of a label, and the columns they come from."""
    source = open_source(path)
    fixed = {name: value for name, value in parse_constants(mapping.constants).items() if name in READ}
    chosen = choose_columns(path, source.columns, mapping, REQUIRED)
    chosen = {name: columns for name, columns in chosen.items() if name in READ}
    sources = [column for column in source.columns if column.strip().lower() == SOURCE][:1]
    given = source.read(list(dict.fromkeys([*(one for columns in chosen.values() for one in columns), *sources])))
    times = TimeFormat.of(mapping)
    fields = {
        name: convert(path, name, {column: given[column] for column in columns}, times)
        for name, columns in chosen.items()
    }
    fields |= {name: pa.repeat(value, given.num_rows) for name, value in fixed.items()}
    if sources:
        fields[SOURCE] = _sources(path, sources[0], plain_values(SOURCE, [given[sources[0]]]))
    return pa.table(fields), {name: "`, `".join(columns) for name, columns in chosen.items()}


def _sources(path: Path, column: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
    known: Sequence[str] = [*LabelSource]
    lower = pc.utf8_lower(values.cast(pa.string()))
    position = pc.index(pc.and_(lower.is_valid(), pc.invert(pc.is_in(lower, pa.array(known)))), value=True).as_py()
    if position >= 0:
        raise ConfigurationError(f"{path}, row {position + 1}, column `{column}`: write one of {', '.join(known)}")
    return lower
