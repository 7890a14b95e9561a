from __future__ import annotations

import json
import math
import random
from typing import Any
from unittest import mock

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.worlds import DAY, HOUR, MONDAY, online_model, snapshot, table_digest

from fraud_service.domain import snapshot as snapshots
from fraud_service.domain.errors import InvalidRecord
from fraud_service.domain.features import NAMES
from fraud_service.domain.online_model import OnlineModel
from fraud_service.domain.risk import NO_RISK, RiskTable, encode_risk, row_digest
from fraud_service.domain.snapshot import (
    MAX_PENDING,
    RETENTION_MS,
    Snapshot,
    SnapshotStore,
    SnapshotView,
    decode_snapshot,
    encode_snapshot,
    untrained,
)

FAST = settings(max_examples=100, deadline=None, derandomize=True)
KEYS = ["merchant:a", "merchant:b", "merchant:c", "card:a", "card:b"]
Published = list[tuple[Snapshot, dict[str, "bytes | None"]]]


def untrained_store() -> SnapshotStore:
    return SnapshotStore(untrained("model-1", online_model()))


def row(number: int) -> bytes:
    return encode_risk(NO_RISK.with_label(MONDAY, number, is_fraud=True, amount_is_anomalous=False))


@st.composite
def publications(draw: st.DrawFn) -> Published:
    """Draw the output of a learner: snapshots an hour or more apart, each with its changed rows."""
    table: dict[str, bytes] = {}
    published, as_of = [], MONDAY
    for number in range(draw(st.integers(2, 8))):
        as_of += draw(st.sampled_from([HOUR, 2 * HOUR, DAY]))
        keys = draw(st.sets(st.sampled_from(KEYS), max_size=4).map(sorted))
        rows = {
            key: None if key in table and draw(st.booleans()) else row(100 * number + place)
            for place, key in enumerate(keys)
        }
        online = online_model(intercept=number / 3)
        published.append((snapshot(as_of, rows, table, online=online, examples=number), rows))
    return published


def receive(store: SnapshotStore, published: Published, *, final: bool = False) -> None:
    for newest, rows in published:
        store.receive_snapshot(newest)
        for key, value in rows.items():
            store.receive_risk(newest.version, key, value)
    store.apply_received(final=final)


def facts(view: SnapshotView) -> tuple[str, dict[str, Any]]:
    kinds = {"merchant": view.merchant, "card": view.card}
    return view.snapshot.version, {key: kinds[key.split(":")[0]](key.split(":")[1]) for key in KEYS}


def views(store: SnapshotStore, published: Published) -> list[tuple[str, dict[str, Any]]]:
    times = [newest.effective_from + off for newest, _ in published for off in (-1, 0, HOUR)]
    return [facts(store.at(time)) for time in times]


@FAST
@given(publications(), st.randoms(use_true_random=False), st.booleans())
def test_records_of_two_topics_end_in_the_same_views_in_any_interleaving(published, dice, settle_always):
    straight = untrained_store()
    receive(straight, published)
    assert straight.newest == published[-1][0]
    shuffled = untrained_store()
    snapshots = [("snapshot", newest, None, None) for newest, _ in published]
    rows = [("row", newest, key, value) for newest, changed in published for key, value in changed.items()]
    order = ["snapshot"] * len(snapshots) + ["row"] * len(rows)
    dice.shuffle(order)  # each topic keeps its order
    for kind in order:
        _, newest, key, value = (snapshots if kind == "snapshot" else rows).pop(0)
        if key is None:
            shuffled.receive_snapshot(newest)
        else:
            shuffled.receive_risk(newest.version, key, value)
        if settle_always or dice.random() < 0.3:
            shuffled.apply_received()
    shuffled.apply_received()
    assert views(shuffled, published) == views(straight, published)
    assert shuffled.incomplete == []


@FAST
@given(publications(), st.randoms(use_true_random=False))
def test_records_out_of_order_within_a_topic_end_in_the_same_views(published, dice):
    straight, shuffled = untrained_store(), untrained_store()
    receive(straight, published)
    events = [(newest, None, None) for newest, _ in published]
    events += [(newest, key, value) for newest, changed in published for key, value in changed.items()]
    dice.shuffle(events)
    for newest, key, value in events:
        if key is None:
            shuffled.receive_snapshot(newest)
        else:
            shuffled.receive_risk(newest.version, key, value)
    shuffled.apply_received()
    assert views(shuffled, published) == views(straight, published)


