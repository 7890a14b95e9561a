"""Sign and verify the records that change scores: snapshots, risk rows, promoted models and switches.

A signature is HMAC-SHA-256 (RFC 2104) over the deployment, the role of the topic, key, value and all `fraud-` headers.
Readers verify it before they parse the record. So a record cannot be altered, put under another key, given another
version, moved to another topic, or copied from staging to production.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec

from fraud_service.domain.errors import RejectedRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    Headers = Sequence[tuple[str, bytes | None]]

KEY_HEADER: Final = "fraud-key"
SIGNATURE_HEADER: Final = "fraud-signature"
HEADER_PREFIX: Final = "fraud-"  # others, such as those of tracing, are not signed


class RejectReason(StrEnum):
    """Why a record was rejected. A closed set, because it labels a metric."""

    UNSIGNED = "unsigned"
    UNKNOWN_KEY = "unknown_key"
    FORGED = "forged"
    REPLAYED = "replayed"
    INVALID = "invalid"


class Keyring(msgspec.Struct, frozen=True):
    """The keys by name. New signatures use the `active` key; those of all keys are valid. Without keys: no signatures.

    `deployment` is part of every signature. None: for signatures of earlier versions, which had no deployment.
    """

    keys: Mapping[str, bytes] = {}
    active: str = ""
    deployment: str | None = ""

    def __repr__(self) -> str:
        return f"Keyring({', '.join(sorted(self.keys))}; active: {self.active or 'none'})"

    @property
    def requires_signatures(self) -> bool:
        """Whether records must be signed."""
        return bool(self.keys)

    def sign_headers(
        self, role: str, key: bytes | None, value: bytes | None, headers: Headers
    ) -> list[tuple[str, bytes]]:
        """Return the headers with key name and signature; unchanged if there is no key.

        `role` is that of the topic, as in the table of topics: one key signs for several topics.
        """
        plain = [(name, content or b"") for name, content in headers if name not in {KEY_HEADER, SIGNATURE_HEADER}]
        if not self.requires_signatures:
            return plain
        named = [*plain, (KEY_HEADER, self.active.encode())]
        return [*named, (SIGNATURE_HEADER, self._signature(self.keys[self.active], role, key, value, named))]

    def require_signature(self, role: str, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Raise `RejectedRecord`, with a `RejectReason`, unless one of the keys signed the record."""
        if not self.requires_signatures:
            return
        found = dict(headers)
        name, given = found.get(KEY_HEADER), found.get(SIGNATURE_HEADER)
        record = f"a record on the topic of {role}"
        if not name or not given:
            raise RejectedRecord(RejectReason.UNSIGNED, f"{record} is not signed")
        secret = self.keys.get(name.decode(errors="replace"))
        if secret is None:
            raise RejectedRecord(RejectReason.UNKNOWN_KEY, f"{record} is signed with an unknown key")
        covered = [(header, content or b"") for header, content in headers if header != SIGNATURE_HEADER]
        if not hmac.compare_digest(self._signature(secret, role, key, value, covered), given):
            raise RejectedRecord(RejectReason.FORGED, f"{record} does not match its signature")

    def _signature(
        self, secret: bytes, role: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]]
    ) -> bytes:
        """Return the signature. MessagePack separates the parts, and None from empty, so records never collide."""
        ours = [header for header in headers if header[0].startswith(HEADER_PREFIX)]
        place = (role,) if self.deployment is None else (self.deployment, role)
        content = msgspec.msgpack.encode((*place, key, value, ours))
        return hmac.new(secret, content, "sha256").hexdigest().encode()
