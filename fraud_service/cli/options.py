"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import re
import time
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fraud_service.config.duration import PATTERN, parse_duration, to_ms
from fraud_service.domain.errors import ConfigurationError, InvalidEvent
from fraud_service.domain.events import instant

if TYPE_CHECKING:
    from collections.abc import Callable

    from fraud_service.training.history import History

Bootstrap = Annotated[str | None, typer.Option("--bootstrap", help="Kafka brokers; overrides FRAUD_BOOTSTRAP_SERVERS.")]
Maps = Annotated[list[str], typer.Option("--map", metavar="COLUMN=FIELD", help="Read a foreign column as a field.")]
Sets = Annotated[list[str], typer.Option("--set", metavar="FIELD=VALUE", help="Set a field the file does not have.")]
DATES: Final = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]
From = Annotated[datetime | None, typer.Option("--from", formats=DATES, help="First event time, UTC.")]
To = Annotated[datetime | None, typer.Option("--to", formats=DATES, help="End of event time, exclusive, UTC.")]
TrainFrom = Annotated[
    datetime | None, typer.Option("--train-from", formats=DATES, help="First event time fitted, UTC.")
]
TrainTo = Annotated[datetime | None, typer.Option("--train-to", formats=DATES, help="End of what is fitted, UTC.")]
Delay = Annotated[
    str, typer.Option("--label-delay", help="From transaction to label where the file does not say: 7d, 12h, 30m.")
]


def duration(text: str) -> int:
    """Read a duration such as `7d` or `500ms` as milliseconds.

    Raises
    ------
    ConfigurationError
        Names the text and the form it should have.
    """
    try:
        return to_ms(parse_duration(text))
    except ValueError as error:
        raise ConfigurationError(f"{text!r} is not a duration: {error}") from None


def instant_of(text: str, option: str) -> int:
    """Read a moment as epoch milliseconds: RFC 3339 with an offset, or how long ago, as in 12h.

    Raises
    ------
    ConfigurationError
        Names the option and the forms it may have.
    """
    if re.fullmatch(PATTERN, text):
        return int(time.time() * 1000) - duration(text)
    try:
        return instant(text, option)
    except InvalidEvent:
        raise ConfigurationError(
            f"{option} {text}: write a time as 2026-01-31T12:00:00Z, or how long ago, as in 90m, 12h or 7d"
        ) from None


def history_of(file: Path, maps: list[str], sets: list[str], start: datetime | None, end: datetime | None) -> History:
    """Open a file with the mapping of --map and --set. Raises `ConfigurationError` as `History.open` does."""
    from fraud_service.training.history import History

    return History.open(
        file,
        columns=_pairs("--map", maps),
        constants=_pairs("--set", sets),
        start=None if start is None else milliseconds(start),
        end=None if end is None else milliseconds(end),
    )


def _pairs(option: str, texts: list[str]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise ConfigurationError(f"{option} {text}: write NAME=VALUE")
    return dict(text.split("=", 1) for text in texts)


def milliseconds(moment: datetime) -> int:
    """Turn a date of an option, UTC, into epoch milliseconds."""
    return instant(f"{moment:%Y-%m-%dT%H:%M:%S}Z", "date")


def progress_bar() -> Progress:
    """Return a bar on stderr, so that stdout carries data alone."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def ticks(bar: Progress, total: int) -> Callable[[], None]:
    """Return what moves the bar by one; it is drawn once in a while, for it costs more than scoring."""
    task, ticks = bar.add_task("transactions", total=total), count(1)

    def tick() -> None:
        done = next(ticks)
        if done % 1000 == 0 or done == total:
            bar.update(task, completed=done)

    return tick


def read(path: Path, longest: int) -> bytes:
    """Read a file. Raises `ConfigurationError` when that cannot be done, or it has more than so many bytes."""
    try:
        with path.open("rb") as file:
            content = file.read(longest + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > longest:
        raise ConfigurationError(f"{path}: it has more than {longest} bytes")
    return content


def require_folder(path: Path | None) -> None:
    """Refuse, before hours of work, a file that could not be written."""
    if path is not None and not path.parent.is_dir():
        raise ConfigurationError(f"{path}: there is no folder {path.parent}")
