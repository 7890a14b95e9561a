"""Signatures on what scorers believe: snapshots, risk rows, promoted models and switches.

HMAC-SHA-256 (RFC 2104) over the deployment, the role of the topic, key, value and every other header of ours, verified
before anything is parsed. So a record cannot be altered, put under another key, moved to another topic, given another
version, or copied from staging to production where both have the same key.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec

from fraud_service.domain.errors import RefusedRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    Headers = Sequence[tuple[str, bytes | None]]

KEY_HEADER: Final = "fraud-key"
SIGNATURE_HEADER: Final = "fraud-signature"
HEADER_PREFIX: Final = "fraud-"  # headers that others add on the way, as tracing does, are no part of the record


class RejectReason(StrEnum):
    """Why a record was not believed. A closed set: it labels a metric."""

    UNSIGNED = "unsigned"
    UNKNOWN_KEY = "unknown_key"
    FORGED = "forged"
    REPLAYED = "replayed"
    INVALID = "invalid"


class Keyring(msgspec.Struct, frozen=True):
    """The secrets by their names; new records are signed with the `active` one. Without any, nothing is verified.

    `deployment` is part of every signature; with None, signatures of earlier versions are valid, which named none.
    """

    keys: Mapping[str, bytes] = {}
    active: str = ""
    deployment: str | None = ""

    def __repr__(self) -> str:
        return f"Keyring({', '.join(sorted(self.keys))}; active: {self.active or 'none'})"

    @property
    def is_demanding(self) -> bool:
        """Whether records must be signed."""
        return bool(self.keys)

    def signed(self, role: str, key: bytes | None, value: bytes | None, headers: Headers) -> list[tuple[str, bytes]]:
        """Return the headers of a record with key name and signature; as they were, where there is no key.

        Parameters
        ----------
        role
            Of the topic, as in the table of topics: the same key signs for several.
        """
        plain = [(name, content or b"") for name, content in headers if name not in {KEY_HEADER, SIGNATURE_HEADER}]
        if not self.is_demanding:
            return plain
        named = [*plain, (KEY_HEADER, self.active.encode())]
        return [*named, (SIGNATURE_HEADER, self._signature(self.keys[self.active], role, key, value, named))]

    def require(self, role: str, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Refuse a record that none of our keys has signed just so.

        Raises
        ------
        RefusedRecord
            With the reason, one of `RejectReason`.
        """
        if not self.is_demanding:
            return
        found = dict(headers)
        name, given = found.get(KEY_HEADER), found.get(SIGNATURE_HEADER)
        if not name or not given:
            raise RefusedRecord(RejectReason.UNSIGNED, f"a record on the topic of {role} is not signed")
        secret = self.keys.get(name.decode(errors="replace"))
        if secret is None:
            raise RefusedRecord(
                RejectReason.UNKNOWN_KEY, f"a record on the topic of {role} is signed with an unknown key"
            )
        covered = [(header, content or b"") for header, content in headers if header != SIGNATURE_HEADER]
        if not hmac.compare_digest(self._signature(secret, role, key, value, covered), given):
            raise RefusedRecord(RejectReason.FORGED, f"a record on the topic of {role} does not match its signature")

    def _signature(
        self, secret: bytes, role: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]]
    ) -> bytes:
        """Sign. MessagePack tells where each part ends, and nothing from what is empty: no two records are alike."""
        ours = [header for header in headers if header[0].startswith(HEADER_PREFIX)]
        place = (role,) if self.deployment is None else (self.deployment, role)
        content = msgspec.msgpack.encode((*place, key, value, ours))
        return hmac.new(secret, content, "sha256").hexdigest().encode()
