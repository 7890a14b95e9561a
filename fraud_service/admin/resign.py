"""Re-sign records with the active key: when signing is introduced, and before an old key is removed.

A risk row stays on its topic until the learner changes it, so the key that signed it is needed until then. The learner
must be stopped: re-signing would overwrite a row that the learner writes meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from fraud_service.config.keyring import require_keyring
from fraud_service.config.log_rate_limit import RateLimitedLog
from fraud_service.domain.detector import MAX_MODELS
from fraud_service.domain.errors import InvalidRecord, RejectedRecord
from fraud_service.domain.snapshot import RETENTION_MS, decode_snapshot
from fraud_service.kafka import consumer_groups, model_topic, sender
from fraud_service.kafka.topic_reader import TopicReader
from fraud_service.processors.snapshot_reader import VERSION_HEADER, risk_row
from fraud_service.security.signatures import Keyring, RejectReason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from fraud_service.config.settings import Settings
    from fraud_service.kafka.topic_reader import Record
    from fraud_service.security.signatures import Headers

log = structlog.get_logger(__name__)


class LenientKeyring(Keyring, frozen=True):
    """A keyring that also accepts unsigned or unbound records, because the operator vouches for them."""

    unsigned: bool = False
    unbound: bool = False

    @property
    def requires_signatures(self) -> bool:
        """Whether every record must be signed, and so have a sequence number."""
        return not self.unsigned

    def require_signature(self, role: str, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Raise `RejectedRecord` unless the record is signed or the operator vouches for it."""
        try:
            Keyring(self.keys, self.active, self.deployment).require_signature(role, key, value, headers)
        except RejectedRecord as error:
            if error.reason == RejectReason.FORGED and self.unbound:
                Keyring(self.keys, self.active, deployment=None).require_signature(role, key, value, headers)
            elif error.reason != RejectReason.UNSIGNED or not self.unsigned:
                raise


def re_sign(settings: Settings, *, unsigned: bool, unbound: bool, really: bool) -> Iterator[str]:
    """Publish models, risk rows and snapshots that are in use again, signed with the active key. Yields progress lines.

    The operator vouches for records that are not signed (`unsigned`) or whose signature names no deployment
    (`unbound`). The latter may come from another deployment.
    """
    keyring = require_keyring(settings)
    consumer_groups.require_stopped(settings, settings.learner_group)
    lenient = LenientKeyring(keyring.keys, keyring.active, keyring.deployment, unsigned=unsigned, unbound=unbound)
    guard = model_topic.ReplayGuard(lenient)
    models = _models_in_use(model_topic.promoted(settings, guard))
    rows = _last(settings, "risk", lenient)
    snapshots = _recent(_last(settings, "snapshots", lenient))
    yield f"with key {keyring.active}: {len(models)} models, {len(rows)} risk rows, {len(snapshots)} snapshots"
    if not really:
        yield "nothing was done: add --yes to do it"
        return
    if models:
        model_topic.publish_all(settings, guard, models)
    for role, entries in (("risk", rows), ("snapshots", snapshots)):
        sender.produce_all(settings, (_signed(keyring, role, entry) for entry in entries))
    yield "done"


def _models_in_use(records: Iterable[model_topic.PromotedModel]) -> list[tuple[bytes, bytes]]:
    """Return the newest switch and re-fit report, and as many of the newest models as scorers load, in order."""
    found: dict[bytes, bytes] = {}
    for record in records:
        found.pop(record.key, None)
        found[record.key] = record.value
        models = [key for key in found if key not in model_topic.NON_MODEL_KEYS]
        if len(models) > MAX_MODELS:
            del found[models[0]]
    return list(found.items())


def _last(settings: Settings, role: str, keyring: Keyring) -> list[Record]:
    """Return the newest accepted record of each key, in order."""
    found: dict[bytes | None, Record] = {}
    refused = RateLimitedLog(log.warning, "record_not_re_signed")
    topic = getattr(settings.topics, role)
    with TopicReader(settings, f"fraud-sign-{role}") as reader:
        for entry in reader.read(topic, 0):
            try:
                keyring.require_signature(role, entry.key, entry.value, entry.headers)
                _READ[role](entry)
            except InvalidRecord as error:
                refused(error.reason, reason=str(error), topic=topic, offset=entry.offset)
                continue
            before = found.get(entry.key)
            if before is None or _version(before) <= _version(entry):  # a replayed row is not newer
                found.pop(entry.key, None)
                found[entry.key] = entry
    refused.flush(final=True)
    return list(found.values())


_READ: Final[Mapping[str, Callable[[Record], object]]] = {
    "risk": lambda entry: risk_row(entry.key, entry.value, entry.headers),
    "snapshots": lambda entry: decode_snapshot(entry.value or b""),
}


def _version(entry: Record) -> str:
    """Return the snapshot that a risk row names. Versions begin with their boundary, so they sort by time."""
    return entry.header(VERSION_HEADER) or ""


def _recent(entries: list[Record]) -> list[Record]:
    """Return the snapshots that scorers keep in memory."""
    dated = [(decode_snapshot(entry.value or b"").as_of, entry) for entry in entries]
    newest = max((as_of for as_of, _ in dated), default=0)
    return [entry for as_of, entry in dated if as_of > newest - RETENTION_MS]


def _signed(keyring: Keyring, role: str, entry: Record) -> sender.OutgoingRecord:
    headers = keyring.sign_headers(role, entry.key, entry.value, entry.headers)
    return sender.OutgoingRecord(entry.topic, entry.key, entry.value, headers)
