"""The command line: one verb a command, data on stdout, logs on stderr, exit 0, 1 (failed) or 2 (wrong usage)."""

from __future__ import annotations

import gc
import resource
import sys
from contextlib import suppress
from typing import Final

import structlog
import typer

from fraud_service.cli import audit, logging, models, recovery, replay, service, supply
from fraud_service.cli.output import say
from fraud_service.domain.errors import ConfigurationError, FraudServiceError
from fraud_service.security.card_data import mask

log = structlog.get_logger(__name__)

app = typer.Typer(no_args_is_help=True, add_completion=False)
app.add_typer(service.app)
app.add_typer(models.app)
app.add_typer(replay.app)
app.add_typer(recovery.app)
app.add_typer(audit.app)
app.add_typer(supply.app)

# What a transaction makes is freed as soon as nobody holds it. To look for cycles after every 700 new objects, as
# Python does by default, costs a tenth of the work and finds nothing.
GARBAGE_THRESHOLD: Final = 50_000
# RocksDB holds every file of the state open: hundreds a partition after a recovery, where a shell allows 1,024 in all.
OPEN_FILES: Final = 65_536


@app.callback()
def begin() -> None:
    """Real-time fraud detection on Kafka."""
    logging.configure_for_people()


def main() -> None:
    """Run the command line. An error of ours is printed as one line, any other is logged; the exit code is not 0."""
    gc.set_threshold(GARBAGE_THRESHOLD)
    allow_files()
    try:
        app()
    except FraudServiceError as error:
        say(mask(f"{type(error).__name__}: {error}"), err=True)
        sys.exit(2 if isinstance(error, ConfigurationError) else 1)
    except Exception:
        log.exception("unexpected_error")
        sys.exit(1)


def allow_files() -> None:
    """Allow this process as many open files as the system lets it, up to `OPEN_FILES`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):  # some systems promise more than they give; no command ends over that
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
