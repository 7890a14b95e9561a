"""The published contracts: JSON Schemas of the messages, and the AsyncAPI document of the topics.

Both come from the message classes and the table of topics. `messages` adds the rest. The schemas are JSON Schema
2020-12. Inside AsyncAPI they use only what its dialect, a superset of draft-07, shares with 2020-12.
"""

from __future__ import annotations

import json
from inspect import cleandoc, getdoc
from typing import TYPE_CHECKING, Final

import msgspec
from messages import FIELDS, KEYS, MESSAGES, OPERATIONS, SPECIAL, VECTOR_KEYS, Json, Message

from fraud_service import __version__
from fraud_service.config.settings import Settings
from fraud_service.domain.errors import DeadLetterReason
from fraud_service.domain.events import MAX_EVENT_BYTES, MAX_KEY_BYTES
from fraud_service.domain.risk import Risk, RiskDay
from fraud_service.kafka import topics
from fraud_service.kafka.messages import BATCH_FIRST
from fraud_service.kafka.partitioner import murmur2_partition
from fraud_service.processors.scorer import ALERT_SOURCE, ALERT_TYPE
from fraud_service.processors.snapshot_reader import VERSION_HEADER

if TYPE_CHECKING:
    from collections.abc import Iterable

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
BINDING: Final = "0.5.0"  # of AsyncAPI's Kafka bindings
JSON_TYPE: Final = "application/json"
LAST_LINE_BREAK: Final = r"(?!\n)"
TOLERANT: Final = "Unknown fields are ignored, so producers may add fields before the service knows them."


def default_settings() -> Settings:
    """Return the documented defaults, without the environment and the name of this machine."""
    return Settings.model_construct(instance_id="host name")


def schemas() -> dict[str, Json]:
    """Return the JSON Schema of every message, by name."""
    return {message.slug: _schema(message) for message in MESSAGES}