@FAST
@given(publications())
def test_a_view_has_the_newest_version_of_each_row_up_to_its_snapshot(published):
    store = untrained_store()
    receive(store, published)
    table: dict[str, bytes] = {}
    for newest, rows in published:
        table.update({key: value for key, value in rows.items() if value is not None})
        for key in [key for key, value in rows.items() if value is None]:
            del table[key]
        version, seen = facts(store.at(newest.effective_from))
        assert version == newest.version
        assert {key: encode_risk(risk) for key, risk in seen.items() if risk is not NO_RISK} == table


@FAST
@given(publications(), st.data())
def test_a_snapshot_is_not_active_before_all_its_rows_have_arrived(published, data):
    *earlier, (newest, rows) = published
    store = untrained_store()
    receive(store, earlier)
    before = store.newest
    store.receive_snapshot(newest)
    for key in data.draw(st.permutations(sorted(rows))):
        store.apply_received()
        assert store.newest == before
        assert facts(store.at(newest.effective_from))[0] == before.version
        store.receive_risk(newest.version, key, rows[key])
    store.apply_received()
    assert store.newest == newest


def test_a_snapshot_waits_for_the_one_before_it():
    table: dict[str, bytes] = {}
    first, second = snapshot(MONDAY, {KEYS[0]: row(1)}, table), snapshot(MONDAY + HOUR, {KEYS[1]: row(2)}, table)
    store = untrained_store()
    store.receive_snapshot(second)
    store.receive_risk(second.version, KEYS[1], row(2))
    store.receive_snapshot(first)
    store.apply_received()
    assert store.newest.version == "untrained"
    store.receive_risk(first.version, KEYS[0], row(1))
    store.apply_received()
    assert store.newest == second


def test_a_snapshot_with_altered_rows_never_becomes_active():
    newest = snapshot(MONDAY, {KEYS[0]: row(1)}, {})
    store = untrained_store()
    store.receive_snapshot(newest)
    store.receive_risk(newest.version, KEYS[0], row(2))
    store.apply_received()
    assert store.newest.version == "untrained"
    assert len(store.incomplete) == 1


@FAST
@given(publications())
def test_repeated_records_change_nothing(published):
    once, twice = untrained_store(), untrained_store()
    receive(once, published)
    receive(twice, published)
    receive(twice, published)  # a learner that started over publishes the same again
    assert views(twice, published) == views(once, published)
    assert twice.incomplete == []


def test_repeated_rows_are_not_kept():
    published = [(snapshot(MONDAY, {KEYS[0]: row(1)}, {}), {KEYS[0]: row(1)})]
    store = untrained_store()
    receive(store, published)
    receive(store, published)  # the snapshot first, its rows after it
    assert store._rows == {}


@FAST
@given(publications())
def test_compacted_topics_restore_the_newest_snapshot(published):
    last_writer = {key: newest.version for newest, rows in published for key in rows}
    compacted = [
        (newest, {key: value for key, value in rows.items() if last_writer[key] == newest.version})
        for newest, rows in published
    ]
    store, whole = untrained_store(), untrained_store()
    receive(store, compacted, final=True)
    receive(whole, published)
    assert store.newest == whole.newest == published[-1][0]
    time = published[-1][0].effective_from
    assert facts(store.at(time)) == facts(whole.at(time))
    assert len(store.incomplete) <= len(published) - 1


@FAST
@given(publications())
def test_a_start_works_after_compaction_removed_the_tombstones_of_rows(published):
    table = {key: (newest, value) for newest, rows in published for key, value in rows.items()}
    compacted = [
        (newest, {key: value for key, (writer, value) in table.items() if writer is newest and value is not None})
        for newest, _ in published
    ]
    store = untrained_store()
    receive(store, compacted, final=True)
    assert store.newest == published[-1][0]


def test_snapshots_continue_after_a_start_from_compacted_topics():
    table: dict[str, bytes] = {}
    first = snapshot(MONDAY, {KEYS[0]: row(1), KEYS[1]: row(2)}, table)
    second = snapshot(MONDAY + HOUR, {KEYS[0]: row(3)}, table)
    store = untrained_store()
    receive(store, [(first, {KEYS[1]: row(2)}), (second, {KEYS[0]: row(3)})], final=True)
    assert (store.newest, len(store.incomplete)) == (second, 1)
    third = snapshot(MONDAY + 2 * HOUR, {KEYS[1]: None}, table)
    receive(store, [(third, {KEYS[1]: None})])
    assert store.newest == third


