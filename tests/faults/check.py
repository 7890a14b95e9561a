"""TEMPORARY: replaced by fraud_service.audit at the merge."""

from __future__ import annotations

from collections import Counter

from support.processes import read_all

from fraud_service.domain.events import decode_transaction
from fraud_service.domain.records import decode_score


def verdict(settings):
    names = settings.topics
    letters = {
        (int(dict(m.headers())["fraud-source-partition"]), int(dict(m.headers())["fraud-source-offset"]))
        for m in read_all(settings, names.dead_letters)
    }
    sent, got = {}, {}
    for m in sorted(read_all(settings, names.transactions), key=lambda m: m.offset()):
        if (m.partition(), m.offset()) not in letters:
            sent.setdefault(m.partition(), []).append(decode_transaction(m.value()).transaction_id)
    for m in sorted(read_all(settings, names.scores), key=lambda m: m.offset()):
        got.setdefault(m.partition(), []).append(decode_score(m.value()).transaction_id)
    lost = doubled = anomalies = 0
    for p in sent:
        a, b = Counter(sent[p]), Counter(got.get(p, []))
        lost += (a - b).total()
        doubled += (b - a).total()
        anomalies += sent[p] != got.get(p, [])
    alerts = Counter(dict(m.headers())["ce_id"] for m in read_all(settings, names.alerts))
    doubled += sum(n - 1 for n in alerts.values())
    return lost, doubled, anomalies
