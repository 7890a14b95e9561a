"""Copy raw messages to the inputs, with tokens for card numbers. Wraps `Tokenizer.tokenize`.

The tokenizer is the only process that reads card numbers. It runs inside the card-data environment, without
state.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from fraud_service.domain.errors import ConfigurationError, InvalidEvent
from fraud_service.kafka.dead_letters import dead_letter
from fraud_service.kafka.messages import Output, require_content
from fraud_service.runtime.stream import StreamSpec
from fraud_service.security.keys import read_keys
from fraud_service.security.tokens import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fraud_service.config.settings import Settings
    from fraud_service.kafka.messages import Received
    from fraud_service.runtime.metrics.stream import TokenizerMetrics
    from fraud_service.runtime.stream import StateAccessor

KEY_NAME: Final = re.compile("[a-z][a-z0-9]{0,11}")  # short: twelve digits in a row are not a card number


def tokenizer(settings: Settings) -> Tokenizer:
    """Return the tokenizer with its keys. Raises `ConfigurationError`, whose message never contains a key."""
    if settings.tokenizer_key_dir is None:
        raise ConfigurationError("there is no key to make tokens with: set FRAUD_TOKENIZER_KEY_DIR")
    secrets, active = read_keys(settings.tokenizer_key_dir, "TOKENIZER", settings.active_tokenizer_key)
    for name in secrets:
        if KEY_NAME.fullmatch(name) is None:
            raise ConfigurationError(
                f"FRAUD_TOKENIZER_KEY_DIR={settings.tokenizer_key_dir}: the key {name} needs another name, "
                "because tokens contain it: at most twelve lower-case letters and digits, a letter first"
            )
    return Tokenizer(secrets, active)


def stream_spec(settings: Settings) -> StreamSpec:
    """Return what the tokenizer reads and writes."""
    names = settings.topics
    return StreamSpec(
        group=settings.tokenizer_group,
        inputs=(names.raw_labels, names.raw_transactions),
        outputs={"transactions": names.transactions, "labels": names.labels, "dead_letters": names.dead_letters},
        guarantee="exactly-once",
        commit_interval_s=settings.commit_interval.total_seconds(),
    )


class TokenizerProcessor:
    """Tokenize a batch; a `BatchProcessor`.

    It publishes a label once per key: its transaction may have been tokenized before a key rotation.
    """

    def __init__(
        self,
        settings: Settings,
        made: Tokenizer,
        metrics: TokenizerMetrics,
        heartbeat: Callable[[], None] = lambda: None,
    ) -> None:
        self._labels = settings.topics.raw_labels
        self._tokenizer = made
        self._metrics = metrics
        self._heartbeat = heartbeat

    def __call__(self, batch: Sequence[Received], state_of: StateAccessor) -> list[list[Output]]:  # noqa: ARG002 - part of the protocol
        """Process a batch; return the outputs of each message."""
        self._metrics.lag_tracker.record_received(min(message.timestamp for message in batch) / 1000)
        return [self._process(message) for message in batch]

    def _process(self, message: Received) -> list[Output]:
        self._heartbeat()
        is_label = message.topic == self._labels
        try:
            require_content(message)
            made = self._under_each_key(message) if is_label else [self._tokenizer.tokenize(message.value, message.key)]
        except InvalidEvent as error:
            self._metrics.dead_letters.labels(error.reason).inc()
            return [dead_letter(self._without_key(message), error)]
        is_changed = made[0] != (message.value, message.key)
        self._metrics.messages.labels("label" if is_label else "transaction", str(is_changed).lower()).inc()
        return [Output("labels" if is_label else "transactions", key, value) for value, key in made]

    def _without_key(self, message: Received) -> Received:
        """Replace the key by a token: the key may contain a card number in a form that no check recognises."""
        if message.key is None:
            return message
        return message._replace(key=self._tokenizer.card_token(message.key, self._tokenizer.active))

    def _under_each_key(self, message: Received) -> list[tuple[bytes | None, bytes | None]]:
        names = [self._tokenizer.active, *(name for name in self._tokenizer.keys if name != self._tokenizer.active)]
        made = self._tokenizer.tokenize_under(names, message.value, message.key)
        return [*dict.fromkeys(made)]  # a message that already has a token gives the same result for each key
