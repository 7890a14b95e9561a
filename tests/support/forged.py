"""Forged records on the internal topics of scorers and learners, and among the dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from support.worlds import MONDAY, snapshot

from fraud_service.config.keyring import load_keyring
from fraud_service.domain.records import SwitchRecord, encode_record
from fraud_service.domain.risk import NO_RISK, encode_risk
from fraud_service.domain.snapshot import encode_snapshot
from fraud_service.kafka import model_topic
from fraud_service.models import artifact
from fraud_service.processors.snapshot_reader import VERSION_HEADER
from fraud_service.security.signatures import Keyring

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fraud_service.config.settings import Settings

Forged = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]

VERSION = [(VERSION_HEADER, b"20240101T0000-0123abcd")]
NUMBER = [(model_topic.SEQUENCE_HEADER, b"9" * model_topic.MAX_SEQUENCE_DIGITS)]
SWITCHED_OFF = encode_record(SwitchRecord(online=False, at=1))


def _models() -> list[Forged]:
    """Return model records that would end a process at each start."""
    shipped = artifact.read(artifact.shipped_folder())
    huge = msgspec.structs.replace(shipped, manifest=msgspec.structs.replace(shipped.manifest, leaves=int(1e11)))
    refit = (
        b'{"at":1' + b"0" * 400 + b',"champion_model":"m","champion":null,"challenger":null,"margin":0.01,'
        b'"span_days":1,"rows":1,"frauds":1,"promoted":null}'
    )
    return [
        (b"forest-1", artifact.pack(huge), []),
        (b"forest-2", b"\x81" * 100_000, []),
        (b"forest-3", b"", [("fraud-sequence", None)]),
        (None, b"junk", [("fraud-sequence", b"\xff"), ("fraud-sequence", b"1")]),
        (b"\xff\xfe", None, []),
        (b"re-fit", refit, []),
        (b"online", b'{"online":true,"at":1' + b"0" * 400 + b"}", []),
        (b"online", b"[" * 100_000, []),
    ]


def _bent() -> bytes:
    return encode_snapshot(
        msgspec.structs.replace(snapshot(MONDAY, {}, {}), online_weight=9.0, examples=10**300).with_digest()
    )


# By the role of the topic.
RECORDS: dict[str, list[Forged]] = {
    "models": _models(),
    "snapshots": [(b"v", _bent(), []), (None, b"[" * 100_000, []), (b"v", None, [])],
    "risk": [
        (b"merchant:m-1", b"no row", VERSION),
        (b"\xff", b"", VERSION),
        (b"card:c", b"", [(VERSION_HEADER, None)]),
    ],
}


def unbelieved(settings: Settings) -> Iterator[tuple[str, Forged]]:
    """Yield, by topic, records that every process must reject if records are signed.

    Each record comes unsigned and with a foreign signature. Some would be valid with the right key for this deployment.
    """
    ring = load_keyring(settings)
    elsewhere = [
        Keyring(ring.keys, ring.active, "staging"),
        Keyring({"stranger": b"x" * 32}, "stranger", ring.deployment),
        Keyring({ring.active: b"x" * 32}, ring.active, ring.deployment),
    ]
    good: dict[str, list[Forged]] = {
        "models": [
            (model_topic.SWITCH_KEY.encode(), SWITCHED_OFF, NUMBER),
            (b"forest-9", artifact.pack(artifact.read(artifact.shipped_folder())), NUMBER),
        ],
        "risk": [(b"card:c", encode_risk(NO_RISK), VERSION)],
    }
    for role, records in RECORDS.items():
        for record in [*records, *good.get(role, [])]:
            yield getattr(settings.topics, role), record
            for other in elsewhere:
                key, value, headers = record
                yield getattr(settings.topics, role), (key, value, other.sign_headers(role, key, value, headers))


def letters(settings: Settings, places: dict[int, tuple[int, bytes]]) -> Iterator[tuple[int, Forged]]:
    """Yield forged dead letters and marks, each with its partition.

    Parameters
    ----------
    places
        Offset and key of a genuine dead letter, by partition.
    """
    names = settings.topics
    for topic, offset in ((names.models, 0), (names.scores, 0), (names.labels, 2**62), ("no such topic", 1)):
        yield 0, (b"online", SWITCHED_OFF, _source(topic, offset))
    yield 0, (None, None, [])
    yield 0, (b"\xff", b"\0" * 100_000, [("fraud-reason", None)])
    yield 0, (b"c", b"{}", _source("t" * 100_000, 0))
    yield 0, (b"c", None, [("fraud-redriven-offset", b"x" * 100_000)])
    yield 0, (b"c", None, [("fraud-redriven-offset", b"9" * 18)])
    for partition, (offset, key) in places.items():
        yield partition, (b"not " + key, None, [("fraud-redriven-offset", str(offset).encode())])


def _source(topic: str, offset: int) -> list[tuple[str, bytes]]:
    place = {"topic": topic, "partition": 0, "offset": offset}
    return [
        ("fraud-reason", b"not_json"),
        *((f"fraud-source-{name}", str(text).encode()) for name, text in place.items()),
    ]
