"""The snapshot record: what labels taught up to an event-time boundary, with a digest over all of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Final

import msgspec

from fraud_service.domain.codec import Count, ModelVersion, Moment, decode
from fraud_service.domain.errors import InvalidRecord
from fraud_service.domain.online_model import OnlineModel
from fraud_service.domain.risk import RiskTable

UNTRAINED: Final = "untrained"  # begins the version of the snapshot before any label; published
SWITCHED_OFF: Final = "+online-off"  # ends the version of a snapshot whose online model is switched off
VERSION: Final = re.compile(r"\d{8,9}T\d{4}-[0-9a-f]{8}", re.ASCII)  # as in `Snapshot.with_digest`
MAX_BYTES: Final = 1 << 20  # the largest model makes a snapshot of 50 KB


class Snapshot(msgspec.Struct, frozen=True):
    """What labels taught up to the boundary `as_of`. Equal versions have equal bits. Times are epoch milliseconds.

    Transactions use it from the event time `effective_from` on. `interval` is the time between boundaries. `model` is
    the version of the pretrained model that the online model belongs to. `examples` counts the labelled examples so
    far; those before the first maturity trained risk only. `label_horizon` is when the newest of their labels became
    known. `risk_rows` is the number of risk rows that changed with this snapshot, `risk_digest` the digest of the whole
    risk table. `digest` is the SHA-256 of all other fields; `version` contains its beginning.
    """

    version: str
    as_of: Moment
    effective_from: Moment
    interval: Count
    model: ModelVersion
    online: OnlineModel
    online_weight: Annotated[float, msgspec.Meta(ge=0, le=1)]
    examples: Count
    label_horizon: Moment
    risk_rows: Count
    risk_digest: str
    digest: str = ""

    def with_digest(self) -> Snapshot:
        """Return the snapshot with its digest and version filled in."""
        digest = self._content_digest()
        moment = datetime.fromtimestamp(self.as_of / 1000, UTC)
        return msgspec.structs.replace(self, digest=digest, version=f"{moment:%Y%m%dT%H%M}-{digest[:8]}")

    def verify_digest(self) -> None:
        """Raise `InvalidRecord` unless digest and version match the content."""
        try:
            expected = self.with_digest()
        except (OverflowError, ValueError, OSError) as error:  # depends on the platform and the year
            raise InvalidRecord(f"`as_of` of a snapshot is not a valid time: {error}") from error
        if self != expected:
            raise InvalidRecord(f"snapshot {self.version} does not match its digest: it was altered or truncated")
        self.online.require_consistent()

    def _content_digest(self) -> str:
        content = msgspec.structs.replace(self, version="", digest="")
        return sha256(msgspec.json.encode(content)).hexdigest()

    def is_stale_at(self, timestamp: int) -> bool:
        """Whether a newer snapshot should be active at this event time."""
        return not self.is_untrained and timestamp >= self.effective_from + self.interval

    @property
    def is_untrained(self) -> bool:
        """Whether this is the snapshot before any label."""
        return self.version.startswith(UNTRAINED)

    def without_online_model(self) -> Snapshot:
        """Return the snapshot with the online model switched off, and a version that says so.

        A score names this version, so a replay can compute the same score again.
        """
        return msgspec.structs.replace(self, version=self.version + SWITCHED_OFF, online_weight=0.0)


def untrained(model: str, online: OnlineModel) -> Snapshot:
    """Return the snapshot before any label: its online score equals the pretrained score."""
    return Snapshot(UNTRAINED, 0, 0, 0, model, online, 0.5, 0, 0, 0, RiskTable().digest())


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Snapshot)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Encode a snapshot as JSON; floats keep every bit."""
    return _encoder.encode(snapshot)


def decode_snapshot(data: bytes) -> Snapshot:
    """Decode a snapshot and check its digest.

    Raises
    ------
    InvalidRecord
        If it cannot be read, is too large, or was altered.
    """
    if len(data) > MAX_BYTES:
        raise InvalidRecord(f"a snapshot has {len(data)} bytes; at most {MAX_BYTES} are allowed")
    snapshot = decode(_decoder, data, "a snapshot record")
    snapshot.verify_digest()
    return snapshot
