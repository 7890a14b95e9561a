"""Define the options that several commands share, and parse their values."""

from __future__ import annotations

import re
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fraud_service.config import settings
from fraud_service.config.duration import PATTERN, parse_duration, to_ms
from fraud_service.domain.errors import ConfigurationError, InvalidEvent
from fraud_service.domain.time import instant

if TYPE_CHECKING:
    from fraud_service.config.settings import Settings

MAX_FILE_BYTES: Final = 1 << 28  # of a file that a command reads whole
PROGRESS_STEP_S: Final = 0.1
DATES: Final = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]

Bootstrap = Annotated[
    str | None,
    typer.Option("--bootstrap", metavar="HOST:PORT", help="Kafka brokers. Overrides FRAUD_BOOTSTRAP_SERVERS."),
]
Yes = Annotated[bool, typer.Option("--yes", help="Apply the changes. Without it, the command only lists them.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
From = Annotated[
    datetime | None,
    typer.Option("--from", formats=DATES, metavar="DATE", help="Start of event time, UTC, as 2026-01-31."),
]
To = Annotated[
    datetime | None,
    typer.Option("--to", formats=DATES, metavar="DATE", help="End of event time, exclusive, UTC, as 2026-01-31."),
]
TrainFrom = Annotated[
    datetime | None,
    typer.Option("--train-from", formats=DATES, metavar="DATE", help="Start of the training window, UTC."),
]
TrainTo = Annotated[
    datetime | None,
    typer.Option("--train-to", formats=DATES, metavar="DATE", help="End of the training window, exclusive, UTC."),
]
LabelledFile = Annotated[Path, typer.Argument(help="Labelled transactions: .parquet, .csv or .jsonl.")]
ModelFolder = Annotated[Path, typer.Argument(help="Folder of a model, as `train --out` wrote it.")]
ResultFile = Annotated[Path | None, typer.Option("--json", help="Write all results to this JSON file.")]
LabelDelay = Annotated[
    str,
    typer.Option(
        metavar="DURATION",
        help="Time from transaction to label, for rows that do not say when their label became known.",
    ),
]


def connect(bootstrap: str | None, *, needs_keys: bool = False, **overrides: object) -> Settings:
    """Load the settings, and check that the brokers answer. With `needs_keys`, check the signing keys first."""
    from fraud_service.config.keyring import load_keyring
    from fraud_service.kafka.clients import require_connection

    chosen = settings.load(bootstrap_servers=bootstrap, **overrides)
    if needs_keys:
        load_keyring(chosen)
    require_connection(chosen)
    return chosen


def duration_ms(text: str, option: str, least: str = "0s") -> int:
    """Read a duration such as `7d` or `500ms` as milliseconds."""
    try:
        duration = parse_duration(text)
    except ValueError as error:
        raise ConfigurationError(f"{option} {text!r} is not a duration: {error}") from None
    if duration < parse_duration(least):
        raise ConfigurationError(f"{option} {text}: must be at least {least}")
    return to_ms(duration)


def instant_ms(text: str, option: str) -> int:
    """Read an instant as epoch milliseconds: RFC 3339 with an offset, or a duration before now, as in 12h."""
    is_duration = re.fullmatch(PATTERN, text) is not None
    try:
        return instant(int(time.time() * 1000) - duration_ms(text, option) if is_duration else text, option)
    except InvalidEvent as error:
        problem = error.detail.partition(":")[0]
        raise ConfigurationError(
            f"{option} {text}: {problem}; write a time such as 2026-01-31T12:00:00Z, or how long ago: 90m, 12h or 7d"
        ) from None


def date_ms(date: datetime | None) -> int | None:
    """Return a date of an option, UTC, in epoch milliseconds."""
    if date is None:
        return None
    try:
        return instant(f"{date:%Y-%m-%dT%H:%M:%S}Z", f"{date:%Y-%m-%d}")
    except InvalidEvent as error:
        raise ConfigurationError(f"the date {error.detail}") from None


class ProgressCounter:
    """A progress bar on stderr, if that is a terminal and there is work to do. A context manager.

    A total of offsets includes transaction markers and gaps, which no reader counts. So the bar jumps to its end when
    the work is done.
    """

    def __init__(self, description: str, total: int | None = None) -> None:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        console = Console(stderr=True)
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal or total == 0)
        self._task = self._bar.add_task(description, total=total)
        self._pending, self._due = 0, 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._bar.advance(self._task, self._pending)
        task = self._bar.tasks[self._task]
        if kind is None:
            end = max(task.total or 0, task.completed)
            self._bar.update(self._task, total=end, completed=end)
        self._bar.stop()

    def set_total(self, total: int) -> None:
        """Set the number of items."""
        self._bar.update(self._task, total=total)

    def advance(self, count: int = 1) -> None:
        """Count further items as done. The bar moves ten times a second: moving it costs more than scoring."""
        self._pending += count
        if time.monotonic() >= self._due:
            self._bar.advance(self._task, self._pending)
            self._pending, self._due = 0, time.monotonic() + PROGRESS_STEP_S


def read_file(path: Path, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Read a file of at most `max_bytes`."""
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > max_bytes:
        raise ConfigurationError(f"{path}: it has more than {max_bytes} bytes")
    return content


def require_output(path: Path | None, source: Path | None = None) -> None:
    """Raise `ConfigurationError` before hours of work if an output file cannot be written, or would replace `source`.

    `source` is the file that the command reads, or the folder of its parts.
    """
    if path is None:
        return
    if not path.parent.is_dir():
        raise ConfigurationError(f"{path}: there is no folder {path.parent}")
    if path.is_dir():
        raise ConfigurationError(f"{path}: this is a folder; name a file")
    if source is not None and source.resolve() in (path.resolve(), *path.resolve().parents):
        raise ConfigurationError(f"{path}: the command reads {source}; name an output elsewhere")
