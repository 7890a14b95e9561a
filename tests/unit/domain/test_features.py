from __future__ import annotations

import math
import random
from datetime import datetime
from typing import Any

import msgspec
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.worlds import DAY, HOUR, MINUTE, MONDAY, SECOND, transaction

from fraud_service.domain.decision import Policy
from fraud_service.domain.detector import Detector
from fraud_service.domain.errors import InvalidRecord
from fraud_service.domain.events import Transaction
from fraud_service.domain.features import NAMES, Features, extract
from fraud_service.domain.online_model import ModelInput, ModelInputRows, OnlineModel
from fraud_service.domain.profile import Profile, decode_profile, encode_profile
from fraud_service.domain.risk import DAYS_KEPT, NO_RISK, Risk, RiskTable
from fraud_service.domain.snapshot import SnapshotStore, untrained
from fraud_service.domain.time import rfc3339

YEAR = 365 * DAY
FAST = settings(max_examples=50, deadline=None, derandomize=True)
LABELLED = [name for name in NAMES if name.startswith(("merchant_", "card_")) and name != "card_age_days"]
RISK = [name for name in LABELLED if name != "merchant_visits"]
OF_CARD = [name for name in NAMES if name not in RISK]

# How far the event time moves from one arrival to the next: bursts, the edges of windows, idleness, and back in time.
STEPS = st.one_of(
    st.sampled_from([0, 0, 1, SECOND, 10 * MINUTE, 10 * MINUTE - 1, HOUR - 1, HOUR, HOUR + 1, DAY - 1, DAY, DAY + 1]),
    st.sampled_from([3 * DAY, 7 * DAY, 14 * DAY, 29 * DAY, 30 * DAY, 31 * DAY, YEAR, 3 * YEAR]),
    st.sampled_from([-1, -MINUTE, -HOUR, -DAY, -2 * DAY, -29 * DAY, -30 * DAY, -40 * DAY]),
    st.integers(-3 * HOUR, 12 * HOUR),
)
STARTS = st.sampled_from([MONDAY, MONDAY - 1, MONDAY + 5 * DAY, MONDAY + 6 * HOUR - 1, MONDAY + 23 * HOUR, 0])
AMOUNTS = st.one_of(
    st.sampled_from([0.0, 1.0, 2.0, 2.01, 25.0, 25.0, 1e13]),
    st.integers(0, 100_000).map(lambda cents: cents / 100),
)
CURRENCIES = st.sampled_from(
    [st.just("EUR"), st.sampled_from(["EUR", "EUR", "JPY"]), st.sampled_from(["EUR", "JPY", "USD", "JPY", "JPY"])]
)
OFFSETS = st.sampled_from([None, None, 0, 60, -210, 345, 840, -720])
PLACES = st.sampled_from(
    [
        (52.52, 13.405),
        (52.52, 13.4051),
        (48.137, 11.575),
        (-33.87, 151.21),
        (40.71, -74.01),
        (0.0, 179.9),
        (0.0, -179.9),
        (90.0, 0.0),
        (89.9, 120.0),
    ]
)


@st.composite
def histories(draw: st.DrawFn, most: int = 40) -> list[Transaction]:
    """Draw payments of one card in arrival order: late, early, twice, with and without the optional fields."""
    merchants = draw(st.sampled_from([3, 60]))
    arrivals: list[Transaction] = []
    timestamp, currencies = draw(STARTS), draw(CURRENCIES)
    for number in range(draw(st.integers(min(5, most), most))):
        if arrivals and draw(st.integers(0, 9)) == 0:
            arrivals.append(draw(st.sampled_from(arrivals)))
            continue
        timestamp = max(timestamp + draw(STEPS), 0)
        place: Any = draw(st.none() | PLACES)
        arrivals.append(
            transaction(
                f"t{number}",
                timestamp,
                amount=draw(AMOUNTS),
                currency=draw(currencies),
                utc_offset_min=draw(OFFSETS),
                merchant_id=f"merchant-{draw(st.integers(0, merchants))}",
                country=draw(st.none() | st.sampled_from([f"C{n}" for n in range(11)])),
                device_id=draw(st.none() | st.sampled_from([f"device-{n}" for n in range(11)])),
                entry_mode=draw(
                    st.sampled_from(
                        [None, "chip", "keyed", "ecommerce", "contactless", "E-Commerce", "81", "MOTO", "05", "?"]
                    )
                ),
                merchant_category_code=draw(st.sampled_from([None, "5411"])),
                ip=draw(st.sampled_from([None, "192.0.2.1"])),
                latitude=place and place[0],
                longitude=place and place[1],
            )
        )
    return arrivals


