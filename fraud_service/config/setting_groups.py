"""The settings: one class per section of `docs/configuration.md`."""

from __future__ import annotations

import socket
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from fraud_service.config.duration import Duration, format_duration
from fraud_service.domain.local_time import zone_names
from fraud_service.security.label_rate_limit import MAX_PER_CARD

if TYPE_CHECKING:
    from typing import Self

PREFIX: Final = "FRAUD_"

# A century is enough for every setting. An event time far beyond it is not a valid date.
MAX_DURATION: Final = timedelta(days=36_500)


def _not_empty(value: object) -> object:
    """Reject an empty path, which would mean the working directory."""
    if value == "":
        raise ValueError("is empty: name a path, or remove the variable")
    return value


EventTime = Annotated[Duration, Field(le=MAX_DURATION)]
Share = Annotated[float, Field(ge=0, le=1)]
TOPIC_PATTERN: Final = r"^[A-Za-z0-9._-]+$"
GROUP_PATTERN: Final = r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$"  # part of topics and paths
DEPLOYMENT_PATTERN: Final = r"^[!-~]{1,200}$"
PATTERNS: Final = {  # in words
    TOPIC_PATTERN: "ASCII letters, digits and . _ -",
    GROUP_PATTERN: "ASCII letters, digits and . _ -, with no dot at the beginning",
    DEPLOYMENT_PATTERN: "1 to 200 ASCII letters, digits and signs, without spaces",
}
TopicName = Annotated[str, Field(min_length=1, max_length=249, pattern=TOPIC_PATTERN)]
GroupName = Annotated[str, Field(max_length=200, pattern=GROUP_PATTERN)]


def _zone(name: str) -> str:
    if name in zone_names():
        return name
    by_case = {known.lower(): known for known in zone_names()}
    near = get_close_matches(name.lower(), [*by_case, *(known.rpartition("/")[2] for known in by_case)], n=1)
    likely = [known for low, known in sorted(by_case.items()) if near and near[0] in {low, low.rpartition("/")[2]}]
    hint = f"did you mean {likely[0]}?" if likely else "write a name such as Europe/Berlin"
    raise ValueError(f"there is no such time zone: {hint}")


TimeZone = Annotated[str, AfterValidator(_zone)]
NamedPath = Annotated[Path, BeforeValidator(_not_empty)]


