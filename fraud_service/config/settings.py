"""All settings, read once at the start from the environment (`FRAUD_…`); only `cli` reads them.

A name that starts with `FRAUD_` and means nothing here stops the start, with the nearest name that does: a misspelt
setting that is silently ignored is how services run for months with the defaults.
"""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from fraud_service.config.duration import Duration, format_duration
from fraud_service.domain.errors import ConfigurationError
from fraud_service.security.keys import read_secret_files
from fraud_service.security.label_rate_limit import MAX_PER_CARD

PREFIX: Final = "FRAUD_"
TEST_PREFIX: Final = "FRAUD_TEST_"  # read by the test suite, not by the service
DEFAULT_TEXTS: Final = {  # defaults that are found at the start
    "instance_id": "host name",
    "kafka_config": "{}",
    "kafka_config_dir": "none",
    "signing_key_dir": "none",
    "active_signing_key": "last",
    "deployment": "none",
    "tokenizer_key_dir": "none",
    "active_tokenizer_key": "last",
    "http_tls_cert": "none",
    "http_tls_key": "none",
    "model_dir": "shipped",
}

NO: Final = frozenset({"false", "f", "0"})  # as librdkafka reads it
# Options of librdkafka with the values that let anyone be the broker, or let anyone in.
INSECURE_KAFKA_OPTIONS: Final = {
    "enable.ssl.certificate.verification": NO,
    "ssl.endpoint.identification.algorithm": frozenset({"none"}),
    "enable.sasl.oauthbearer.unsecure.jwt": frozenset({"true", "t", "1"}),
}

# No setting needs more than a century, and an event time far beyond it is not an instant any more.
MAX_DURATION: Final = timedelta(days=36_500)


def _named(value: object) -> object:
    """Refuse an empty path: it would be the working directory, whatever lies there."""
    if value == "":
        raise ValueError("is empty: name a path, or remove the variable")
    return value