def replayed(arrivals: list[Transaction], profile: Profile | None = None) -> list[Features]:
    """Update a profile as the detector does; return the features of all payments but duplicates."""
    profile = Profile() if profile is None else profile
    rows = []
    for arrival in arrivals:
        if not profile.find_duplicate(arrival).age:
            rows.append(extract(arrival, profile, NO_RISK, NO_RISK, 0))
            profile.update(arrival)
    return rows


def assert_equal(row: Features, expected: dict[str, float]) -> None:
    different = {
        name: (getattr(row, name), value)
        for name, value in expected.items()
        if not math.isclose(getattr(row, name), value, rel_tol=1e-9, abs_tol=1e-9)
    }
    assert not different


def annotations() -> dict[str, dict[str, Any]]:
    fields = msgspec.inspect.type_info(Features).fields  # type: ignore[union-attr]
    return {field.name: dict(field.type.extra) for field in fields}


@FAST
@given(histories())
def test_every_feature_of_a_card_equals_the_oracle(arrivals):
    history: list[Transaction] = []
    accepted = oracle.without_repetitions(arrivals)
    rows = replayed(arrivals)
    assert len(rows) == len(accepted)
    for row, now in zip(rows, accepted, strict=True):
        assert_equal(row, oracle.card_features(now, history))
        history.append(now)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    st.integers(0, 2**32),
    st.sampled_from([40, 300]),
    st.sampled_from([MINUTE, HOUR, 2 * DAY]),
    st.sampled_from([1.0, 0.01]),
    st.sampled_from([["EUR"], ["EUR"] * 20 + ["JPY"], ["EUR", "JPY", "JPY", "JPY"]]),
)
def test_long_histories_equal_the_oracle(seed, merchants, pace, spread, currencies):
    dice = random.Random(seed)
    history: list[Transaction] = []
    profile, timestamp = Profile(), MONDAY
    for number in range(300):
        timestamp += int(dice.uniform(-0.5, 1.5) * pace)
        arrival = transaction(
            f"t{number}",
            timestamp,
            amount=round(dice.lognormvariate(3, spread) * dice.choice([1] * 30 + [50] + [0]), 2),
            currency=dice.choice(currencies),
            merchant_id=f"merchant-{min(dice.randrange(merchants), dice.randrange(merchants))}",
            country=dice.choice("ABCDEFGHIJKL"),
            device_id=dice.choice("ABCDEFGHIJKL"),
        )
        if number % 10 == 0:
            assert_equal(extract(arrival, profile, NO_RISK, NO_RISK, 0), oracle.card_features(arrival, history))
        profile.update(arrival)
        history.append(arrival)
    assert oracle.card_features(transaction("last", timestamp), history).keys() == set(OF_CARD)


FACTS = st.lists(st.tuples(st.integers(0, 3 * DAY), st.integers(0, 9 * DAY), st.booleans(), st.booleans()), max_size=30)


def known_facts(drawn: list[tuple[int, int, bool, bool]]) -> list[oracle.Fact]:
    """Draw labels in the order of their times, each some days after its transaction."""
    facts, known_at = [], MONDAY
    for step, delay, is_fraud, is_explained in drawn:
        known_at += step
        facts.append(oracle.Fact(known_at, known_at - delay, is_fraud, is_explained))
    return facts


def row_of(facts: list[oracle.Fact]) -> Risk:
    row = NO_RISK
    for fact in facts:
        row = row.with_label(fact.known_at, fact.made_at, is_fraud=fact.is_fraud, amount_is_anomalous=fact.is_explained)
    return row


@FAST
@given(FACTS, FACTS, st.integers(0, 40 * DAY), st.integers(0, 2 * HOUR))
def test_every_feature_from_labels_equals_the_oracle(of_merchant, of_card, idle, lead):
    merchant, card = known_facts(of_merchant), known_facts(of_card)
    as_of = max((fact.known_at for fact in [*merchant, *card]), default=MONDAY) + idle
    now = transaction(timestamp=as_of + lead)
    row = extract(now, Profile(), row_of(merchant), row_of(card), as_of)
    expected = oracle.risk_features(now.timestamp, merchant, card, as_of)
    assert expected.keys() == set(RISK)
    assert_equal(row, expected)


def test_label_windows_end_with_the_day_of_the_snapshot():
    merchant = row_of([oracle.Fact(MONDAY, MONDAY - DAY, is_fraud=True)])
    late = transaction(timestamp=MONDAY + 20 * DAY)
    assert extract(late, Profile(), merchant, NO_RISK, MONDAY + DAY).merchant_labelled_1d == 1
    assert extract(late, Profile(), merchant, NO_RISK, MONDAY + 2 * DAY).merchant_labelled_1d == 0