class TopicNames(BaseModel):
    """Topic names. Local state and changelogs belong to these names, so a change needs a migration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    transactions: TopicName = Field(default="payments.transactions.v1", description="input: card payments")
    labels: TopicName = Field(default="payments.fraud-labels.v1", description="input: labels of transactions")
    scores: TopicName = Field(default="fraud.scores.v1", description="output: every decision, as an audit log")
    alerts: TopicName = Field(default="fraud.alerts.v1", description="output: flagged transactions, with reasons")
    labelled: TopicName = Field(default="fraud.labelled.v1", description="output: labelled examples, to train on")
    snapshots: TopicName = Field(
        default="fraud.snapshots.v1", description="from learner to scorers: online model, its weight and risk digest"
    )
    models: TopicName = Field(default="fraud.models.v1", description="promoted pretrained models")
    risk: TopicName = Field(default="fraud.risk.v1", description="from learner to scorers: risk of merchants and cards")
    raw_transactions: TopicName = Field(
        default="payments.raw-transactions.v1",
        description="input of `tokenize`: payments that may contain card numbers",
    )
    raw_labels: TopicName = Field(
        default="payments.raw-fraud-labels.v1", description="input of `tokenize`: labels that may contain card numbers"
    )
    dead_letters: TopicName = Field(default="fraud.dead-letters.v1", description="output: rejected records")


class _Group(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid", allow_inf_nan=False
    )


class KafkaSettings(_Group):
    """Kafka connection and topics."""

    bootstrap_servers: str = Field("localhost:9092", min_length=1, description="Kafka brokers, host:port,…")
    kafka_config: dict[str, str] = Field(
        {},
        description="more librdkafka options for every client, as a JSON object. They replace our defaults. An "
        "option that a guarantee depends on is refused",
    )
    kafka_config_dir: NamedPath | None = Field(
        None, description="folder with secret librdkafka options: one file per option, named after it"
    )
    allow_insecure_kafka: bool = Field(
        default=False,
        description="whether FRAUD_KAFKA_CONFIG may turn off the verification of brokers. Never with real data",
    )
    topics: TopicNames = Field(TopicNames(), description="topic names, FRAUD_TOPICS__SCORES and so on")
    partitions: int = Field(4, ge=1, le=10_000, description="partitions of the topics that `topics create` makes")
    max_model_bytes: int = Field(
        8 << 20,
        ge=1 << 18,
        le=16 << 20,
        description="`max.message.bytes` of the models topic that `topics create` makes: the size of the largest "
        "model, compressed. Many hosted clusters allow 8388608 at most",
    )
    replication_factor: int = Field(1, ge=1, le=10, description="replicas of the topics that `topics create` makes")

    @model_validator(mode="after")
    def _topics_differ(self) -> Self:
        roles: dict[str, str] = {}
        for role, name in self.topics:
            if roles.setdefault(name, role) != role:
                raise ValueError(
                    f"FRAUD_TOPICS__{roles[name].upper()} and FRAUD_TOPICS__{role.upper()} are both {name!r}: "
                    "give each topic a different name"
                )
        return self


class ProcessSettings(_Group):
    """Processes and consumer groups."""

    scorer_group: GroupName = Field("fraud-scorer", description="consumer group of the scorers")
    learner_group: GroupName = Field("fraud-learner", description="consumer group of the learner")
    tokenizer_group: GroupName = Field("fraud-tokenizer", description="consumer group of the tokenizer")
    instance_id: str = Field(
        default_factory=socket.gethostname,
        min_length=1,
        description="name of this process, the same after a restart: its group.instance.id and transactional.id",
    )
    state_dir: NamedPath = Field(Path("state"), description="folder of the local state. One volume per pod")
    processing_guarantee: Literal["exactly-once", "at-least-once"] = Field(
        "exactly-once", description="guarantee of the scorer. The learner is always exactly-once"
    )
    session_timeout: Duration = Field(
        timedelta(seconds=45),
        ge=timedelta(seconds=6),
        le=timedelta(minutes=30),
        description="a process without a heartbeat for this long loses its partitions. A shorter restart keeps them",
    )
    commit_interval: Duration = Field(
        timedelta(milliseconds=100),
        ge=timedelta(0),
        le=timedelta(minutes=1),
        description="longest time between two commits of the scorer. With exactly-once, it commits earlier when it "
        "has no transaction to score",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="lowest level to log")

    @model_validator(mode="after")
    def _groups_differ(self) -> Self:
        if len({self.scorer_group, self.learner_group, self.tokenizer_group}) < 3:  # noqa: PLR2004 - as named
            raise ValueError(
                f"FRAUD_SCORER_GROUP={self.scorer_group}, FRAUD_LEARNER_GROUP={self.learner_group} and "
                f"FRAUD_TOKENIZER_GROUP={self.tokenizer_group} must differ: in one consumer group, Kafka would give "
                "partitions of one process to another kind of process"
            )
        return self


class DecisionSettings(_Group):
    """Decisions."""

    model_dir: NamedPath | None = Field(
        None, description="folder of the pretrained model. By default, the model that comes with the package"
    )
    review_threshold: Share = Field(0.3, description="a transaction with this score or more is flagged for review")
    decline_threshold: Share = Field(0.9, description="a transaction with this score or more should be declined")
    max_clock_skew: EventTime = Field(
        timedelta(minutes=5),
        ge=timedelta(0),
        description="how far an event time may be ahead of the broker's timestamp of its record",
    )
    reject_pan: bool = Field(
        default=True,
        description="whether a record that seems to contain a card number becomes a dead letter. Set false if your "
        "ids are long numbers. Security codes, PINs and track data are always rejected",
    )
    reject_wrong_partition: bool = Field(
        default=True,
        description="whether a transaction outside the partition of its card (murmur2 of the key) becomes a dead "
        "letter. If false, the scorer scores it with the state of its card in that partition, usually none",
    )
    time_zone: TimeZone = Field(
        "UTC",
        description="time zone of the transactions that have neither an offset nor a known country. Night and weekend "
        "are in local time. A change needs a model that was trained with it",
    )
    reject_unknown_entry_modes: bool = Field(
        default=False,
        description="whether a transaction whose entry_mode has no known meaning becomes a dead letter. Otherwise it "
        "counts as absent, and fraud_unknown_entry_modes_total counts the transaction",
    )
    cards_per_partition: int = Field(
        500_000,
        ge=0,
        description="the alert FraudManyCards fires when a partition has more cards than this. 0: no limit. The "
        "scorer still scores all of them",
    )

    @model_validator(mode="after")
    def _thresholds_are_ordered(self) -> Self:
        if self.decline_threshold < self.review_threshold:
            raise ValueError(
                f"FRAUD_DECLINE_THRESHOLD={self.decline_threshold} is below "
                f"FRAUD_REVIEW_THRESHOLD={self.review_threshold}: raise the first or lower the second"
            )
        return self


class LearningSettings(_Group):
    """Learning from labels."""

    snapshot_interval: EventTime = Field(
        timedelta(hours=1), ge=timedelta(minutes=1), description="event time between two snapshots"
    )
    snapshot_activation_delay: EventTime = Field(
        timedelta(minutes=15),
        ge=timedelta(0),
        description="event time from the boundary of a snapshot until scorers use it",
    )
    label_maturity: EventTime = Field(
        timedelta(days=7),
        ge=timedelta(seconds=1),
        description="event time after which a transaction without a label counts as legitimate",
    )
    label_retention: EventTime = Field(
        timedelta(days=60),
        gt=timedelta(0),
        description="event time for which the learner keeps the features of a transaction. A later label is rejected",
    )
    negative_sample_rate: float = Field(
        0.25,
        gt=0,
        le=1,
        description="share of the legitimate examples scored below 0.01 that the learner trains on. Their weight "
        "makes up for the rest",
    )
    label_rate_limit_per_source: int = Field(
        100_000,
        ge=0,
        description="labels per hour that the learner accepts from one source in one partition. 0: no limit. Labels "
        "above it become dead letters. Ten times the busiest hour is a good limit",
    )
    label_rate_limit_per_card: int = Field(
        1_000,
        ge=0,
        le=MAX_PER_CARD,
        description="labels per hour that the learner accepts for one card. 0: no limit. Cards share 4,096 counters, "
        "so a limit below 100 can reject labels of cards with few labels",
    )

    @model_validator(mode="after")
    def _retention_covers_maturity(self) -> Self:
        if self.label_retention < self.label_maturity:
            raise ValueError(
                f"FRAUD_LABEL_RETENTION={format_duration(self.label_retention)} is shorter than "
                f"FRAUD_LABEL_MATURITY={format_duration(self.label_maturity)}: "
                "the learner would drop features before it learns from them; raise the first or lower the second"
            )
        return self


class KeySettings(_Group):
    """Signing and tokenizing."""

    signing_key_dir: NamedPath | None = Field(
        None,
        description="folder of the HMAC keys that sign models, snapshots and risk: one file per key, named after it",
    )
    active_signing_key: str | None = Field(
        None,
        min_length=1,
        description="name of the key that signs. The others only verify. By default, the last by name",
    )
    deployment: str | None = Field(
        None,
        pattern=DEPLOYMENT_PATTERN,
        description="name of this deployment, for example production/fraud. It is part of every signature, so that "
        "records of another deployment are rejected. Required with FRAUD_SIGNING_KEY_DIR",
    )
    allow_unsigned: bool = Field(
        default=False,
        description="whether to start without FRAUD_SIGNING_KEY_DIR. Then everyone who may write models, snapshots or "
        "risk can change scores",
    )
    tokenizer_key_dir: NamedPath | None = Field(
        None,
        description="folder of the keys of `fraud-service tokenize`: one file per key, named after it. Mount it only "
        "there",
    )
    active_tokenizer_key: str | None = Field(
        None, min_length=1, description="name of the key that makes new tokens. By default, the last by name"
    )


class HttpSettings(_Group):
    """Metrics and health checks over HTTP."""

    # Probes and Prometheus come from outside the pod.
    http_host: str = Field("0.0.0.0", description="address of metrics and health checks. `::` serves IPv6 and IPv4")  # noqa: S104  # nosec B104
    http_port: int = Field(8000, ge=0, le=65_535, description="port of metrics and health checks. 0: any free port")
    http_tls_cert: NamedPath | None = Field(
        None,
        description="PEM file with the certificate chain of metrics and health checks. The process reads it again "
        "when it changes. none: plain HTTP",
    )
    http_tls_key: NamedPath | None = Field(None, description="PEM file with the private key of FRAUD_HTTP_TLS_CERT")

    @model_validator(mode="after")
    def _certificate_has_its_key(self) -> Self:
        if (self.http_tls_cert is None) != (self.http_tls_key is None):
            raise ValueError(
                "FRAUD_HTTP_TLS_CERT and FRAUD_HTTP_TLS_KEY belong together: set both for HTTPS, or neither for HTTP"
            )
        return self
