"""The result of a run: what was run and how good it was, as JSON that another run can be compared with."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from fraud_service.domain.codec import UNREADABLE
from fraud_service.domain.errors import ConfigurationError
from fraud_service.evaluation.metrics import Figures

FORMAT: Final = 1


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A run.

    `run` says what was run. `weights` are the weights of the online model, by event time in epoch milliseconds;
    `features` the mean absolute contributions to flagged transactions, in logits; `models` the versions that scored;
    `refits` what each re-fit found.
    """

    format: int = FORMAT
    run: dict[str, Any]
    figures: Figures
    weights: list[tuple[int, float]]
    features: dict[str, float]
    models: list[str]
    refits: list[dict[str, Any]]


def encode_result(result: Result) -> bytes:
    """Write a result as indented JSON; equal results give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n"


def decode_result(data: bytes, name: str) -> Result:
    """Read a result back. Raises `ConfigurationError` naming the file when it is none."""
    try:
        result = msgspec.json.decode(data, type=Result)
    except UNREADABLE as error:
        raise ConfigurationError(f"{name}: not the --json of a backtest: {error}") from None
    if result.format != FORMAT:
        raise ConfigurationError(f"{name}: has format {result.format}, this version reads {FORMAT}: run it again")
    return result