@pytest.mark.parametrize(("days", "counted"), [(29, 1), (30, 1), (31, 0)])
def test_a_label_counts_on_the_day_it_became_known_and_thirty_days_after(days, counted):
    old = oracle.Fact(MONDAY, MONDAY - DAY, is_fraud=True)
    fresh = oracle.Fact(MONDAY + days * DAY, MONDAY, is_fraud=False)
    row = extract(transaction(), Profile(), row_of([old, fresh]), row_of([old, fresh]), fresh.known_at)
    assert (row.merchant_labelled_30d, row.card_frauds_30d) == (1 + counted, counted)


def test_the_oracle_and_the_tests_cover_the_whole_contract():
    assert set(OF_CARD) | set(RISK) == set(NAMES)
    assert set(OF_CARD) & set(RISK) == set()


@pytest.mark.parametrize("seed", range(2))
def test_ten_thousand_payments_within_a_minute_equal_the_oracle_in_bounded_space(seed):
    dice = random.Random(seed)
    history: list[Transaction] = []
    profile = Profile()
    for number in range(10_001):
        arrival = transaction(
            f"t{number}",
            MONDAY - 30 * SECOND + dice.randrange(MINUTE),  # across midnight
            amount=dice.randrange(100_000) / 100,
            merchant_id=f"merchant-{dice.randrange(200)}",
            country=str(dice.randrange(20)),
            device_id=str(dice.randrange(20)),
            latitude=dice.uniform(-80, 80),
            longitude=dice.uniform(-80, 80),
        )
        if number in {1, 16, 17, 999, 5_000, 10_000}:
            assert_equal(extract(arrival, profile, NO_RISK, NO_RISK, 0), oracle.card_features(arrival, history))
            assert len(encode_profile(profile)) <= 8192
        profile.update(arrival)
        history.append(arrival)


def most_verbose_decisions() -> bytes:
    """Return the longest decisions: the last payments, each declined for four reasons."""
    model = OnlineModel.untrained()
    always = SnapshotStore(untrained("model-2026-01-01-0123456789ab", model))

    class Loud:
        version, prior, asked = "model-2026-01-01-0123456789ab", -4.0, ()

        def encode(self, rows):
            return ModelInputRows([ModelInput(20.0, [0.0] * len(NAMES), [])] * len(rows))

        def contributions(self, row):
            assert row.amount > 0
            return 0.0, [20.0 / len(NAMES)] * len(NAMES)

    profiles: dict[str, Profile] = {}
    detector = Detector(Loud(), Policy())
    timestamp = MONDAY
    for number in range(200):
        timestamp += 4 * HOUR if number < 185 else MINUTE
        payment = transaction(
            f"t{number}", timestamp, amount=9_999_999_999.99 + number, merchant_id=f"m{number}", country=str(number % 8)
        )
        detector.assess([payment], profiles, always)
    return encode_profile(profiles["card-1"])


def test_a_profile_full_of_declined_payments_stays_within_twelve_kibibytes():
    assert len(most_verbose_decisions()) <= 12_288


OPTIONAL = {
    "country": {"is_new_country"},
    "device_id": {"is_new_device"},
    "latitude": {"distance_km", "speed_kmh"},
    "longitude": {"distance_km", "speed_kmh"},
    "entry_mode": {"is_card_not_present"},
    "merchant_category_code": set(),
    "ip": set(),
    "utc_offset_min": {"hour_of_day", "is_night", "is_weekend"},
}


def test_the_effect_of_absence_is_tested_for_every_optional_field():
    optional = {field.name for field in msgspec.structs.fields(Transaction) if field.default is not msgspec.NODEFAULT}
    assert optional == set(OPTIONAL)


@pytest.mark.parametrize("field", OPTIONAL)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(arrivals=histories(most=25))
def test_an_absent_field_changes_only_the_features_named_after_it(field, arrivals):
    without = replayed([msgspec.structs.replace(arrival, **{field: None}) for arrival in arrivals])
    accepted = oracle.without_repetitions(arrivals)
    for now, full, row in zip(accepted, replayed(arrivals), without, strict=True):
        moment = datetime.fromisoformat(rfc3339(now.timestamp))
        changed = {name for name in NAMES if getattr(full, name) != getattr(row, name)}
        assert changed <= OPTIONAL[field]
        if field == "utc_offset_min":  # without it, the time is UTC
            assert (row.hour_of_day, row.is_night) == (float(moment.hour), float(moment.hour < 6))
        else:
            assert all(getattr(row, name) == 0 for name in OPTIONAL[field])