def test_rows_that_arrive_after_the_start_are_applied_with_a_later_snapshot():
    table: dict[str, bytes] = {}
    first = snapshot(MONDAY, {KEYS[0]: row(1)}, table)
    second = snapshot(MONDAY + HOUR, {KEYS[1]: row(2)}, table)
    store = untrained_store()
    store.receive_snapshot(first)
    store.apply_received(final=True)
    store.receive_risk(first.version, KEYS[0], row(1))
    receive(store, [(second, {KEYS[1]: row(2)})])
    assert store.newest == second


class Compared(str):
    """A version that counts how often it is compared."""

    __slots__ = ()
    times = 0

    def __le__(self, other: str) -> bool:
        Compared.times += 1
        return str.__le__(self, other)

    def __lt__(self, other: str) -> bool:
        Compared.times += 1
        return str.__lt__(self, other)


def test_a_start_with_many_snapshots_takes_linear_time():
    """Comparing each snapshot with all others would take minutes for a year of them."""
    table: dict[str, bytes] = {}
    store, count = untrained_store(), 600
    for hour in range(count):
        newest = snapshot(MONDAY + hour * HOUR, {KEYS[0]: row(hour)}, table)
        store.receive_snapshot(newest)
        store.receive_risk(Compared(newest.version), KEYS[0], row(hour))
    Compared.times = 0
    store.apply_received(final=True)
    assert store.newest == newest
    assert Compared.times < 10 * count


@FAST
@given(publications(), st.booleans(), st.booleans())
def test_dropping_superseded_snapshots_at_a_start_does_not_change_the_views(published, compacted, ahead):
    last_writer = {key: newest.version for newest, rows in published for key in rows}
    if compacted:
        published = [
            (newest, {key: value for key, value in rows.items() if last_writer[key] == newest.version})
            for newest, rows in published
        ]
    stores = []
    for most in (1, 1_000):
        with mock.patch.object(snapshots, "MAX_PENDING", most):
            store = SnapshotStore(untrained("model-1", online_model()), kept_ms=3 * HOUR)
            if ahead:  # of the two topics, that of the snapshots was read first
                for newest, _ in published:
                    store.receive_snapshot(newest)
            receive(store, published, final=True)
            stores.append(store)
    thinned, whole = stores
    last = published[-1][0].effective_from
    times = [last + hours * HOUR for hours in (-2, -1, 0, 1)]
    assert [facts(thinned.at(time)) for time in times] == [facts(whole.at(time)) for time in times]


def test_a_start_with_years_of_snapshots_keeps_a_month_of_them():
    table: dict[str, bytes] = {}
    store, most = untrained_store(), 0
    for hour in range(6 * MAX_PENDING):
        rows: dict[str, bytes | None] = {KEYS[0]: row(hour)}
        newest = snapshot(MONDAY + hour * HOUR, rows, table)
        store.receive_risk(newest.version, KEYS[0], row(hour))
        store.receive_snapshot(newest)
        most = max(most, len(store._pending), len(store._rows))
    assert most <= 2 * MAX_PENDING + 1
    store.apply_received(final=True)
    assert store.newest == newest
    assert encode_risk(store.at(newest.effective_from).merchant("a")) == row(hour)


def test_superseded_snapshots_stay_for_a_month_of_event_time():
    table: dict[str, bytes] = {}
    published: Published = []
    for day in range(45):
        rows: dict[str, bytes | None] = {KEYS[0]: row(day)}
        published.append((snapshot(MONDAY + day * DAY, rows, table), rows))
    store = untrained_store()
    receive(store, published)
    newest = published[-1][0]
    for kept, rows in published:
        version, seen = facts(store.at(kept.effective_from))
        if kept.effective_from > newest.effective_from - RETENTION_MS:
            assert version == kept.version
            assert encode_risk(seen[KEYS[0]]) == rows[KEYS[0]]
        else:
            assert version == "untrained"
            assert seen[KEYS[0]] is NO_RISK


def test_the_untrained_snapshot_has_no_rows():
    store = untrained_store()
    receive(store, [(snapshot(MONDAY, {KEYS[0]: row(1)}, {}), {KEYS[0]: row(1)})])
    assert facts(store.at(MONDAY))[1] == dict.fromkeys(KEYS, NO_RISK)
    assert store.at(-1).snapshot.version == "untrained"
    assert not store.at(0).snapshot.is_stale_at(10**15)


def test_a_snapshot_is_stale_once_the_next_should_be_active():
    newest = snapshot(MONDAY, {}, {}, effective_from=MONDAY + 5, interval_ms=100)
    assert [newest.is_stale_at(MONDAY + after) for after in (0, 5, 104, 105, 1000)] == [False, False, False, True, True]


