from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator, ValidationError
from support.worlds import (
    DAY,
    HOUR,
    MONDAY,
    QUIET_FEATURES,
    features,
    label,
    online_model,
    score,
    snapshot,
    transaction,
)

from fraud_service.domain import errors, events, reasons
from fraud_service.domain.decision import Decision, Outcome
from fraud_service.domain.detector import Assessment
from fraud_service.domain.errors import InvalidEvent
from fraud_service.domain.features import NAMES, Features, extract
from fraud_service.domain.profile import Profile
from fraud_service.domain.records import AlertRecord, LabelledRecord, ReasonRecord, encode_record
from fraud_service.domain.risk import NO_RISK, Risk, RiskDay, encode_risk
from fraud_service.domain.snapshot import encode_snapshot
from fraud_service.kafka import topics
from fraud_service.kafka.dead_letters import dead_letter
from fraud_service.kafka.messages import BATCH_FIRST, Received
from fraud_service.processors import scorer
from fraud_service.runtime.metrics.learner import LearnerMetrics
from fraud_service.runtime.metrics.scorer import ScorerMetrics
from fraud_service.runtime.metrics.stream import Metrics

DOCS = Path(__file__).resolve().parent.parent / "docs"
sys.path.insert(0, str(DOCS))
contracts = importlib.import_module("contracts")
messages = importlib.import_module("messages")
generate = importlib.import_module("generate")
feature_page = importlib.import_module("feature_page")

TABLE = topics.topic_specs(contracts.default_settings())
SLUGS = [message.slug for message in messages.MESSAGES]
PAYMENT: dict[str, Any] = json.loads(events.encode(transaction()))
CLAIM: dict[str, Any] = json.loads(events.encode(label()))
MISSING = object()


def schema(slug: str) -> dict[str, Any]:
    return json.loads((DOCS / f"schemas/{slug}.schema.json").read_text())


def validator(slug: str) -> Draft202012Validator:
    return Draft202012Validator(schema(slug))


def asyncapi() -> dict[str, Any]:
    return json.loads((DOCS / "asyncapi.json").read_text())


def changed(message: dict[str, Any], **facts: Any) -> dict[str, Any]:
    return {name: value for name, value in (message | facts).items() if value is not MISSING}


def alert() -> AlertRecord:
    return AlertRecord(
        transaction=transaction(country="DE", latitude=52.5, longitude=13.4),
        outcome=Outcome.REVIEW,
        score=0.5,
        pretrained=0.4,
        online=None,
        model="model-1",
        snapshot="untrained",
        reasons=[ReasonRecord("HIGH_VELOCITY", "This card made 9 payments in the hour before this one.", 1.25)],
        base=-2.0,
        contributions=dict.fromkeys(NAMES, 0.0),
        rest=0.0,
    )


def labelled() -> LabelledRecord:
    return LabelledRecord(
        transaction_id="t1",
        card_id="card-1",
        merchant_id="merchant-1",
        timestamp=MONDAY,
        amount=25.0,
        is_fraud=True,
        source=events.LabelSource.CHARGEBACK,
        known_at=MONDAY + DAY,
        corrects=False,
        weight=1.0,
        boundary_ms=MONDAY + DAY + HOUR,
        pretrained_logit=-2.0,
        online_logit=None,
        score=0.1,
        model="model-1",
        outcome=Outcome.APPROVE,
        features=features(amount=25.0),
    )


def test_the_generated_files_match_the_code() -> None:
    assert generate.differences(DOCS) == [], "run `python docs/generate.py`"