@FAST
@given(histories(most=1))
def test_a_card_and_merchant_without_history_have_the_cold_values_of_the_annotations(arrivals):
    row = replayed(arrivals)[0]
    for name, extra in annotations().items():
        if extra["window"] != "this transaction":
            assert getattr(row, name) == extra["cold"], name


def test_every_feature_has_a_unit_and_a_window_unless_it_is_unbounded():
    extras = annotations()
    assert list(extras) == list(NAMES)
    assert all(extra["unit"] for extra in extras.values())
    endless = {name for name, extra in extras.items() if not extra["window"]}
    assert endless == set()


@FAST
@given(histories(), st.sampled_from([1e13, 0.0, 5e-324]), FACTS)
def test_every_feature_is_finite(arrivals, amount, drawn):
    extreme = [msgspec.structs.replace(arrival, amount=amount) for arrival in arrivals[::2]]
    facts = row_of(known_facts(drawn))
    profile = Profile()
    for arrival in [*arrivals, *extreme, *arrivals[::-1]]:
        row = extract(arrival, profile, facts, facts, arrival.timestamp)
        assert all(math.isfinite(value) and isinstance(value, float) for value in row.vector())
        profile.update(arrival)


@FAST
@given(histories(), st.data())
def test_a_duplicate_changes_nothing(arrivals, data):
    accepted = oracle.without_repetitions(arrivals)[:16]
    profile = Profile()
    replayed(accepted, profile)
    before = encode_profile(profile)
    again = data.draw(st.lists(st.sampled_from(accepted), max_size=20))
    assert replayed(again, profile) == []
    assert encode_profile(profile) == before


@FAST
@given(histories(), st.integers(0, 40))
def test_a_decoded_profile_continues_like_the_original(arrivals, cut):
    straight = Profile()
    rows = replayed(arrivals, straight)
    first = Profile()
    early = replayed(arrivals[:cut], first)
    second = decode_profile(encode_profile(first))
    assert early + replayed(arrivals[cut:], second) == rows
    assert encode_profile(second) == encode_profile(straight)
    assert decode_profile(encode_profile(straight)) == straight


def test_an_id_fingerprint_that_spans_two_fields_is_not_a_match(monkeypatch):
    profile = Profile()
    replayed([transaction("t1"), transaction("t2")], profile)
    assert [profile.find_duplicate(transaction(name)).age for name in ("t1", "t2")] == [2, 1]
    monkeypatch.setattr("fraud_service.domain.profile.fingerprint64", lambda _: profile.recent[3:11])
    assert profile.find_duplicate(transaction("t3")) == (0, False)


def test_a_profile_of_another_schema_is_rejected():
    with pytest.raises(InvalidRecord, match="schema 7; this version reads 6"):
        decode_profile(encode_profile(Profile(schema=7)))
    with pytest.raises(InvalidRecord, match="schema 2; this version reads 6"):
        decode_profile(msgspec.msgpack.encode([2, 1, 0, 0, 0.0, 0.5, [], [], [[1, 2, 3.0, 4, ["approve", 0.1]]]]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc0",
        b"{}",
        b"\x91\xa1x",
        encode_profile(Profile(count=3))[:-1],
        encode_profile(Profile(recent=b"cut off")),
    ],
)
def test_bytes_that_are_not_a_profile_are_rejected(data):
    with pytest.raises(InvalidRecord, match="cannot be read"):
        decode_profile(data)


@FAST
@given(FACTS, st.data())
def test_removing_a_label_restores_the_counts(drawn, data):
    facts = known_facts(drawn or [(0, 0, True, False)])
    wrong = data.draw(st.sampled_from(facts))
    as_of = data.draw(st.sampled_from(facts)).known_at + data.draw(st.sampled_from([0, DAY, 40 * DAY]))
    corrected = row_of(facts).without_label(wrong.known_at, was_fraud=wrong.is_fraud)
    kept = {fact.known_at // DAY for fact in facts}
    others = [fact for fact in facts if fact is not wrong and fact.known_at // DAY > max(kept) - DAYS_KEPT]
    expected = []
    for days in (1, 7, 30):
        known = [fact for fact in others if as_of // DAY - days <= fact.known_at // DAY <= as_of // DAY]
        expected.append((len(known), sum(fact.is_fraud for fact in known)))
    assert corrected.labelled(as_of, 1, 7, 30) == expected


def test_a_row_of_the_table_stays_visible_at_the_time_it_was_valid():
    table = RiskTable()
    table.put("card:a", 10, None)
    assert table.get("card:a", 10) is NO_RISK
    assert table.get("card:b", 10) is NO_RISK
