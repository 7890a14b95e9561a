"""All settings, read once at the start from the environment (`FRAUD_…`). Only `cli` reads them.

An unknown `FRAUD_…` name stops the start and suggests the nearest known one. Otherwise a misspelt setting would keep
its default unnoticed.
"""

from __future__ import annotations

import os
import re
from datetime import timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError
from pydantic_settings import SettingsError

from fraud_service.config.duration import format_duration
from fraud_service.config.kafka_options import require_allowed
from fraud_service.config.setting_groups import (
    PATTERNS,
    PREFIX,
    DecisionSettings,
    HttpSettings,
    KafkaSettings,
    KeySettings,
    LearningSettings,
    ProcessSettings,
    TopicNames,
)
from fraud_service.domain.errors import ConfigurationError
from fraud_service.security.keys import read_secret_files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Self

__all__ = ["DEFAULT_TEXTS", "PREFIX", "Settings", "TopicNames", "as_text", "load", "variables"]

TEST_PREFIX: Final = "FRAUD_TEST_"  # read by the test suite, not by the service
DEFAULT_TEXTS: Final = {  # how the docs show defaults that are computed at the start
    "instance_id": "host name",
    "active_signing_key": "last",
    "active_tokenizer_key": "last",
    "model_dir": "shipped",
}

PYTHON_DURATION: Final = re.compile(r"datetime\.timedelta\((\w+)=(\d+)\)")  # in messages of pydantic
# What to write in place of a value, by the kind of error that pydantic reports; braces hold the bound it names.
CORRECTIONS: Final = {
    "bool_parsing": "write true or false",
    "dict_type": 'write an object, {{"name": "text"}}',
    "extra_forbidden": "there is no such topic",
    "float_parsing": "write a number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_from_float": "write a whole number",
    "int_parsing": "write a whole number",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "write {expected}",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} character",
    "string_type": "write text in quotes",
}
FALSE_TEXTS: Final = frozenset({"false", "f", "0"})  # what librdkafka accepts as false
# librdkafka options, with the values that turn off the verification of brokers or of tokens.
INSECURE_KAFKA_OPTIONS: Final = {
    "enable.ssl.certificate.verification": FALSE_TEXTS,
    "ssl.endpoint.identification.algorithm": frozenset({"none"}),
    "enable.sasl.oauthbearer.unsecure.jwt": frozenset({"true", "t", "1"}),
}


class Settings(HttpSettings, KeySettings, LearningSettings, DecisionSettings, ProcessSettings, KafkaSettings):
    """All settings of scorer, learner, tokenizer and tools. Pydantic lists the fields of the last base first."""

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy with some values replaced. Pydantic would accept and ignore a name that is not a setting."""
        if unknown := set(update or ()) - set(type(self).model_fields):
            raise ValueError(f"not settings: {', '.join(sorted(unknown))}")
        return super().model_copy(update=update, deep=deep)


def load(**overrides: object) -> Settings:
    """Read the settings from the environment. Command-line options override them.

    Raises `ConfigurationError`, which names each invalid setting, its value, and the fix.
    """
    _reject_unknown_names()
    try:
        settings = Settings(**{name: value for name, value in overrides.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        raise ConfigurationError("; ".join(map(_message, error.errors()))) from None
    except SettingsError as error:  # its message names the field in quotes; the value may be secret
        field = str(error).split('"')[1]
        raise ConfigurationError(f'{PREFIX}{field.upper()} is not JSON: write an object, {{"name": "text"}}') from None
    secrets = {} if settings.kafka_config_dir is None else _read_secrets(settings.kafka_config_dir)
    options = settings.kafka_config | secrets
    require_allowed(options)
    if not settings.allow_insecure_kafka:
        _require_verification(options)
    return settings.model_copy(update={"kafka_config": options})


def _require_verification(options: dict[str, str]) -> None:
    for name, insecure in INSECURE_KAFKA_OPTIONS.items():
        value = options.get(name, "").strip().lower()
        if value in insecure:
            raise ConfigurationError(
                f"{PREFIX}KAFKA_CONFIG has {name}={value}: anyone on the network could pose as a broker. Remove it and "
                f"name your certificate authority in ssl.ca.location. For tests without real data, set "
                f"{PREFIX}ALLOW_INSECURE_KAFKA=true"
            )


def _read_secrets(folder: Path) -> dict[str, str]:
    try:
        return {name.encode().decode(): content.decode() for name, content in read_secret_files(folder).items()}
    except (OSError, UnicodeError) as error:
        problem = (error.strerror or "it cannot be read") if isinstance(error, OSError) else "it has other bytes"
        raise ConfigurationError(
            f"{PREFIX}KAFKA_CONFIG_DIR={folder}: {problem}: mount a folder of readable UTF-8 text files"
        ) from None


def variables() -> dict[str, tuple[str, str]]:
    """Return every environment variable with its default and its meaning."""
    table = {}
    for name, field in Settings.model_fields.items():
        if name == "topics":
            for topic, inner in TopicNames.model_fields.items():
                table[f"{PREFIX}TOPICS__{topic.upper()}"] = (str(inner.default), inner.description or "")
            continue
        default = DEFAULT_TEXTS.get(name) or as_text(field.default)
        table[f"{PREFIX}{name.upper()}"] = (default, field.description or "")
    return table


def as_text(value: object) -> str:
    """Return a value as an environment variable contains it."""
    if isinstance(value, timedelta):
        return format_duration(value)
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _reject_unknown_names() -> None:
    known = {*variables(), f"{PREFIX}TOPICS"}
    for name, value in os.environ.items():
        if name.startswith(PREFIX) and not name.startswith(TEST_PREFIX) and name.upper() not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "`fraud-service config` lists all settings"
            raise ConfigurationError(f"{name} is not a setting: {hint}")
        if name.startswith(PREFIX) and not _is_text(value):
            raise ConfigurationError(f"{name} is not UTF-8: write its value again")


def _is_text(value: str) -> bool:
    """Return whether a variable is UTF-8. Python reads other bytes as surrogates, and librdkafka crashes on these."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _message(error: object) -> str:
    details = dict(error)  # type: ignore[call-overload]
    reason = _correction(details)
    if not details["loc"]:
        return reason
    name = PREFIX + "__".join(str(part) for part in details["loc"]).upper()
    if details["loc"][0] == "kafka_config":
        return f"{name}: {reason}"  # the value may be a password
    value = details["input"]
    if isinstance(value, timedelta):  # out of bounds: show the text that the operator wrote
        value = os.environ.get(name, format_duration(value))
    return f"{name}={value!r}: {reason}"


def _correction(details: Mapping[str, Any]) -> str:
    """Return in words what to write instead of a value."""
    context = details.get("ctx", {})
    if details["type"] == "string_pattern_mismatch":
        return f"use only {PATTERNS[context['pattern']]}"
    known = CORRECTIONS.get(details["type"])
    if known is None:
        return str(details["msg"]).removeprefix("Value error, ")
    bounds = {name: as_text(bound) for name, bound in context.items()}
    return PYTHON_DURATION.sub(
        lambda bound: format_duration(timedelta(**{bound[1]: int(bound[2])})), known.format(**bounds)
    )