def test_the_generated_text_is_the_same_in_any_environment() -> None:
    environment = os.environ | {
        "FRAUD_PARTITIONS": "9",
        "FRAUD_TOPICS__SCORES": "elsewhere",
        "FRAUD_SCORER_GROUP": "others",
        "FRAUD_INSTANCE_ID": "pod-0",
        "PYTHONHASHSEED": "1",
        "TZ": "Asia/Tokyo",
    }
    command = [sys.executable, str(DOCS / "generate.py"), "--check"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_check_names_missing_changed_and_stale_files(tmp_path: Path) -> None:
    generate.write(tmp_path)
    (tmp_path / "topics.md").write_text("by hand")
    (tmp_path / "metrics.md").unlink()
    (tmp_path / "schemas/old.schema.json").write_text("{}")
    expected = ["metrics.md", "schemas/old.schema.json", "topics.md"]
    assert generate.differences(tmp_path) == expected
    assert generate.write(tmp_path) == expected
    assert generate.differences(tmp_path) == []


def test_check_fails_and_writing_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "DOCS", tmp_path)
    assert generate.main(["--check"]) == 1
    assert "docs/features.md differs" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0


def test_line_endings_are_the_same_on_every_system() -> None:
    for name, text in generate.pages().items():
        assert "\r" not in text, name
        assert text.endswith("\n"), name
        assert not text.endswith("\n\n"), name


@pytest.mark.parametrize("slug", SLUGS)
def test_every_schema_is_valid(slug: str) -> None:
    document = schema(slug)
    Draft202012Validator.check_schema(document)
    assert document["$id"].endswith(f":{slug}:v1")
    assert document["title"]
    assert document["description"]


def test_patterns_use_no_extension_of_regular_expressions() -> None:
    texts = [text for name, text in generate.pages().items() if name.endswith(".json")]
    assert any('"pattern"' in text for text in texts)
    assert not any("(?" in text for text in texts)


@pytest.mark.parametrize("slug", ["transaction", "label"])
def test_every_field_of_an_input_has_a_description(slug: str) -> None:
    for name, field in schema(slug)["properties"].items():
        branches = field.get("anyOf", [])
        assert "description" in field or "$ref" in field or all("description" in branch for branch in branches), name


@pytest.mark.parametrize(
    ("slug", "message"),
    [
        ("transaction", events.encode(transaction())),
        ("transaction", events.encode(transaction(country="DE", entry_mode="chip", latitude=-90.0, longitude=180.0))),
        ("label", events.encode(label())),
        ("score", encode_record(score())),
        ("score", encode_record(score(is_duplicate=True, features=None, pretrained=None, pretrained_logit=None))),
        ("alert", encode_record(alert())),
        ("labelled", encode_record(labelled())),
        ("labelled", encode_record(msgspec.structs.replace(labelled(), is_fraud=False, source=None))),
        ("snapshot", encode_snapshot(snapshot(MONDAY, {}, {}, online=online_model(intercept=-0.5)))),
    ],
)
def test_written_records_match_their_schema(slug: str, message: bytes) -> None:
    validator(slug).validate(json.loads(message))


@pytest.mark.parametrize("slug", ["score", "alert", "labelled", "snapshot"])
def test_the_schema_of_an_output_rejects_an_empty_record(slug: str) -> None:
    with pytest.raises(ValidationError, match="is a required property"):
        validator(slug).validate({})


def test_the_documented_examples_match_schema_and_decoder() -> None:
    for message in messages.MESSAGES:
        for example in message.examples:
            validator(message.slug).validate(example)
    (payment,), (claim,) = messages.MESSAGES[0].examples, messages.MESSAGES[1].examples
    assert events.decode_transaction(msgspec.json.encode(payment)).amount == 25.0
    assert events.decode_label(msgspec.json.encode(claim)).transaction_id == payment["transaction_id"]


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"timestamp": "2026-01-15T12:30:00+01:00", "amount": "0.10"},
        {"amount": 3},
        {"amount": 0},
        {"country": None, "ip": "192.0.2.1"},
        {"merchant_id": "Café 漢字 بطاقة 🙂"},
        {"something_new": {"nested": [1, 2]}},
    ],
)
def test_schema_and_decoder_both_accept_a_valid_transaction(facts: dict[str, Any]) -> None:
    message = changed(PAYMENT, **facts)
    validator("transaction").validate(message)
    events.decode_transaction(msgspec.json.encode(message))