Share = Annotated[float, Field(ge=0, le=1)]
TopicName = Annotated[str, Field(min_length=1, max_length=249, pattern=r"^[A-Za-z0-9._-]+$")]
GroupName = Annotated[str, Field(max_length=200, pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$")]  # part of topics and paths
NamedPath = Annotated[Path, BeforeValidator(_named)]


class TopicNames(BaseModel):
    """Names of the topics. Part of the identity of the state: to change one is to migrate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    transactions: TopicName = Field(default="payments.transactions.v1", description="input: card payments")
    labels: TopicName = Field(default="payments.fraud-labels.v1", description="input: what became known of them")
    scores: TopicName = Field(default="fraud.scores.v1", description="every decision: the audit log")
    alerts: TopicName = Field(default="fraud.alerts.v1", description="flagged transactions, with reasons")
    labelled: TopicName = Field(default="fraud.labelled.v1", description="labelled examples: the training set")
    snapshots: TopicName = Field(default="fraud.snapshots.v1", description="what labels have taught, by boundary")
    models: TopicName = Field(default="fraud.models.v1", description="pretrained models promoted by a re-fit")
    risk: TopicName = Field(default="fraud.risk.v1", description="risk of merchants and cards")
    raw_transactions: TopicName = Field(
        default="payments.raw-transactions.v1", description="input of `tokenize`: payments that may have card numbers"
    )
    raw_labels: TopicName = Field(
        default="payments.raw-fraud-labels.v1", description="input of `tokenize`: labels that may have card numbers"
    )
    dead_letters: TopicName = Field(default="fraud.dead-letters.v1", description="what could not be read, and why")


class Settings(BaseSettings):
    """Settings of scorer, learner and tools."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid", allow_inf_nan=False
    )

    bootstrap_servers: str = Field("localhost:9092", min_length=1, description="Kafka brokers, host:port,…")
    kafka_config: dict[str, str] = Field(
        {}, description="further librdkafka options for every client, as a JSON object"
    )
    kafka_config_dir: NamedPath | None = Field(
        None, description="folder of further librdkafka options, secret ones: a file each, named as the option"
    )
    signing_key_dir: NamedPath | None = Field(
        None,
        description="folder of the keys that sign models, snapshots and risk: a file each, its name the key's",
    )
    active_signing_key: str | None = Field(
        None, min_length=1, description="name of the key that signs, the others only verify; the last by name if absent"
    )
    deployment: str | None = Field(
        None,
        pattern=r"^[!-~]{1,200}$",
        description="name of this deployment, as in production/fraud: part of every signature, so that records of "
        "another deployment are refused; required with FRAUD_SIGNING_KEY_DIR",
    )
    allow_unsigned: bool = Field(
        default=False,
        description="whether to start without FRAUD_SIGNING_KEY_DIR: then anyone who may write models, snapshots or "
        "risk can change scores",
    )
    tokenizer_key_dir: NamedPath | None = Field(
        None,
        description="folder of the keys of `fraud-service tokenize`: a file each, its name the key's; nowhere else",
    )
    active_tokenizer_key: str | None = Field(
        None, min_length=1, description="name of the key that makes new tokens; the last by name if absent"
    )
    allow_insecure_kafka: bool = Field(
        default=False,
        description="whether FRAUD_KAFKA_CONFIG may switch the verification of brokers off: never with real data",
    )
    topics: TopicNames = Field(TopicNames(), description="topic names, FRAUD_TOPICS__SCORES and so on")
    partitions: int = Field(4, ge=1, le=10_000, description="partitions of the topics that `topics create` makes")
    replication_factor: int = Field(1, ge=1, le=10, description="replicas of the topics that `topics create` makes")

    scorer_group: GroupName = Field("fraud-scorer", description="consumer group of the scorers")
    learner_group: GroupName = Field("fraud-learner", description="consumer group of the learner")
    tokenizer_group: GroupName = Field("fraud-tokenizer", description="consumer group of the tokenizer")
    instance_id: str = Field(
        default_factory=socket.gethostname,
        min_length=1,
        description="name of this process that a restart keeps: it becomes the group instance and transactional id",
    )
    state_dir: NamedPath = Field(Path("state"), description="folder of the local state; one volume a pod")
    processing_guarantee: Literal["exactly-once", "at-least-once"] = Field(
        "exactly-once", description="of the scorer; the learner is always exactly-once"
    )
    session_timeout: Duration = Field(
        timedelta(seconds=45),
        ge=timedelta(seconds=6),
        le=timedelta(minutes=30),
        description="a process without heartbeat for this long loses its partitions; a restart within it keeps them",
    )
    commit_interval: Duration = Field(
        timedelta(milliseconds=100),
        ge=timedelta(0),
        le=timedelta(minutes=1),
        description="longest time between two checkpoints of the scorer; exactly-once, a scorer with an empty queue "
        "commits earlier",
    )

    model_dir: NamedPath | None = Field(None, description="folder of the pretrained model; by default the shipped one")
    review_threshold: Share = Field(0.3, description="score from which a transaction is flagged for review")
    decline_threshold: Share = Field(0.9, description="score from which the advice is to decline")
    max_clock_skew: Duration = Field(
        timedelta(minutes=5),
        ge=timedelta(0),
        le=MAX_DURATION,
        description="how far an event time may be ahead of the broker's timestamp of its message",
    )

    reject_pan: bool = Field(
        default=True,
        description="whether a message with what looks like a card number is a dead letter; false where ids are long "
        "numbers. Security codes, PINs and track data are always refused",
    )

    snapshot_interval: Duration = Field(
        timedelta(hours=1),
        ge=timedelta(minutes=1),
        le=MAX_DURATION,
        description="event time between two snapshots",
    )
    snapshot_activation_delay: Duration = Field(
        timedelta(minutes=15),
        ge=timedelta(0),
        le=MAX_DURATION,
        description="event time from the boundary of a snapshot until scorers use it",
    )
    label_maturity: Duration = Field(
        timedelta(days=7),
        ge=timedelta(seconds=1),
        le=MAX_DURATION,
        description="event time after which a transaction without a label counts as legitimate",
    )
    label_retention: Duration = Field(
        timedelta(days=60),
        gt=timedelta(0),
        le=MAX_DURATION,
        description="event time for which the learner keeps the features of a transaction, for labels that come late",
    )
    negative_sample_rate: float = Field(
        0.25,
        gt=0,
        le=1,
        description="share taught of the legitimate examples scored below 0.01; their weight makes up for the others",
    )
    cards_per_partition: int = Field(
        500_000,
        ge=0,
        description="cards in the state of one partition above which FraudManyCards fires, 0 for no limit; the scorer "
        "still scores cards above it",
    )
    label_rate_limit_per_source: int = Field(
        100_000,
        ge=0,
        description="labels an hour that the learner takes of one source in one partition, 0 for any number; those "
        "beyond it are dead letters. Some ten times the busiest hour is a good limit",
    )
    label_rate_limit_per_card: int = Field(
        1_000,
        ge=0,
        le=MAX_PER_CARD,
        description="labels an hour that the learner takes of one card, 0 for no limit. Cards share 4,096 "
        "counters: a limit below a hundred can refuse labels of cards that had few",
    )

    # Probes and Prometheus come from outside the pod.
    http_host: str = Field("0.0.0.0", description="address of metrics and health checks")  # noqa: S104  # nosec B104
    http_port: int = Field(8000, ge=0, le=65_535, description="port of metrics and health checks; 0 takes a free one")
    http_tls_cert: NamedPath | None = Field(
        None,
        description="PEM file with the certificate of metrics and health checks and its chain, read anew when it "
        "changes; none: plain HTTP",
    )
    http_tls_key: NamedPath | None = Field(None, description="PEM file with the private key of FRAUD_HTTP_TLS_CERT")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")

    @model_validator(mode="after")
    def _thresholds_are_ordered(self) -> Settings:
        if self.decline_threshold < self.review_threshold:
            raise ValueError(
                f"FRAUD_DECLINE_THRESHOLD={self.decline_threshold} lies below "
                f"FRAUD_REVIEW_THRESHOLD={self.review_threshold}: raise the first or lower the second"
            )
        if self.label_retention < self.label_maturity:
            raise ValueError(
                f"FRAUD_LABEL_RETENTION={format_duration(self.label_retention)} is shorter than "
                f"FRAUD_LABEL_MATURITY={format_duration(self.label_maturity)}: "
                "the learner would drop features before it learns from them; raise the first or lower the second"
            )
        if (self.http_tls_cert is None) != (self.http_tls_key is None):
            raise ValueError(
                "FRAUD_HTTP_TLS_CERT and FRAUD_HTTP_TLS_KEY belong together: set both for HTTPS, or neither for HTTP"
            )
        if len({self.scorer_group, self.learner_group, self.tokenizer_group}) < 3:  # noqa: PLR2004 - as named
            raise ValueError(
                f"FRAUD_SCORER_GROUP={self.scorer_group}, FRAUD_LEARNER_GROUP={self.learner_group} and "
                f"FRAUD_TOKENIZER_GROUP={self.tokenizer_group} must differ: in one group they would take "
                "each other's work"
            )
        roles: dict[str, str] = {}
        for role, name in self.topics:
            if roles.setdefault(name, role) != role:
                raise ValueError(
                    f"FRAUD_TOPICS__{roles[name].upper()} and FRAUD_TOPICS__{role.upper()} are both {name!r}: "
                    "every topic needs a name of its own"
                )
        return self


def load(**overrides: object) -> Settings:
    """Read the settings from the environment; options of the command line override them.

    Raises
    ------
    ConfigurationError
        Names each setting that cannot work, its value, and what to do.
    """
    _refuse_unknown()
    try:
        settings = Settings(**{name: value for name, value in overrides.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        raise ConfigurationError("; ".join(map(_complaint, error.errors()))) from None
    except SettingsError as error:  # its message names the field in quotes; the value may be secret
        field = str(error).split('"')[1]
        raise ConfigurationError(f'{PREFIX}{field.upper()} is not JSON: write an object, {{"name": "text"}}') from None
    secrets = {} if settings.kafka_config_dir is None else _secrets(settings.kafka_config_dir)
    _require_verification(settings.kafka_config | secrets, is_development=settings.allow_insecure_kafka)
    return settings.model_copy(update={"kafka_config": settings.kafka_config | secrets})


def _require_verification(options: dict[str, str], *, is_development: bool) -> None:
    for name, refused in INSECURE_KAFKA_OPTIONS.items():
        value = options.get(name, "").strip().lower()
        if value in refused and not is_development:
            raise ConfigurationError(
                f"{PREFIX}KAFKA_CONFIG has {name}={value}: whoever is on the network could pass for a broker. "
                f"Remove it and "
                f"name your authority in ssl.ca.location; {PREFIX}ALLOW_INSECURE_KAFKA=true allows it where no "
                f"data is real"
            )


def _secrets(folder: Path) -> dict[str, str]:
    try:
        return {name.encode().decode(): content.decode() for name, content in read_secret_files(folder).items()}
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(
            f"{PREFIX}KAFKA_CONFIG_DIR={folder}: {type(error).__name__}: mount a folder of readable UTF-8 text files"
        ) from None


def variables() -> dict[str, tuple[str, str]]:
    """Return every environment variable with its default and its meaning."""
    table = {}
    for name, field in Settings.model_fields.items():
        if name == "topics":
            for topic, inner in TopicNames.model_fields.items():
                table[f"{PREFIX}TOPICS__{topic.upper()}"] = (str(inner.default), inner.description or "")
            continue
        default = DEFAULT_TEXTS.get(name) or _as_text(field.default)
        table[f"{PREFIX}{name.upper()}"] = (default, field.description or "")
    return table


def _as_text(default: object) -> str:
    return format_duration(default) if isinstance(default, timedelta) else str(default)


def _refuse_unknown() -> None:
    known = {*variables(), f"{PREFIX}TOPICS"}
    for name, value in os.environ.items():
        if name.startswith(PREFIX) and not name.startswith(TEST_PREFIX) and name.upper() not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "`fraud-service config` lists all settings"
            raise ConfigurationError(f"{name} is not a setting: {hint}")
        if name.startswith(PREFIX) and not _is_text(value):
            raise ConfigurationError(f"{name} is not UTF-8: write its value anew")


def _is_text(value: str) -> bool:
    """Tell what was UTF-8 from what Python could not decode: librdkafka ends the process over it."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _complaint(error: object) -> str:
    details = dict(error)  # type: ignore[call-overload]
    if not details["loc"]:
        return str(details["msg"]).removeprefix("Value error, ")
    name = PREFIX + "__".join(str(part) for part in details["loc"]).upper()
    if details["loc"][0] == "kafka_config":
        return f"{name}: {details['msg']}"  # the value may be a password
    value = details["input"]
    if isinstance(value, timedelta):  # out of bounds: show the text that the operator wrote
        value = os.environ.get(name, format_duration(value))
    return f"{name}={value!r}: {str(details['msg']).removeprefix('Value error, ')}"