VERSIONS = st.lists(st.tuples(st.sampled_from(KEYS), st.integers(1, 4), st.none() | st.integers(1, 9)), max_size=25)


def filled(versions: list[tuple[str, int, int | None]]) -> tuple[RiskTable, list[tuple[str, int, bytes | None]]]:
    table, puts, as_of = RiskTable(), [], 0
    for key, step, number in versions:
        as_of += step
        puts.append((key, as_of, None if number is None else row(number)))
        table.put(*puts[-1])
    return table, puts


def expected(puts: list[tuple[str, int, bytes | None]], key: str, as_of: int) -> bytes | None:
    seen = [value for other, since, value in puts if other == key and since <= as_of]
    return seen[-1] if seen else None


def found(table: RiskTable, key: str, as_of: int) -> bytes | None:
    risk = table.get(key, as_of)
    return None if risk is NO_RISK else encode_risk(risk)


@FAST
@given(VERSIONS, st.integers(0, 110))
def test_dropping_old_row_versions_does_not_change_the_remaining_snapshots(versions, since):
    table, puts = filled(versions)
    for as_of in range(110):
        assert all(found(table, key, as_of) == expected(puts, key, as_of) for key in KEYS)
    digest = table.digest()
    table.forget_before(since)
    for as_of in range(since, 110):
        assert all(found(table, key, as_of) == expected(puts, key, as_of) for key in KEYS)
    assert table.digest() == digest
    table.put(KEYS[0], 200, row(9))
    assert found(table, KEYS[0], 200) == row(9)


@FAST
@given(VERSIONS)
def test_the_digest_of_a_table_covers_its_newest_rows_in_any_order(versions):
    table, puts = filled(versions)
    rows = {key: value for key, _, value in puts if value is not None and value == expected(puts, key, 10**6)}
    assert table.digest() == table_digest(rows)
    reverse = RiskTable()
    for key, value in sorted(rows.items(), reverse=True):
        reverse.put(key, 1, value)
    assert reverse.digest() == table.digest()


def test_the_digest_of_a_row_covers_the_length_of_its_key():
    assert row_digest("card:a", b"bc") != row_digest("card:ab", b"c")
    assert row_digest("card:a", None) == 0


def test_a_deleted_row_that_no_snapshot_can_read_is_dropped():
    table = RiskTable()
    table.put(KEYS[0], 1, row(1))
    table.put(KEYS[0], 2, None)
    table.forget_before(3)
    assert table._versions == {}


FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@FAST
@given(
    st.tuples(FLOATS, FLOATS, st.floats(0, 1)),
    st.lists(FLOATS, min_size=len(NAMES), max_size=len(NAMES)),
    st.lists(FLOATS, max_size=9),
    st.integers(0, 4 * 10**12),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=10),
)
def test_a_snapshot_keeps_every_bit_as_json(three, weights, leaf_weights, as_of, model):
    online = OnlineModel(tuple(weights), tuple(leaf_weights), three[0], three[1])
    newest = snapshot(as_of, {}, {}, online=online, online_weight=three[2], model=model)
    again = decode_snapshot(encode_snapshot(newest))
    assert again == newest
    assert encode_snapshot(again) == encode_snapshot(newest)
    signs = [math.copysign(1, value) for value in again.online.weights]
    assert signs == [math.copysign(1, value) for value in weights]


def altered(value: Any) -> Any:
    if isinstance(value, str):
        return f"{'0' if value[:1] != '0' else '1'}{value[1:]}"
    if isinstance(value, list):
        return [altered(value[0]), *value[1:]]
    return value + 1


FIELDS = [name for name in Snapshot.__struct_fields__ if name not in {"online", "version"}]
TAUGHT = online_model(intercept=0.25, leaf_weights=(0.5, -0.5))
SEALED = json.loads(encode_snapshot(snapshot(MONDAY, {KEYS[0]: row(1)}, {}, online=TAUGHT)))


@pytest.mark.parametrize("field", FIELDS)
def test_a_snapshot_with_one_altered_field_is_rejected(field):
    with pytest.raises(InvalidRecord, match=r"does not match its digest|cannot be read"):
        decode_snapshot(json.dumps(SEALED | {field: altered(SEALED[field])}).encode())


@pytest.mark.parametrize("field", OnlineModel.__struct_fields__)
def test_a_snapshot_with_one_altered_weight_is_rejected(field):
    online = SEALED["online"] | {field: altered(SEALED["online"][field])}
    with pytest.raises(InvalidRecord, match="does not match its digest"):
        decode_snapshot(json.dumps(SEALED | {"online": online}).encode())