@pytest.mark.parametrize(
    "message",
    [
        [],
        "a payment",
        changed(PAYMENT, card_id=MISSING),
        changed(PAYMENT, currency=MISSING),
        changed(PAYMENT, transaction_id=""),
        changed(PAYMENT, merchant_id="m" * 129),
        changed(PAYMENT, card_id=7),
        changed(PAYMENT, timestamp=None),
        changed(PAYMENT, timestamp=1.5),
        changed(PAYMENT, timestamp=True),
        changed(PAYMENT, amount=-1),
        changed(PAYMENT, amount=1e14),
        changed(PAYMENT, amount="1e3"),
        changed(PAYMENT, amount="-1.00"),
        changed(PAYMENT, amount="1,000.00"),
        changed(PAYMENT, currency="eur"),
        changed(PAYMENT, currency="EURO"),
        changed(PAYMENT, latitude=90.5),
        changed(PAYMENT, longitude="13.4"),
        changed(PAYMENT, country="D" * 257),
        changed(PAYMENT, card_id="a\x1b[2Jb"),
        changed(PAYMENT, device_id="a\u202eb"),
        changed(PAYMENT, ip="a\U000e0041b"),
    ],
)
def test_schema_and_decoder_both_reject_an_invalid_transaction(message: Any) -> None:
    assert not validator("transaction").is_valid(message)
    with pytest.raises(InvalidEvent):
        events.decode_transaction(msgspec.json.encode(message))


@pytest.mark.parametrize(
    "message",
    [
        None,
        changed(CLAIM, is_fraud=MISSING),
        changed(CLAIM, is_fraud=1),
        changed(CLAIM, is_fraud="true"),
        changed(CLAIM, source="rumour"),
        changed(CLAIM, labelled_at=[]),
        changed(CLAIM, transaction_id=None),
        changed(CLAIM, card_id="a\u200bb"),
    ],
)
def test_schema_and_decoder_both_reject_an_invalid_label(message: Any) -> None:
    assert not validator("label").is_valid(message)
    with pytest.raises(InvalidEvent):
        events.decode_label(msgspec.json.encode(message))


def test_asyncapi_has_every_topic_but_the_changelogs() -> None:
    channels = asyncapi()["channels"]
    public = [spec for spec in TABLE if not spec.name.startswith("changelog__")]
    assert {role: channel["address"] for role, channel in channels.items()} == {spec.role: spec.name for spec in public}
    for spec in public:
        kafka = channels[spec.role]["bindings"]["kafka"]
        assert kafka["partitions"] == spec.partitions
        configuration = kafka["topicConfiguration"]
        written = {name: v[0] if isinstance(v, list) else str(v) for name, v in configuration.items()}
        assert written == spec.config()


def test_asyncapi_uses_every_channel_and_every_reference_resolves() -> None:
    document = asyncapi()
    used = {operation["channel"]["$ref"].rpartition("/")[2] for operation in document["operations"].values()}
    assert used == set(document["channels"])
    for reference in references(document):
        place = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for value in node.values() for found in references(value)]
    return [found for value in node for found in references(value)] if isinstance(node, list) else []


def headers(message: str) -> Draft202012Validator:
    return Draft202012Validator(asyncapi()["components"]["messages"][message]["headers"])


def test_an_alert_has_exactly_the_documented_headers() -> None:
    decision = Decision(Outcome.REVIEW, 0.5, -1.0, -1.0, 0.5, "model-1", "untrained", is_stale=False)
    written = scorer._cloud_event(Assessment(transaction(), decision, QUIET_FEATURES))
    texts = {name: value.decode() for name, value in written}
    headers("alerts").validate(texts)
    assert list(texts) == headers("alerts").schema["required"]


