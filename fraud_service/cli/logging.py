"""Structured logs on stderr: JSON for processes, text for commands. Never payloads or card numbers."""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

import structlog

from fraud_service.domain.text import visible
from fraud_service.security.card_data import mask_text

CLIENT_LOG: Final = "librdkafka"  # the logger of all clients, see `fraud_service.kafka.clients`


def configure(level: str = "info") -> None:
    """Log to stderr as JSON, records of libraries included, with card data masked."""
    shared: list[structlog.types.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.EventRenamer("message"),
                _scrubbed,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger(CLIENT_LOG).setLevel(logging.NOTSET)
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        cache_logger_on_first_use=True,
    )


def configure_for_people() -> None:
    """Log to stderr as text, with card data masked. Stdout carries the output of the command."""
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            structlog.processors.format_exc_info,
            _scrubbed,
            _visible,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_ForPeople())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger(CLIENT_LOG).setLevel(logging.CRITICAL)  # the error of the command says the same in a sentence


class _ForPeople(logging.Formatter):
    """Format records of libraries as text, like our own."""

    def format(self, record: logging.LogRecord) -> str:
        return _lines(mask_text(super().format(record)))


def _visible(_logger: object, _method: str, event: Any) -> Any:
    """Escape control characters. Only a traceback has more than one line."""
    return {
        visible(name): _lines(value) if name == "exception" else visible(value) if isinstance(value, str) else value
        for name, value in event.items()
    }


def _lines(text: str) -> str:
    return "\n".join(map(visible, text.split("\n")))


def _scrubbed(_logger: object, _method: str, event: Any) -> Any:
    """Mask card data in a record, traceback included."""
    return _masked(event)


def _masked(value: Any) -> Any:
    """Mask values before they become JSON: masking a number in a JSON line would break it."""
    if isinstance(value, dict):
        return {mask_text(str(name)): _masked(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(inner) for inner in value]
    text = value if isinstance(value, str) else repr(value)
    scrubbed = mask_text(text)
    is_json = value is None or isinstance(value, str | int | float)
    return value if is_json and scrubbed == text else scrubbed
