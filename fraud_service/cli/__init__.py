"""The command line. It writes data to stdout and logs to stderr.

Exit codes: 0, 1 (failed), 2 (wrong usage), or 3 (`feed` alone: sent, but not processed).
"""

from __future__ import annotations

import gc
import resource
import sys
from contextlib import suppress
from importlib import metadata
from typing import Annotated, Final

import structlog
import typer

from fraud_service.cli import admin, data, inspection, logging, models, service, verify
from fraud_service.cli.output import exit_code, say
from fraud_service.domain.errors import FraudServiceError
from fraud_service.security.card_data import mask_text

log = structlog.get_logger(__name__)

app = typer.Typer(no_args_is_help=True, add_completion=False)
app.add_typer(service.app)
app.add_typer(service.topics_app, name="topics", rich_help_panel=service.PANEL)
app.add_typer(data.app)
app.add_typer(inspection.app)
app.add_typer(models.app)
app.add_typer(verify.app)
app.add_typer(verify.snapshots_app, name="snapshots", rich_help_panel=verify.PANEL)
app.add_typer(admin.letters_app, name="dead-letters", rich_help_panel=admin.PANEL)
app.add_typer(admin.app)

# Reference counting frees what a transaction allocates. The cycle collector would cost a tenth of the time at its
# default threshold of 700 objects, and find nothing.
GARBAGE_THRESHOLD: Final = 50_000
# RocksDB keeps all files of the state open: hundreds per partition after a recovery. Shells often allow 1,024 in all.
OPEN_FILES: Final = 65_536


def say_version(asked: bool) -> None:
    """Print the versions of the service, Python and the Kafka client, and end."""
    if asked:
        from fraud_service.kafka.clients import librdkafka_version

        python, client = sys.version.split()[0], librdkafka_version()
        say(f"fraud-service {metadata.version('fraud-service')} (Python {python}, librdkafka {client})")
        raise typer.Exit


@app.callback()
def begin(
    _version: Annotated[
        bool, typer.Option("--version", callback=say_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Real-time fraud detection on Kafka."""
    logging.configure_for_people()


def main() -> None:
    """Run the command line. Print an expected error as one line, and log any other; both end with a code above 0."""
    gc.set_threshold(GARBAGE_THRESHOLD)
    raise_open_file_limit()
    try:
        app()
    except FraudServiceError as error:
        say(mask_text(str(error)), err=True)
        sys.exit(exit_code(error))
    except OSError as error:
        if error.filename is None:
            log.exception("unexpected_error")
        else:
            say(f"{error.filename}: {error.strerror}", err=True)
        sys.exit(1)
    except Exception as error:
        from fraud_service.kafka.clients import kafka_reason

        reason = kafka_reason(error)
        if reason is None:
            log.exception("unexpected_error")
        else:
            say(f"Kafka reported an error: {reason}. Check the brokers, and the rights of this user", err=True)
        sys.exit(1)


def raise_open_file_limit() -> None:
    """Raise the limit of open files to `OPEN_FILES`, or to what the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        with suppress(OSError, ValueError):  # some systems refuse their own hard limit: continue with the soft one
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
