"""Metrics of the tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fraud_service.runtime.metrics.stream import StreamMetrics, show_every_series

if TYPE_CHECKING:
    from fraud_service.runtime.metrics.stream import Metrics


class TokenizerMetrics(StreamMetrics):
    """Metrics of the tokenizer."""

    ROLE = "tokenizer"

    def __init__(self, metrics: Metrics) -> None:
        super().__init__(metrics)
        self.messages = metrics.counter(
            "fraud_tokenized", "Messages forwarded, by kind and whether anything became a token.", "kind", "replaced"
        )
        show_every_series(self.messages, ("transaction", "label"), ("true", "false"))

    def count_message(self, *, is_label: bool, is_changed: bool) -> None:
        """Count one message."""
        self.messages.labels("label" if is_label else "transaction", str(is_changed).lower()).inc()
