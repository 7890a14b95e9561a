"""Replay: a log with late labels, snapshots and a promotion is identical, and every flipped bit is found."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.replayed import START, WHOLE, copy, played, verified

from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.profile import SCHEMA
from fraud_service.domain.records import decode_score, encode_record
from fraud_service.domain.time import DAY
from fraud_service.verification import replay
from fraud_service.verification.decisions import Checkpoint, DecisionVerifier, TimeRange
from fraud_service.verification.report import FindingKind

event = st.tuples(
    st.integers(0, 3), st.integers(0, 2), st.sampled_from([1.0, 25.0, 800.0]), st.integers(0, 9),
    st.none() | st.integers(1, 60), st.booleans(),
)  # fmt: skip


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(event, min_size=5, max_size=60), st.none() | st.integers(0, 40))
def test_every_score_is_recomputed_bit_for_bit_with_late_labels_duplicates_and_promotions(events, promoted_at):
    with tempfile.TemporaryDirectory() as folder:
        log = played(Path(folder), events, promoted_at)
    found = verified(log)
    assert (found.findings, found.rejected, found.incomplete) == ([], [], [])
    assert found.counts == {"identical": len(log.on("scores"))}


def test_the_log_names_many_snapshots_and_both_models(log):
    scores = [decode_score(entry.value) for entry in log.on("scores")]
    assert len({score.snapshot for score in scores}) > 20
    assert {score.model for score in scores} > {"forest-promoted"}
    assert {score.outcome for score in scores} > {"approve"}
    assert verified(log).counts == {"identical": len(scores)}


def flipped(value: float) -> float:
    return msgspec.json.decode(msgspec.json.encode(value)) * (1 + 2**-50)


SCORED = {
    "score": FindingKind.SCORE,
    "pretrained_logit": FindingKind.SCORE,
    "online_weight": FindingKind.SCORE,
    "amount": FindingKind.FACTS,
    "is_stale": FindingKind.FACTS,
}


@pytest.mark.parametrize("field", SCORED)
def test_a_changed_field_of_a_score_is_reported_by_its_name(log, field):
    altered = copy(log)
    entry = altered.on("scores")[100]
    record = decode_score(entry.value)
    value = getattr(record, field)
    changed = not value if isinstance(value, bool) else flipped(value)
    altered.replace(entry, value=encode_record(msgspec.structs.replace(record, **{field: changed})))
    (finding,) = verified(altered).findings
    assert (finding.kind, finding.transaction_id) == (SCORED[field], record.transaction_id)
    assert finding.detail.startswith(f"{field}: logged ")


def test_a_changed_feature_is_reported_by_its_name(log):
    altered = copy(log)
    entry = altered.on("scores")[70]
    record = decode_score(entry.value)
    features = msgspec.structs.replace(record.features, amount_zscore=flipped(record.features.amount_zscore) + 2**-40)
    altered.replace(entry, value=encode_record(msgspec.structs.replace(record, features=features)))
    (finding,) = verified(altered).findings
    assert (finding.kind, finding.transaction_id) == (FindingKind.FEATURES, record.transaction_id)
    assert finding.detail.startswith("amount_zscore: logged ")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_bit_flipped_in_any_score_is_found(log, data):
    entry = data.draw(st.sampled_from(log.on("scores")))
    place, bit = data.draw(st.integers(0, len(entry.value) - 1)), data.draw(st.integers(0, 7))
    value = bytearray(entry.value)
    value[place] ^= 1 << bit
    altered = copy(log)
    altered.replace(entry, value=bytes(value))
    assert verified(altered).differences >= 1


def test_a_snapshot_with_a_flipped_bit_is_rejected_and_the_scores_that_name_it_are_reported(log):
    altered = copy(log)
    entry = altered.on("snapshots")[20]
    altered.replace(entry, value=entry.value.replace(b'"intercept":', b'"intercept":1', 1))
    found = verified(altered)
    version = entry.key.decode()
    assert len(found.rejected) == 1
    assert version in found.rejected[0]
    naming = [s for e in log.on("scores") if (s := decode_score(e.value)).snapshot == version and not s.is_duplicate]
    unknown = [one for one in found.findings if one.kind is FindingKind.SNAPSHOT_UNKNOWN]
    assert {one.transaction_id for one in unknown} == {score.transaction_id for score in naming} != set()


def test_with_keys_a_replay_rejects_unsigned_records(tmp_path):
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "2026").write_bytes(b"k" * 32)
    events = [(n % 3, n % 2, 900.0 if n % 8 == 0 else 20.0, n % 3, 30, n % 8 == 0) for n in range(60)]
    signed = played(tmp_path / "state", events, signing_key_dir=keys, deployment="test")
    found = verified(signed)
    assert (found.findings, found.rejected) == ([], [])
    named = Counter(decode_score(entry.value).snapshot for entry in signed.on("scores"))
    entry = next(one for one in signed.on("snapshots") if named[one.key.decode()])
    signed.replace(entry, headers=[])
    found = verified(signed)
    assert found.rejected[0].endswith(f"({entry.key.decode()}): a record on the topic of snapshots is not signed")
    assert {one.kind for one in found.findings} == {FindingKind.SNAPSHOT_UNKNOWN}


def test_an_altered_risk_row_is_reported_and_the_scores_are_verified_with_the_rebuilt_row(log):
    altered = copy(log)
    entry = next(entry for entry in altered.on("risk") if entry.value)
    altered.replace(entry, value=entry.value[:-1] + bytes([entry.value[-1] ^ 1]))
    found = verified(altered)
    version = entry.header("fraud-snapshot")
    assert found.rejected == [f"snapshot {version}: risk row {entry.key.decode()} differs"]
    assert found.counts == {"identical": len(log.on("scores"))}
    assert found.differences == 1


def test_risk_rows_that_compaction_removed_are_rebuilt_from_the_labelled_examples(log):
    altered = copy(log)
    newest = {entry.key: entry for entry in altered.on("risk")}
    for entry in altered.on("risk"):
        if entry is not newest[entry.key]:
            altered.remove(entry)
    found = verified(altered)
    assert found.counts == {"identical": len(log.on("scores"))}
    assert (found.differences, found.incomplete) == (0, [])


def test_without_risk_rows_and_examples_the_scores_of_a_snapshot_are_reported(log):
    altered = copy(log)
    newest = {entry.key: entry for entry in altered.on("risk")}
    for entry in altered.on("risk"):
        if entry is not newest[entry.key]:
            altered.remove(entry)
    altered.cut("labelled", 0.5)
    found = verified(altered)
    assert found.incomplete
    assert set(found.counts) == {"identical", FindingKind.SNAPSHOT_UNKNOWN}


def test_a_promoted_model_with_a_flipped_bit_is_rejected_and_its_scores_are_reported(log):
    altered = copy(log)
    (entry,) = altered.on("models")
    place = len(entry.value) // 2
    altered.replace(entry, value=entry.value[:place] + bytes([entry.value[place] ^ 4]) + entry.value[place + 1 :])
    found = verified(altered)
    assert found.rejected[0].startswith(f"{entry.topic}[0]@{entry.offset} (forest-promoted): ")
    assert "SHA-256" in found.rejected[0]
    assert found.counts[FindingKind.MODEL_UNKNOWN] == sum(
        decode_score(entry.value).model == "forest-promoted" for entry in log.on("scores")
    )


def test_a_changed_transaction_changes_features(log):
    altered = copy(log)
    entry = altered.on("transactions")[10]
    altered.replace(entry, value=entry.value.replace(b'"amount":', b'"amount":9', 1))
    found = verified(altered)
    assert found.findings[0].kind is FindingKind.FEATURES
    assert found.findings[0].detail.startswith("amount: logged ")


def test_a_missing_score_and_a_missing_transaction_are_distinguished(log):
    altered = copy(log)
    score, transaction = altered.on("scores")[30], altered.on("transactions")[20]
    altered.remove(score)
    altered.remove(transaction)
    kinds = {finding.kind: finding.transaction_id for finding in verified(altered).findings[::-1]}
    assert kinds[FindingKind.MISSING] == decode_score(score.value).transaction_id
    assert kinds[FindingKind.UNEXPECTED] == msgspec.json.decode(transaction.value)["transaction_id"]


def test_only_the_time_range_is_reported_on_profiles_from_the_beginning(log):
    begin, end = START + 3 * DAY, START + 5 * DAY
    within = sum(begin <= decode_score(entry.value).timestamp < end for entry in log.on("scores"))
    found = verified(log, TimeRange(begin, end))
    assert found.counts == {"identical": within, "out_of_range": len(log.on("scores")) - within}
    assert 0 < within < len(log.on("scores"))


def test_decisions_of_cards_with_expired_transactions_are_recomputed_from_their_features(log):
    altered = copy(log)
    altered.cut("transactions", 0.4)
    found = verified(altered)
    assert (found.differences, found.findings) == (0, [])
    assert found.counts["inputs_expired"] > 50
    assert found.counts["from_features"] > 50
    assert sum(found.counts.values()) == len(log.on("scores"))


def test_transactions_after_the_last_score_are_pending(log):
    altered = copy(log)
    last = max((entry for entry in altered.on("scores") if entry.partition == 0), key=lambda entry: entry.offset)
    altered.remove(last)
    assert verified(altered).counts["pending"] == 1


def test_a_stopped_replay_resumes_with_the_remaining_partitions(log, tmp_path, monkeypatch):
    whole = verified(log)
    log.serve(monkeypatch)
    done, started = replay._verify_partition, []

    def ended_at_the_third(settings, asked, partition, *rest):
        started.append(partition)
        if len(started) == 3:
            raise KeyboardInterrupt
        return done(settings, asked, partition, *rest)

    monkeypatch.setattr(replay, "_verify_partition", ended_at_the_third)
    folder = replay.ResumeFolder(tmp_path / "kept")
    with pytest.raises(KeyboardInterrupt):
        replay.verify(log.settings, folder.plan(replay.plan(log.settings, WHOLE)), kept=folder)
    grown = copy(log)
    grown._append(log.settings.topics.scores, 0, b"card", b"came later", 0, [])
    grown.serve(monkeypatch)
    asked = folder.plan(replay.plan(log.settings, WHOLE))
    assert replay.verify(log.settings, asked, kept=folder) == whole
    assert started == [0, 1, 2, 2, 3]


@pytest.mark.parametrize(("stretch", "end"), [(1, 30), (7, 29), (7, 100), (40, 39), (40, 150)])
def test_a_replay_that_was_stopped_within_a_partition_resumes_there(log, tmp_path, monkeypatch, stretch, end):
    altered = copy(log)
    for entry in altered.on("scores")[::17]:
        altered.replace(entry, value=entry.value.replace(b'"currency":"EUR"', b'"currency":"USD"'))
    whole = verified(altered)
    assert whole.differences > 5
    altered.serve(monkeypatch)
    taken, take = [], DecisionVerifier.take

    def ended(self, one):
        taken.append(one)
        if len(taken) == end:
            raise KeyboardInterrupt
        return take(self, one)

    monkeypatch.setattr(replay, "MAX_RUN", stretch)
    monkeypatch.setattr(DecisionVerifier, "take", ended)
    asked, folder = replay.plan(altered.settings, WHOLE), replay.ResumeFolder(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        replay.verify(altered.settings, folder.plan(asked), kept=folder)
    before = len(taken)
    assert replay.verify(altered.settings, folder.plan(asked), kept=folder) == whole
    pairs = sum(whole.counts.values())
    assert len(taken) - before <= pairs - (before - 1) + stretch + 1  # at most one run is done twice
    assert not list(tmp_path.glob("*.checkpoint"))


def test_a_checkpoint_with_profiles_of_another_schema_is_rejected(tmp_path):
    folder = replay.ResumeFolder(tmp_path)
    state = {"has_started": False, "expired_cards": {}, "counts": {}, "findings": [], "profiles": {}}
    folder.write("0.checkpoint", Checkpoint(SCHEMA, 0, 0, **state))
    assert folder.read("0.checkpoint", Checkpoint).schema == SCHEMA
    other = msgspec.msgpack.decode((tmp_path / "0.checkpoint").read_bytes()) | {"schema": SCHEMA + 1}
    (tmp_path / "0.checkpoint").write_bytes(msgspec.msgpack.encode(other))
    with pytest.raises(ConfigurationError, match=r"0\.checkpoint: cannot be read: its profiles have schema 7"):
        folder.read("0.checkpoint", Checkpoint)


def test_a_folder_of_another_replay_is_rejected(log, tmp_path, monkeypatch):
    log.serve(monkeypatch)
    folder = replay.ResumeFolder(tmp_path)
    folder.plan(replay.plan(log.settings, WHOLE))
    whole = replay.plan(log.settings, WHOLE)
    elsewhere = msgspec.structs.replace(whole, topic="of.another.service")
    for other in (replay.plan(log.settings, WHOLE, [0]), replay.plan(log.settings, TimeRange(5, 6)), elsewhere):
        with pytest.raises(ConfigurationError, match="has another replay"):
            folder.plan(other)
    (tmp_path / "1.result").write_bytes(b"{")
    with pytest.raises(ConfigurationError, match=r"1\.result: cannot be read"):
        replay.verify(log.settings, whole, kept=folder)
    (tmp_path / "plan").write_bytes(b"{")
    with pytest.raises(ConfigurationError, match="plan: cannot be read"):
        folder.plan(whole)
    with pytest.raises(ConfigurationError, match="cannot be written"):
        replay.ResumeFolder(tmp_path / "1.result").plan(whole)


def test_two_swapped_scores_are_out_of_order_and_still_compared(log):
    altered = copy(log)
    one, other = [entry for entry in altered.on("scores") if entry.partition == 0][10:12]
    altered.replace(one, value=other.value, key=other.key)
    altered.replace(other, value=one.value, key=one.key)
    found = verified(altered)
    assert [finding.kind for finding in found.findings] == [FindingKind.OUT_OF_ORDER]
    assert found.counts["identical"] == len(log.on("scores"))


def moved(log, wanted):
    """Return the log with some inputs moved to the next partition, as a producer with another hash would put them."""
    topic, changed = log.settings.topics.transactions, copy(log)
    for entry in [one for one in changed.on("transactions") if wanted(one)]:
        changed.remove(entry)
        target = changed.entries[topic, (entry.partition + 1) % log.partitions]
        offset = target[-1].offset + 1 if target else 0
        target.append(entry._replace(partition=(entry.partition + 1) % log.partitions, offset=offset))
    return changed


def test_a_misplaced_transaction_is_one_finding_that_names_the_remedy(log):
    (entry,) = [one for one in log.on("transactions") if b'"t-8"' in one.value][:1]
    found = verified(moved(log, lambda one: one is entry))
    assert found.counts[FindingKind.WRONG_PARTITION] == 1
    assert FindingKind.MISSING not in found.counts
    assert FindingKind.UNEXPECTED not in found.counts
    (finding,) = [one for one in found.findings if one.kind is FindingKind.WRONG_PARTITION]
    assert finding.transaction_id == "t-8"
    assert "but its card belongs to" in finding.detail
    assert "murmur2" in finding.detail


def test_the_progress_of_a_replay_counts_each_score_once(log):
    misplaced = moved(log, lambda entry: entry.offset % 2)
    steps = []
    with pytest.MonkeyPatch.context() as patch:
        misplaced.serve(patch)
        replay.verify(misplaced.settings, replay.plan(misplaced.settings, WHOLE), steps.append)
    assert sum(steps) == len(misplaced.on("scores"))
