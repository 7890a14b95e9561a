"""Look at a file that is not known: propose how to read it, read it so, and say what is doubtful."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fraud_service.domain.codec import LATEST
from fraud_service.domain.entry_modes import KNOWN
from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.text import count_of
from fraud_service.domain.time import rfc3339
from fraud_service.security.card_data import mask_text
from fraud_service.training.column_risks import CardDataColumn, find_card_data_columns, find_leaks
from fraud_service.training.history import History
from fraud_service.training.history_arrow import pc, types
from fraud_service.training.history_checks import count_repeats, unknown_entry_modes
from fraud_service.training.history_columns import seem_values
from fraud_service.training.history_facts import HistoryFacts, doubts_about, facts_of
from fraud_service.training.history_fields import TIMES
from fraud_service.training.history_head import Head, read_head
from fraud_service.training.known_sets import KnownSet, recognise
from fraud_service.training.mapping import FileMapping
from fraud_service.training.proposal import Proposal, propose
from fraud_service.training.tolerant_rows import Refusal, TolerantRows, read_rows, unreadable_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

SAMPLE_ROWS: Final = 3
MASK: Final = "[card data]"


class Inspection(msgspec.Struct, frozen=True):
    """What `inspect` found. It has no value that may be card data."""

    file: str
    rows: int
    is_whole_file: bool
    looks_like: str | None  # the name of a ready mapping
    title: str | None
    mapping: FileMapping
    columns: dict[str, tuple[str, ...]]  # of each field
    sample: list[dict[str, Any]]
    accepted: int
    refused: list[Refusal]
    facts: HistoryFacts | None
    card_data: list[CardDataColumn]
    unused: list[str]
    leaks: dict[str, str]
    doubts: list[str]


def inspect(
    path: Path,
    rows: int,
    given: FileMapping | None,
    override: Callable[[FileMapping], FileMapping],
    latest: int = LATEST,
) -> Inspection:
    """Inspect the first rows of a file. `given` is its mapping, if there is one; `override` applies options to it.

    Payments after `latest`, epoch milliseconds, are refused.
    """
    head = read_head(path, rows, override(given or FileMapping()))
    known = None if given else recognise(head.columns)
    proposal = _proposal(head, given, known)
    mapping, doubts = override(proposal.mapping), list(proposal.doubts)
    try:
        read = read_rows(path, head, mapping, latest)
    except ConfigurationError as error:
        read = None
        doubts.insert(0, str(error))
    facts = None if read is None else facts_of(read.table)
    card_data = find_card_data_columns(head.table)
    used = {name for names in (read.columns if read else {}).values() for name in names}
    unused = [name for name in head.columns if name not in used]
    return Inspection(
        file=str(path),
        rows=head.table.num_rows + sum(len(part.unreadable) for part in head.parts),
        is_whole_file=head.is_whole_file,
        looks_like=known.name if known else None,
        title=known.title if known else None,
        mapping=mapping,
        columns=read.columns if read else {},
        sample=_sample(read, card_data) if read else [],
        accepted=read.table.num_rows if read else 0,
        refused=[*(read.refused if read else []), *unreadable_rows(head)],
        facts=facts,
        card_data=card_data,
        unused=unused,
        leaks=find_leaks(head.table, read.labels if read else None, unused),
        doubts=doubts + _further_doubts(head, read, facts),
    )


def _proposal(head: Head, given: FileMapping | None, known: KnownSet | None) -> Proposal:
    if given is not None:
        return Proposal(given, [])
    if known is not None:
        return Proposal(known.mapping, [known.note])
    return propose(head.table, head.mapping)


def _sample(read: TolerantRows, card_data: Sequence[CardDataColumn]) -> list[dict[str, Any]]:
    """Return some rows without what may be card data."""
    secret = {one.column for one in card_data}
    masked = {field for field, columns in read.columns.items() if secret & {*columns}}
    return [
        {field: MASK if field in masked else _shown(field, value) for field, value in row.items() if value is not None}
        for row in read.table.slice(0, SAMPLE_ROWS).to_pylist()
    ]


def _shown(field: str, value: object) -> object:
    if field in TIMES and isinstance(value, int):
        return rfc3339(value)
    return mask_text(value) if isinstance(value, str) else value


def _doubts_about_columns(head: Head) -> list[str]:
    doubts = []
    if seem_values(head.columns):
        doubts.append("the first line seems to be a row of data, not the names of the columns")
    for name, count in Counter(head.columns).items():
        if count > 1:
            doubts.append(f"{count} columns are named `{name}`: rename all but one")
    nested = [f"`{name}`" for name in head.table.column_names if types.is_nested(head.table[name].type)]
    if nested:
        doubts.append(f"{', '.join(nested)}: values within values. Only plain columns can be fields, so take these out")
    return doubts


def _further_doubts(head: Head, read: TolerantRows | None, facts: HistoryFacts | None) -> list[str]:
    doubts = _doubts_about_columns(head)
    if read is None:
        return doubts
    if facts is not None:
        doubts += doubts_about(facts, read.table.num_rows, is_whole_file=head.is_whole_file)
    repeats = count_repeats(History(read.table))
    if repeats.duplicates:
        doubts.append(f"{count_of(repeats.duplicates, 'row')} with a payment that an earlier row has: they count once")
    if repeats.reused_ids:
        doubts.append(
            f"{count_of(repeats.reused_ids, 'row')} with the id of another payment of their card. Each counts as a "
            "payment. An authorisation and its capture need ids of their own"
        )
    modes = unknown_entry_modes(read.table)
    if modes is not None:
        doubts.append(
            f"{count_of(pc.sum(modes).as_py(), 'row')} with an entry mode without a known meaning. Known are {KNOWN}"
        )
    return doubts