@pytest.mark.parametrize(
    "version",
    [
        altered(SEALED["version"]),
        SEALED["version"][:-1] + "x",
        "untrained",
    ],
)
def test_a_snapshot_with_another_version_is_rejected(version):
    with pytest.raises(InvalidRecord, match="does not match its digest"):
        decode_snapshot(json.dumps(SEALED | {"version": version}).encode())


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b"\xff", json.dumps(SEALED).encode()[:-1]])
def test_bytes_that_are_not_a_snapshot_are_rejected(data):
    with pytest.raises(InvalidRecord, match="cannot be read"):
        decode_snapshot(data)


@pytest.mark.parametrize(
    "changes",
    [
        {"online_weight": 1.5},
        {"online_weight": -0.1},
        {"effective_from": 10**400},
        {"examples": 10**400},
        {"examples": -1},
        {"risk_rows": -1},
        {"effective_from": 1 << 53},
        {"label_horizon": 1 << 53},
        {"label_horizon": 10**400},
        {"interval_ms": -1},
        {"model": "m" * 65},
        {"model": "forest\x1b[2J"},
    ],
    ids="-".join,
)
def test_a_snapshot_with_a_value_out_of_bounds_is_rejected_despite_a_right_digest(changes):
    sealed = msgspec.structs.replace(snapshot(MONDAY, {}, {}), **changes).with_digest()
    with pytest.raises(InvalidRecord, match="cannot be read"):
        decode_snapshot(encode_snapshot(sealed))


def test_a_snapshot_that_is_too_large_is_rejected_before_decoding():
    large = snapshot(MONDAY, {}, {}, online=online_model(leaf_weights=(0.5,) * 300_000))
    with pytest.raises(InvalidRecord, match="are allowed"):
        decode_snapshot(encode_snapshot(large))


def test_a_snapshot_with_weights_that_are_not_numbers_is_rejected():
    broken = snapshot(MONDAY, {}, {}, online=online_model(intercept=math.nan))
    with pytest.raises(InvalidRecord):
        decode_snapshot(encode_snapshot(broken))


def test_the_version_contains_time_and_digest():
    one, other = snapshot(MONDAY, {}, {}), snapshot(MONDAY, {}, {}, examples=2)
    assert one.version.startswith("20231113T0000-")
    assert one.version != other.version
    assert msgspec.structs.replace(one, version="", digest="").with_digest() == one


def test_a_view_that_a_reader_still_holds_does_not_change():
    dice = random.Random(1)
    table: dict[str, bytes] = {}
    store = untrained_store()
    held: list[tuple[SnapshotView, Any]] = []
    for day in range(80):
        rows: dict[str, bytes | None] = {key: row(day) for key in KEYS if dice.random() < 0.5}
        newest = snapshot(MONDAY + day * DAY, rows, table)
        receive(store, [(newest, rows)])
        view = store.at(newest.effective_from)
        held.append((view, facts(view)))
        assert all(facts(old) == seen for old, seen in held[-30:])


def test_a_snapshot_of_an_unregistered_model_never_scores_but_its_rows_count():
    table: dict[str, bytes] = {}
    foreign = snapshot(MONDAY, {KEYS[0]: row(1)}, table, model="model-2")
    ours = snapshot(MONDAY + HOUR, {KEYS[1]: row(2)}, table)
    store = untrained_store()
    receive(store, [(foreign, {KEYS[0]: row(1)})])
    assert store.newest == untrained_store().newest
    assert len(store.incomplete) == 1
    receive(store, [(ours, {KEYS[1]: row(2)})])
    assert store.newest == ours


def test_rows_of_an_expired_snapshot_stay_in_the_table():
    table: dict[str, bytes] = {}
    expired = snapshot(MONDAY, {KEYS[0]: row(1)}, table)
    newest = snapshot(MONDAY + HOUR, {KEYS[1]: row(2)}, table)
    store = untrained_store()
    store.receive_risk(expired.version, KEYS[0], row(1))
    receive(store, [(newest, {KEYS[1]: row(2)})], final=True)
    assert store.newest == newest


@pytest.mark.parametrize("as_of", [10**15, -(10**15), 2**63 - 1, -(2**63)])
def test_a_snapshot_with_an_invalid_time_is_rejected(as_of):
    """Such a snapshot once crashed every scorer at each start (found by fuzzing)."""
    altered = msgspec.structs.replace(snapshot(MONDAY, {}, {}), as_of=as_of)
    with pytest.raises(InvalidRecord, match=r"is not a valid time|cannot be read"):
        decode_snapshot(encode_snapshot(altered))
