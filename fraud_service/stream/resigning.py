"""Records signed anew with the key that signs now: when signing begins, and before an old key is taken away.

Risk rows stay on their topic for as long as nothing changes them, so a key that signed one is needed as long. The
learner must not run meanwhile: a row that it writes between our reading and our writing would be undone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from fraud_service.domain.signature import Refusal
from fraud_service.domain.snapshot import KEPT, decode_snapshot
from fraud_service.errors import ConfigurationError, RefusedRecord
from fraud_service.stream import clients, promotions, signing, standing
from fraud_service.stream.archive import Archive
from fraud_service.stream.broadcast import VERSION_HEADER
from fraud_service.stream.log_limits import RateLimitedLog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fraud_service.domain.signature import Keyring
    from fraud_service.settings import Settings
    from fraud_service.stream.archive import Entry
    from fraud_service.stream.messages import Headers

log = structlog.get_logger(__name__)


class Lenient(promotions.Gate):
    """Lets what is not signed pass too: somebody vouches for it."""

    def admit(self, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Raise `RefusedRecord` for one that is signed, and wrongly."""
        try:
            super().admit(key, value, headers)
        except RefusedRecord as error:
            if error.reason != Refusal.UNSIGNED:
                raise


def sign_anew(settings: Settings, *, unsigned: bool, really: bool) -> Iterator[str]:
    """Publish again, signed with the key that signs now, what is in force; yields what is done, a line each.

    Parameters
    ----------
    unsigned
        Sign what no key has signed too: whoever says so vouches for what lies on the topics.

    Raises
    ------
    ConfigurationError
        When there is no key.
    PreflightError
        When the learner runs.
    InvalidRecord
        When a snapshot that would be signed does not match its digest.
    """
    keyring = signing.keyring(settings)
    if not keyring.is_demanding:
        raise ConfigurationError("there is no key to sign with: set FRAUD_SIGNING_KEYS")
    standing.require_stopped(settings, settings.learner_group)
    gate = Lenient(keyring) if unsigned else promotions.Gate(keyring)
    models = [(record.key, record.value) for record in promotions.promoted(settings, gate)]
    rows = _last(settings, settings.topics.risk, "risk", keyring, unsigned=unsigned)
    snapshots = _recent(_last(settings, settings.topics.snapshots, "snapshots", keyring, unsigned=unsigned))
    yield f"with key {keyring.active}: {len(models)} models, {len(rows)} risk rows, {len(snapshots)} snapshots"
    if not really:
        yield "nothing was done: add --yes to do it"
        return
    if models:
        promotions.publish_all(settings, gate, models)
    clients.deliver(settings, _signed(keyring, "risk", rows))
    clients.deliver(settings, _signed(keyring, "snapshots", snapshots))
    yield "done"


def _last(settings: Settings, topic: str, role: str, keyring: Keyring, *, unsigned: bool) -> list[Entry]:
    """Return the newest record of each key that may be believed, in order."""
    found: dict[bytes | None, Entry] = {}
    refused = RateLimitedLog(log.warning, "record_not_signed_anew")
    with Archive(settings, f"fraud-sign-{role}") as archive:
        for entry in archive.read(topic, 0):
            try:
                keyring.require(role, entry.key, entry.value, entry.headers)
            except RefusedRecord as error:
                if error.reason != Refusal.UNSIGNED or not unsigned:
                    refused(error.reason, reason=str(error), topic=topic, offset=entry.offset)
                    continue
            before = found.get(entry.key)
            if before is None or _version(before) <= _version(entry):  # one that was sent a second time is not newer
                found.pop(entry.key, None)
                found[entry.key] = entry
    refused.flush(final=True)
    return list(found.values())


def _version(entry: Entry) -> str:
    """Return the snapshot that a risk row names; versions begin with their boundary."""
    return entry.header(VERSION_HEADER) or ""


def _recent(entries: list[Entry]) -> list[Entry]:
    """Keep the snapshots that a scorer keeps in memory. Raises `InvalidRecord` when one cannot be trusted."""
    dated = [(decode_snapshot(entry.value or b"").as_of, entry) for entry in entries]
    newest = max((as_of for as_of, _ in dated), default=0)
    return [entry for as_of, entry in dated if as_of > newest - KEPT]


def _signed(keyring: Keyring, role: str, entries: list[Entry]) -> Iterator[clients.Record]:
    for entry in entries:
        headers = keyring.signed(role, entry.key, entry.value, entry.headers)
        yield clients.Record(entry.topic, entry.key, entry.value, headers)