def asyncapi() -> Json:
    """Return the AsyncAPI 3.0 document of all topics except changelogs, which are internal."""
    settings = default_settings()
    specs = [spec for spec in topics.topic_specs(settings) if spec.role in KEYS]
    return {
        "asyncapi": "3.0.0",
        "id": "urn:fraud-service",
        "info": {
            "title": "fraud-service",
            "version": __version__,
            "description": (
                "Scores card payments in real time, and learns from labels that come days later. Topic names, "
                "partitions and replicas are defaults. All of them are settings."
            ),
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": JSON_TYPE,
        "servers": {"kafka": _server(settings)},
        "channels": {spec.role: _channel(spec, settings) for spec in specs},
        "operations": dict(_operation(*row, settings) for row in OPERATIONS),
        "components": {"messages": _messages(), "schemas": _components()},
    }


def _schema(message: Message) -> Json:
    definitions = _definitions([message], "#/$defs/{name}")
    polished = {name: _polished(definition, message) for name, definition in definitions.items()}
    own = polished.pop(message.type.__name__)
    head = {"$schema": DIALECT, "$id": f"urn:fraud-service:{message.slug}:v1"}
    return head | own | ({"$defs": polished} if polished else {})


def _components() -> Json:
    own = {message.type.__name__: message for message in MESSAGES}
    definitions = _definitions(MESSAGES, "#/components/schemas/{name}")
    return {name: _polished(definition, own.get(name)) for name, definition in definitions.items()}


def _definitions(messages: Iterable[Message], references: str) -> dict[str, Json]:
    """Return the schemas of classes as msgspec derives them, with patterns that every validator can read.

    In Python, `$` also matches before a final line break, so our patterns exclude it with a lookahead. In JSON Schema,
    `$` does not match there, and some validators have no lookahead.
    """
    _, definitions = msgspec.json.schema_components([message.type for message in messages], ref_template=references)
    text = json.dumps(definitions).replace(json.dumps(LAST_LINE_BREAK)[1:-1], "")
    portable: dict[str, Json] = json.loads(text)
    return portable


def _polished(definition: Json, message: Message | None) -> Json:
    """Add title, descriptions and examples."""
    name = definition["title"]
    polished = {**definition, "description": _unwrapped(definition.get("description", ""))}
    if "properties" in definition:
        texts = FIELDS | SPECIAL.get(name, {})
        polished["properties"] = {
            field: _hoisted(facts, texts.get(field, "")) for field, facts in definition["properties"].items()
        }
    if message is None or name != message.type.__name__:
        return polished
    polished["title"] = message.title
    if message.is_input:
        polished |= {"description": f"{polished['description']} {TOLERANT}", "additionalProperties": True}
    if message.examples:
        polished["examples"] = list(message.examples)
    return polished


def _hoisted(field: Json, text: str) -> Json:
    """Move the description from the alternative to null, where msgspec puts it, to the field."""
    options = [option for option in field.get("anyOf", []) if option != {"type": "null"}]
    if len(options) == 1 and "description" in options[0]:
        text = options[0]["description"]
        inner = {name: value for name, value in options[0].items() if name != "description"}
        field = {**field, "anyOf": [inner, {"type": "null"}]}
    return {"description": text, **field} if text and "$ref" not in field else field


def _unwrapped(text: str) -> str:
    """Return the paragraphs of a docstring without line breaks inside them."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in cleandoc(text).split("\n\n"))


def _server(settings: Settings) -> Json:
    return {
        "host": "{bootstrap}",
        "protocol": "kafka",
        "description": "The Kafka cluster, FRAUD_BOOTSTRAP_SERVERS.",
        "variables": {"bootstrap": {"default": settings.bootstrap_servers, "description": "host:port of a broker"}},
    }


def _channel(spec: topics.TopicSpec, settings: Settings) -> Json:
    configuration: Json = {"cleanup.policy": [spec.cleanup], "retention.ms": spec.retention_ms}
    for name, value in spec.extra.items():
        configuration[name] = int(value) if value.lstrip("-").isdecimal() else value
    channel: Json = {
        "address": spec.name,
        "title": spec.role.replace("_", " ").capitalize(),
        "description": f"{spec.content[0].upper()}{spec.content[1:]}. Key: {spec.key}.",
        "servers": [{"$ref": "#/servers/kafka"}],
        "messages": {spec.role: {"$ref": f"#/components/messages/{spec.role}"}},
        "bindings": {
            "kafka": {
                "topic": spec.name,
                "partitions": spec.partitions,
                "replicas": settings.replication_factor,
                "topicConfiguration": configuration,
                "bindingVersion": BINDING,
            }
        },
    }
    if spec.role in {"transactions", "labels"}:
        channel["x-partition-test-vectors"] = [
            {"key": key, **{f"of-{count}": murmur2_partition(key.encode(), count) for count in (4, 12)}}
            for key in VECTOR_KEYS
        ]
    return channel


def _operation(actor: str, action: str, role: str, summary: str, settings: Settings) -> tuple[str, Json]:
    operation: Json = {
        "action": action,
        "summary": summary,
        "channel": {"$ref": f"#/channels/{role}"},
        "messages": [{"$ref": f"#/channels/{role}/messages/{role}"}],
        "tags": [{"name": actor}],
    }
    # Read by assignment, outside any group.
    is_broadcast = role == "models" or actor == "refit" or (actor == "scorer" and role in {"snapshots", "risk"})
    if action == "receive" and not is_broadcast:
        group = settings.scorer_group if actor == "scorer" else settings.learner_group
        binding = {"groupId": {"type": "string", "enum": [group]}, "bindingVersion": BINDING}
        operation["bindings"] = {"kafka": binding}
    name = "".join(part.capitalize() for part in role.split("_"))
    return f"{actor}{action.capitalize()}{name}", operation


def _messages() -> Json:
    described = {message.role: _message(message) for message in MESSAGES}
    described["alerts"]["headers"] = _alert_headers()
    described["risk"] = {
        "name": "risk",
        "title": "Risk row",
        "summary": "Fraud counts of one merchant or card from labels, at the snapshot in its header.",
        "contentType": "application/vnd.msgpack",
        "headers": _headers({VERSION_HEADER: {"description": "`version` of the snapshot that the row belongs to"}}),
        "payload": {
            "description": "A MessagePack array. A null value (tombstone) removes the row.",
            "anyOf": [_risk_row(), {"type": "null"}],
        },
        "bindings": _key("risk"),
    }
    described["models"] = {
        "name": "models",
        "title": "Model",
        "summary": "A promoted pretrained model. Under the key `re-fit`: the result of the newest re-fit.",
        "contentType": "application/vnd.msgpack",
        "payload": {
            "description": "The files of an artifact: a MessagePack map of name and content. The manifest has digests. "
            "The result of a re-fit is a JSON object: `champion` and `challenger` with their average precision, "
            "`margin`, and the version `promoted`, if any.",
        },
        "bindings": _key("models"),
    }
    described["dead_letters"] = {
        "name": "dead_letters",
        "title": "Dead letter",
        "summary": "A rejected message. `dead-letters.md` says what to do about each reason.",
        "contentType": "application/octet-stream",
        "headers": _dead_letter_headers(),
        "payload": {"description": "The value of the original message, byte for byte. Null if it had none."},
        "bindings": _key("dead_letters"),
    }
    return described


def _message(message: Message) -> Json:
    summary, _, _ = (getdoc(message.type) or "").partition("\n\n")
    described: Json = {
        "name": message.slug,
        "title": message.title,
        "summary": _unwrapped(summary),
        "contentType": JSON_TYPE,
        "payload": {"$ref": f"#/components/schemas/{message.type.__name__}"},
        "bindings": _key(message.role),
    }
    if message.examples:
        described["examples"] = [{"name": message.slug, "payload": example} for example in message.examples]
    return described


def _key(role: str) -> Json:
    return {"kafka": {"key": KEYS[role], "bindingVersion": BINDING}}


def _headers(properties: dict[str, Json]) -> Json:
    """Describe headers that are always present, as UTF-8 text."""
    texts = {name: {"type": "string", **facts} for name, facts in properties.items()}
    return {"type": "object", "properties": texts, "required": list(properties)}


def _alert_headers() -> Json:
    return {
        "description": "CloudEvents 1.0, binary content mode of the Kafka protocol binding.",
        **_headers(
            {
                "ce_specversion": {"const": "1.0"},
                "ce_id": {
                    "format": "uuid",
                    "description": "The same for the same card, id, event time, amount, currency and merchant",
                },
                "ce_source": {"const": ALERT_SOURCE},
                "ce_type": {"const": ALERT_TYPE},
                "ce_time": {"format": "date-time", "description": "Event time of the transaction"},
                "ce_subject": {"description": "`transaction_id`"},
                "content-type": {"const": JSON_TYPE},
            }
        ),
    }


def _dead_letter_headers() -> Json:
    described = _headers(
        {
            "fraud-reason": {"enum": [reason.value for reason in DeadLetterReason]},
            "fraud-detail": {"description": "What was wrong, as text for people"},
            "fraud-source-topic": {"description": "Topic of the original message"},
            "fraud-source-partition": {"pattern": "^[0-9]+$", "description": "Its partition"},
            "fraud-source-offset": {"pattern": "^[0-9]+$", "description": "Its offset"},
        }
    )
    described["properties"][BATCH_FIRST] = {
        "type": "string",
        "pattern": "^[0-9]+$",
        "description": "Only for a batch that cannot be decompressed: its first offset. The source offset is its last",
    }
    for part, most in (("content", MAX_EVENT_BYTES), ("key", MAX_KEY_BYTES)):
        described["properties"][f"fraud-{part}-length"] = {
            "type": "string",
            "pattern": "^[0-9]+$",
            "description": f"Only if it had more than {most} bytes, or too many after masking: its length in bytes",
        }
        described["properties"][f"fraud-{part}-sha256"] = {
            "type": "string",
            "pattern": "^[0-9a-f]{64}$",
            "description": f"Only if it had more than {most} bytes: its SHA-256",
        }
    described["properties"]["fraud-masked"] = {
        "const": "card data",
        "description": "Only if card data was found. In value and key, its kind in brackets replaces it",
    }
    return described


def _risk_row() -> Json:
    row = _array(Risk)
    row["items"][0]["items"] = _array(RiskDay)
    return row


def _array(kind: type[msgspec.Struct]) -> Json:
    """Describe a struct that is encoded as an array, by position, as in draft-07."""
    definition = msgspec.json.schema(kind)["$defs"][kind.__name__]
    names = kind.__struct_fields__
    return {
        "type": "array",
        "title": kind.__name__,
        "description": _unwrapped(definition["description"]),
        "items": [{"title": name, **item} for name, item in zip(names, definition["prefixItems"], strict=True)],
        "minItems": len(names),
    }
