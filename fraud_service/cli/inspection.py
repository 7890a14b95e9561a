"""The command that looks at a file of transactions and proposes how to read it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fraud_service.cli import options
from fraud_service.cli.data import PANEL
from fraud_service.cli.file_options import FileOptions, latest_event_ms, reads_file
from fraud_service.cli.output import say, say_json, to_json
from fraud_service.domain.errors import ConfigurationError, DeadLetterReason
from fraud_service.domain.text import count_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fraud_service.training.column_risks import CardDataColumn
    from fraud_service.training.inspection import Inspection
    from fraud_service.training.tolerant_rows import Refusal

app = typer.Typer()
ROWS: Final = 200_000
CELL: Final = 26  # characters of a value in the sample
CARD_NUMBER: Final = DeadLetterReason.CARD_NUMBER.value


@app.command(name="inspect", rich_help_panel=PANEL)
@reads_file
def inspect_file(
    file: Annotated[Path, typer.Argument(help="File with transactions: .parquet, .csv or .jsonl.")],
    reading: FileOptions,
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the mapping to this .toml file.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Number of rows to read, from the first.")] = ROWS,
    as_json: options.AsJson = False,
) -> None:
    """Propose how to read a file: its mapping, some transactions, and what is doubtful.

    Changes and sends nothing. With --mapping, it shows what this mapping makes of the file. Exits 1 if it can read no
    transaction.
    """
    from fraud_service.training.inspection import inspect
    from fraud_service.training.mapping import SUFFIX, load_mapping
    from fraud_service.training.mapping_text import to_toml

    if save is not None and save.suffix != SUFFIX:
        raise ConfigurationError(f"--save {save}: the name of a mapping ends in {SUFFIX}")
    options.require_output(save, file)
    given = None if reading.mapping is None else load_mapping(reading.mapping)
    found = inspect(file, rows, given, reading.override, latest_event_ms())
    if save is not None:
        save.write_text(to_toml(found.mapping, found.doubts), encoding="utf-8")
    if as_json:
        say_json(to_json(found))
    else:
        known = reading.mapping or found.looks_like
        is_as_known = known is not None and load_mapping(known) == found.mapping
        say(*_text(found, to_toml(found.mapping), save, known if is_as_known and save is None else None))
    if not found.accepted:
        raise typer.Exit(1)


def _text(found: Inspection, toml: str, save: Path | None, known: str | None) -> Iterator[str]:
    part = "all of its rows" if found.is_whole_file else "its first rows: the file has more, see --rows"
    yield f"{found.file}: looked at {count_of(found.rows, 'row')}, {part}"
    if found.looks_like:
        yield f"This looks like {found.title}: --mapping {found.looks_like}"
    yield from ("", "Mapping" + (f", written to {save}" if save else ""))
    yield from (f"  {line}" if line else "" for line in toml.splitlines())
    if found.sample:
        yield from ("", f"The first {len(found.sample)} transactions")
        yield from _sample(found)
    yield from ("", "Figures", *_figures(found))
    yield from _list("Refused rows", [_refusal(one) for one in found.refused])
    yield from _list("Card data", [_card_data(one) for one in found.card_data])
    yield from _list(
        "Columns that would reveal the label (not used)", [f"`{n}`: {why}" for n, why in found.leaks.items()]
    )
    other = [f"`{name}`" if name else "one without a name" for name in found.unused if name not in found.leaks]
    yield from _list("Other columns that are not used", [", ".join(other)] if other else [])
    yield from _list("Doubts", found.doubts)
    yield from _list("Next", list(_next(found, str(save) if save else known)), mark="")


def _list(title: str, items: list[str], mark: str = "* ") -> Iterator[str]:
    if items:
        yield from ("", title, *(f"  {mark}{item}" for item in items))


def _sample(found: Inspection) -> Iterator[str]:
    """Show one field in a line, with a column for each transaction."""
    for field in dict.fromkeys(field for row in found.sample for field in row):
        cells = (str(row.get(field, ""))[:CELL].ljust(CELL) for row in found.sample)
        yield f"  {field:22}  {'  '.join(cells)}".rstrip()


def _figures(found: Inspection) -> Iterator[str]:
    refused = found.rows - found.accepted
    yield f"  {count_of(found.accepted, 'row')} can be read, {refused:,} cannot"
    facts = found.facts
    if facts is None:
        return
    yield f"  {count_of(facts.days, 'day')}, from {facts.begin} to {facts.end}"
    yield (
        f"  {count_of(facts.cards, 'card')} with {count_of(facts.median_payments_per_card, 'payment')} (median), "
        f"at most {facts.max_payments_per_card:,}; {count_of(facts.merchants, 'merchant')}"
    )
    amounts = f"  amounts: median {facts.median_amount:,.2f}, at most {facts.max_amount:,.2f}"
    yield f"{amounts}; {', '.join(sorted(facts.currencies))}"
    if facts.fraud_share is not None:
        yield f"  labels: {facts.labelled:,}, of which {facts.frauds:,} are fraud ({facts.fraud_share:.2%})"
    if facts.label_delay_days is not None:
        least, median, most = facts.label_delay_days
        yield f"  label delay: {least:g} to {most:g} days, median {median:g}"


def _refusal(one: Refusal) -> str:
    where = f", column `{one.column}`" if one.column else ""
    return f"{count_of(one.rows, 'row')}, the first is row {one.first_row}{where}: {one.reason}"


def _card_data(one: CardDataColumn) -> str:
    if one.kind != CARD_NUMBER:
        return f"`{one.column}`: authentication data in {count_of(one.rows, 'row')}. Card rules forbid it: remove it"
    tokenize = f"--tokenize {shlex.quote(one.column)}"
    if one.is_long_number:
        return (
            f"`{one.column}`: long numbers, of which {one.rows:,} look like card numbers. Scorers would refuse these: "
            f"{tokenize}, or FRAUD_REJECT_PAN=false here, for scorers and learner"
        )
    return (
        f"`{one.column}`: card numbers in {count_of(one.rows, 'row')}: {tokenize}. If they are other long numbers: "
        "FRAUD_REJECT_PAN=false here, for scorers and learner"
    )


def _next(found: Inspection, mapping: str | None) -> Iterator[str]:
    """Name the commands that come next, with the options that this file needs. `mapping` is one that exists."""
    if found.facts is None:
        yield "Name the columns with --map COLUMN=FIELD, and inspect the file again"
        return
    name, file = mapping or "mapping.toml", shlex.quote(found.file)
    if mapping is None:
        yield f"fraud-service inspect {file} --save {name}"
    used = {column for columns in found.columns.values() for column in columns}
    numbers = [one.column for one in found.card_data if one.kind == CARD_NUMBER and one.column in used]
    how = " ".join(
        [f"{file} --mapping {shlex.quote(name)}", *(f"--tokenize {shlex.quote(column)}" for column in numbers)]
        + ["--skip-invalid"] * bool(found.refused)
    )
    if found.facts.frauds:
        yield f"fraud-service backtest {how} --models models/pretrained"
        yield f"fraud-service train {how} --out mine --train-to {found.facts.split}"
        yield f"fraud-service backtest {how} --models mine --from {found.facts.split} --report report.html"
    yield f"fraud-service feed {how} --event-time"