@pytest.mark.parametrize("reason", list(errors.DeadLetterReason))
def test_a_dead_letter_has_exactly_the_documented_headers(reason: errors.DeadLetterReason) -> None:
    origin = Received("payments.transactions.v1", 3, 42, b"card-1", b"{", 0)
    letter = dead_letter(origin, InvalidEvent(reason, "what was wrong"))
    texts = {name: value.decode() for name, value in letter.headers}
    headers("dead_letters").validate(texts)
    assert list(texts) == headers("dead_letters").schema["required"]


def test_a_dead_letter_with_withheld_or_masked_content_has_the_documented_headers() -> None:
    said: set[str] = set()
    for origin in (
        Received("t", 3, 42, b"k" * 1000, b"x" * 1_000_000, 0),
        Received("t", 3, 42, b"card-1", b"4242424242424242", 0),
        Received("t", 3, 42, None, None, 0, ((BATCH_FIRST, b"40"),)),
    ):
        letter = dead_letter(origin, InvalidEvent("too_large", "what was wrong"))
        texts = {name: value.decode() for name, value in letter.headers}
        headers("dead_letters").validate(texts)
        said |= set(texts)
    assert said == set(headers("dead_letters").schema["properties"])


def test_a_risk_row_is_the_documented_array() -> None:
    payload = asyncapi()["components"]["messages"]["risk"]["payload"]["anyOf"][0]
    row = msgspec.msgpack.decode(
        encode_risk(NO_RISK.with_label(MONDAY, MONDAY, is_fraud=True, amount_is_anomalous=False))
    )
    assert [item["title"] for item in payload["items"]] == list(Risk.__struct_fields__)
    assert [item["title"] for item in payload["items"][0]["items"]["items"]] == list(RiskDay.__struct_fields__)
    for item, value in zip(payload["items"], row, strict=True):
        Draft202012Validator(item if value is None or isinstance(value, int) else {"type": "array"}).validate(value)


def test_every_reason_of_a_dead_letter_is_explained() -> None:
    assert list(generate.ADVICE) == list(errors.DeadLetterReason)
    assert all(all(advice) for advice in generate.ADVICE.values())


def test_every_feature_is_explained_and_has_one_reason_code() -> None:
    for name in NAMES:
        meta = feature_page.feature_meta(name)
        assert meta.description
        assert meta.extra["unit"]
    assert sorted(name for code in reasons.CODES.values() for name in code.features) == sorted(NAMES)


def test_a_feature_without_one_annotation_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bare(msgspec.Struct):
        amount: float

    Bare.__annotations__ = {"amount": float}  # no string: the class is not where its hints could be looked up
    monkeypatch.setattr(feature_page.contract, "Features", Bare)
    with pytest.raises(TypeError, match="amount needs exactly one"):
        feature_page.feature_meta("amount")


def test_cold_values_are_those_of_an_unknown_card_and_merchant() -> None:
    row = msgspec.structs.asdict(extract(transaction(latitude=1.0, longitude=1.0), Profile(), NO_RISK, NO_RISK, MONDAY))
    facts = {name: feature_page.feature_meta(name).extra for name in Features.__struct_fields__}
    history = [name for name in facts if facts[name]["window"] != feature_page.ITSELF]
    assert {name: facts[name]["cold"] for name in history} == {name: row[name] for name in history}


def test_all_limits_of_a_card_are_listed() -> None:
    kept = {name for name in vars(feature_page.profile) if name.endswith("_KEPT")}
    assert set(feature_page.LIMITS) == kept


def test_every_metric_and_every_label_is_explained() -> None:
    page = (DOCS / "metrics.md").read_text()
    values = generate._label_values()
    for kind in (ScorerMetrics, LearnerMetrics):
        metrics = Metrics()
        kind(metrics)
        rows = {row.name: row for row in generate.metric_rows(kind)}
        exposed = {family.name for family in metrics.registry.collect() if family.name.startswith("fraud_")}
        assert {name.removesuffix("_total").removesuffix("_info") for name in rows} == exposed
        for row in rows.values():
            assert f"`{row.name}`" in page
            assert all(f"`{name}`" in values for name in row.labels)
