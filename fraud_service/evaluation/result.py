"""The result of a run as JSON: its parameters and metrics. Another run can be compared with it."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from fraud_service.domain.codec import UNREADABLE
from fraud_service.domain.errors import ConfigurationError
from fraud_service.evaluation.metrics import Figures

FORMAT: Final = 1


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters and metrics of a run.

    `weights`: weight of the online model by event time (epoch milliseconds). `features`: mean absolute contribution to
    flagged transactions, in logits. `models`: versions that scored. `refits`: outcome of each re-fit.
    """

    format: int = FORMAT
    run: dict[str, Any]
    figures: Figures
    weights: list[tuple[int, float]]
    features: dict[str, float]
    models: list[str]
    refits: list[dict[str, Any]]


def encode_result(result: Result) -> bytes:
    """Encode as indented JSON; equal results give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n"


def decode_result(data: bytes, name: str) -> Result:
    """Decode the content of the file `name`. Raises `ConfigurationError` if it is not a result."""
    try:
        result = msgspec.json.decode(data, type=Result)
    except UNREADABLE as error:
        raise ConfigurationError(f"{name}: not the --json of a backtest: {error}") from None
    if result.format != FORMAT:
        raise ConfigurationError(
            f"{name}: has format {result.format}, this version reads {FORMAT}: run the backtest again"
        )
    return result
