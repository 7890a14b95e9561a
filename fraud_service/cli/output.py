"""Print the output of commands, and escape control sequences that could change a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec
import typer

from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.text import visible, visible_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fraud_service.domain.errors import FraudServiceError


def exit_code(error: FraudServiceError) -> int:
    """Return the exit code of a command that ended with an error: 2 for wrong settings or options, otherwise 1."""
    return 2 if isinstance(error, ConfigurationError) else 1


def say(*lines: str, err: bool = False) -> None:
    """Print lines for people. A line break within a line is escaped."""
    for line in lines:
        typer.echo(visible(line), err=err)


def say_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a header line and rows: in aligned columns on a terminal, otherwise separated by tabs."""
    lines = [[visible(str(cell)) for cell in row] for row in (header, *rows)]
    if sys.stdout.isatty():
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        lines = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    separator = "  " if sys.stdout.isatty() else "\t"
    for line in lines:
        typer.echo(separator.join(line).rstrip(" "))


def say_json(document: str | bytes) -> None:
    """Print JSON, in one line or several."""
    typer.echo(visible_json(document if isinstance(document, str) else document.decode()))


def to_json(value: object) -> str:
    """Return indented JSON without control characters, for the terminal or a file."""
    return visible_json(msgspec.json.format(msgspec.json.encode(value), indent=1).decode())
