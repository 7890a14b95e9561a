"""Labels from a file, as chargebacks arrive in bulk. Columns are chosen and converted as those of a history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.events import Label, LabelSource
from fraud_service.domain.time import rfc3339
from fraud_service.training.history_arrow import pa, pc
from fraud_service.training.history_columns import choose_columns, parse_constants
from fraud_service.training.history_faults import Faults
from fraud_service.training.history_fields import Form, convert, joined_names, plain_values
from fraud_service.training.history_files import open_source

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fraud_service.training.history_checks import CardDataCheck
    from fraud_service.training.history_faults import Skipped
    from fraud_service.training.mapping import FileMapping

REQUIRED: Final = ("transaction_id", "card_id", "label")
READ: Final = (*REQUIRED, "labelled_at")
SOURCE: Final = "source"
ROW: Final = "row"


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
    skipped: Skipped

    def require_known_by(self, latest: int) -> None:
        """Raise `ConfigurationError` for a label from the future, which the learner would reject."""
        if self.labels and self.labels[-1].labelled_at > latest:
            raise ConfigurationError(
                f"{self.path}, row {self.rows[-1]}: the label became known on "
                f"{rfc3339(self.labels[-1].labelled_at)}, which is in the future: correct the times"
            )


def read_labels(
    path: Path, mapping: FileMapping, defaults: LabelDefaults, check: CardDataCheck, *, skips: bool = False
) -> LabelFile:
    """Read and check a file of labels. Rows that repeat another one are left out and counted.

    A row with a later time than another of the same transaction corrects it. Raises `ConfigurationError`, which names
    the row, for a value that is missing or invalid, card data, and two rows of one time that contradict each other.
    """
    mapping = msgspec.structs.replace(mapping, number_rows=False)  # a label needs the id of its transaction
    if defaults.is_fraud is not None:
        constants = {**mapping.constants, "label": defaults.is_fraud}
        fields = {name: column for name, column in mapping.fields.items() if name not in {"label", "is_fraud"}}
        mapping = msgspec.structs.replace(mapping, constants=constants, fields=fields)
    table, columns, faults = _columns(path, mapping, skips=skips)
    table = faults.without(check(table, columns, faults.where).append_column(ROW, faults.numbers))
    count = table.num_rows
    if not count:
        raise ConfigurationError(f"{path}: it has no rows")
    values = {
        name: table[name].to_pylist() if name in table.column_names else [None] * count for name in (ROW, *READ, SOURCE)
    }
    labels: dict[Label, int] = {}
    seen: dict[tuple[str, str, int], tuple[bool, int]] = {}
    for row, transaction, card, is_fraud, at, source in zip(*values.values(), strict=True):
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
    rows = [row for _, row in ordered]
    return LabelFile(path, [label for label, _ in ordered], rows, count - len(ordered), faults.skipped())


def _columns(path: Path, mapping: FileMapping, *, skips: bool) -> tuple[pa.Table, dict[str, str], Faults]:
    """Return the converted fields of a label, the columns they come from, and the invalid rows."""
    source = open_source(path, mapping, skips=skips)
    fixed = {name: value for name, value in parse_constants(mapping.constants).items() if name in READ}
    chosen = choose_columns(path, source.columns, mapping, REQUIRED)
    chosen = {name: columns for name, columns in chosen.items() if name in READ}
    sources = [column for column in source.columns if column.strip().lower() == SOURCE][:1]
    rows = source.read(list(dict.fromkeys([*(one for columns in chosen.values() for one in columns), *sources])))
    given, faults, form = rows.table, Faults(path, rows, skips=skips), Form.of(mapping)
    fields = {
        name: convert(name, {column: given[column] for column in columns}, form, faults)
        for name, columns in chosen.items()
    }
    fields |= {name: pa.repeat(value, given.num_rows) for name, value in fixed.items()}
    if sources:
        fields[SOURCE] = _sources(sources[0], plain_values(SOURCE, [given[sources[0]]]), faults)
    return pa.table(fields), {name: joined_names(columns) for name, columns in chosen.items()}, faults


def _sources(column: str, values: pa.ChunkedArray, faults: Faults) -> pa.ChunkedArray:
    known: Sequence[str] = [*LabelSource]
    lower = pc.utf8_lower(values.cast(pa.string()))
    is_known = pc.is_in(lower, pa.array(known))
    faults.add(column, pc.and_(lower.is_valid(), pc.invert(is_known)), lambda _: f"write one of {', '.join(known)}")
    return pc.if_else(is_known, lower, None)
