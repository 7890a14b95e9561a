"""Find the column that seems to be the label of a file whose label column has another name."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Final, NamedTuple

from fraud_service.training.column_guess import LABELS, NAMES, plain
from fraud_service.training.history_arrow import pc, types
from fraud_service.training.history_fields import FIELDS

if TYPE_CHECKING:
    from fraud_service.training.history_arrow import pa
    from fraud_service.training.history_rows import Source

KNOWN: Final = frozenset((*NAMES["label"].split(), "chargeback", "ischargeback", "fraudreported", "isscam"))
SIMILAR: Final = re.compile("fraud|chargeback|label|scam")
MAX_CANDIDATES: Final = 5
PAIR: Final = 2


class Candidate(NamedTuple):
    """A column that may be the label: `rank` 0 is the most likely, and `detail` says why."""

    rank: int
    name: str
    detail: str


def explain_missing_label(source: Source) -> str:
    """Say which column of a file seems to be the label, and the option that reads it; no value, only counts."""
    free = [name for name in dict.fromkeys(source.columns) if name not in FIELDS]
    free = [name for name in free if source.columns.count(name) == 1]
    table = source.read(free).table if free else None
    found = sorted(filter(None, (_candidate(name, table[name]) for name in free))) if table is not None else []
    if not found:
        named = ", ".join(f"`{name}`" for name in source.columns)
        return f"no column is the label, and none seems to be: the file has {named}. Name it with --map COLUMN=label"
    best, *others = found[:MAX_CANDIDATES]
    more = f" Other columns that could be: {', '.join(f'`{one.name}`' for one in others)}." if others else ""
    return (
        f"no column is the label. `{best.name}` seems to be ({best.detail}): --map {shlex.quote(f'{best.name}=label')}"
        f".{more}"
    )


def _candidate(name: str, values: pa.ChunkedArray) -> Candidate | None:
    is_known, is_similar = plain(name) in KNOWN, SIMILAR.search(plain(name)) is not None
    if types.is_nested(values.type):
        return None
    counts = {
        str(one["values"]).strip().lower(): one["counts"] for one in pc.value_counts(values.drop_null()).to_pylist()
    }
    counts.pop("", None)
    is_label = 0 < len(counts) <= PAIR and counts.keys() <= LABELS
    rows = sum(counts.values())
    if len(counts) == PAIR:
        detail = f"two values, one of them in {min(counts.values()):,} of {rows:,} rows"
    else:
        detail = f"its name; {len(counts):,} different values in {rows:,} rows"
    if is_label and (is_known or is_similar):
        return Candidate(0 if is_known else 1, name, detail)
    if is_known:
        return Candidate(2, name, detail)
    return Candidate(3, name, detail) if len(counts) == PAIR and is_label else None
