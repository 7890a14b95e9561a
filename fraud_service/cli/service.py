"""Commands that run a process of the service, print its settings, prepare its topics, or show all of it in a demo."""

from __future__ import annotations

import json
import signal
import sys
from typing import Annotated, Literal

import structlog
import typer

from fraud_service.cli import logging, options
from fraud_service.cli.output import exit_code, say, say_json, say_table
from fraud_service.config import settings
from fraud_service.domain.errors import FraudServiceError
from fraud_service.domain.time import DAY

log = structlog.get_logger(__name__)
PANEL = "Run the service"

app = typer.Typer()
topics_app = typer.Typer(no_args_is_help=True, help="List, create and check the topics of the service.")


@app.command(rich_help_panel=PANEL)
def score(bootstrap: options.Bootstrap = None) -> None:
    """Run a scorer: it scores transactions and writes alerts. Runs until SIGTERM."""
    _run("score", bootstrap)


@app.command(rich_help_panel=PANEL)
def learn(bootstrap: options.Bootstrap = None) -> None:
    """Run the learner: it trains the online model on labels. One process for all partitions. Runs until SIGTERM."""
    _run("learn", bootstrap)


@app.command(rich_help_panel=PANEL)
def tokenize(bootstrap: options.Bootstrap = None) -> None:
    """Run a tokenizer: it copies the raw topics to the inputs, with tokens for card numbers. Runs until SIGTERM."""
    _run("tokenize", bootstrap)


def _run(role: Literal["score", "learn", "tokenize"], bootstrap: str | None) -> None:
    logging.configure()
    try:
        chosen = settings.load(bootstrap_servers=bootstrap)
        logging.configure(chosen.log_level)  # before the import of Quix, so that warnings of its libraries are JSON too
        from fraud_service import service

        # SIGTERM before Quix has its own handler: end with 0.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        {"score": service.run_scorer, "learn": service.run_learner, "tokenize": service.run_tokenizer}[role](chosen)
    except FraudServiceError as error:
        log.error("service_ended", reason=str(error))  # noqa: TRY400 - the reason is a sentence, no traceback
        raise typer.Exit(exit_code(error)) from None


@app.command(rich_help_panel=PANEL)
def config() -> None:
    """Print all settings with their values as JSON. Passwords, keys and tokens of the Kafka options are masked."""
    from fraud_service.config.kafka_options import without_secrets

    chosen = settings.load().model_dump(mode="json")
    chosen["kafka_config"] = without_secrets(chosen["kafka_config"])
    say_json(json.dumps(chosen, indent=2))


@app.command(rich_help_panel=PANEL)
def demo(
    bootstrap: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Your Kafka. By default, an embedded broker.")
    ] = None,
    seconds: Annotated[int, typer.Option(min=5, help="How long the demo feeds transactions.")] = 60,
    rate: Annotated[float, typer.Option(min=10, help="Transactions a second, about.")] = 400,
    days: Annotated[int, typer.Option(min=10, help="Days of event time that pass during the demo.")] = 30,
    keep: Annotated[
        bool, typer.Option("--keep", help="Afterwards, leave broker, scorer and learner running until Ctrl-C.")
    ] = False,
) -> None:
    """Run scorer and learner on simulated transactions for a minute, then remove everything.

    Without --bootstrap, the demo starts noida-db as its broker: a closed-source binary that only the demo extra
    installs.
    """
    from fraud_service.demo import Plan, run

    plan = Plan(seconds=seconds, rate=rate, days=days, keep=keep)
    run(settings.load(bootstrap_servers=bootstrap), plan, own_kafka=bootstrap is not None)


@topics_app.command("list")
def list_topics(as_json: options.AsJson = False) -> None:
    """List the topics that the service needs, with partitions, retention and content."""
    from fraud_service.kafka import topics

    chosen = settings.load()
    specs = topics.topic_specs(chosen)
    if as_json:
        listed = [
            {
                "role": spec.role,
                "name": spec.name,
                "key": spec.key,
                "partitions": spec.partitions,
                "replication": chosen.replication_factor,
                **spec.config(),
            }
            for spec in specs
        ]
        say_json(json.dumps(listed, indent=2))
        return
    rows = [
        (
            spec.role,
            spec.name,
            f"{spec.partitions} × {chosen.replication_factor}",
            spec.cleanup,
            "for ever" if spec.retention_ms < 0 else f"{spec.retention_ms // DAY} days",
            spec.key,
            spec.content,
        )
        for spec in specs
    ]
    say_table(("role", "topic", "partitions", "cleanup", "kept", "key", "content"), rows)


@topics_app.command()
def create(bootstrap: options.Bootstrap = None) -> None:
    """Create the topics that are missing, changelogs included."""
    from fraud_service.kafka import clients, topics

    chosen = options.connect(bootstrap)
    created = topics.create(clients.admin(chosen), topics.topic_specs(chosen), chosen.replication_factor)
    say(*([f"created {name}" for name in created] or ["nothing to create"]))


@topics_app.command()
def check(bootstrap: options.Bootstrap = None) -> None:
    """Compare the topics of the cluster with what the service needs. Exits 1 when they differ."""
    from fraud_service.kafka import clients, topics

    chosen = options.connect(bootstrap)
    admin, specs = clients.admin(chosen), topics.topic_specs(chosen)
    found = topics.findings(admin, specs, chosen.replication_factor)
    say(*(found or ["all topics are as they should be"]))
    say(*(f"note: {note}" for note in topics.notes(admin, specs, chosen.replication_factor)))
    if found:
        raise typer.Exit(1)
