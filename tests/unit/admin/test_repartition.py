"""A move to more partitions takes each profile to the partition of its card, also a misplaced one."""

from __future__ import annotations

import pytest

from fraud_service.admin.repartition import MovedProfiles
from fraud_service.domain.errors import FatalStreamError
from fraud_service.domain.profile import Profile, decode_profile, encode_profile
from fraud_service.kafka.partitioner import murmur2_partition
from fraud_service.processors.scorer import PROFILE
from fraud_service.runtime.changelogs import key_suffix

OLD, NEW = 4, 12


def row(card: str, partition: int, last_seen: int = 1):
    return partition, card.encode() + key_suffix(PROFILE), encode_profile(Profile(count=1, last_seen=last_seen))


def home(card: str) -> int:
    return murmur2_partition(card.encode(), OLD)


def moved(*rows):
    profiles = MovedProfiles(lambda: iter(rows), OLD, NEW)
    found = {key.removesuffix(key_suffix(PROFILE)).decode(): (at, value) for at, key, value in profiles}
    for card, (partition, _) in found.items():
        assert partition == murmur2_partition(card.encode(), NEW)
    return {card: decode_profile(value).last_seen for card, (_, value) in found.items()}, str(profiles)


def test_profiles_in_the_partition_of_their_card_move_without_a_note():
    assert moved(row("a", home("a")), row("b", home("b"))) == ({"a": 1, "b": 1}, "")


def test_a_misplaced_profile_moves_to_the_partition_of_its_card_and_the_cause_is_named():
    found, said = moved(row("a", home("a")), row("b", (home("b") + 1) % OLD))
    assert found == {"a": 1, "b": 1}
    assert said == (
        "; 1 were outside the partition of their card. Set partitioner=murmur2 on the producers of payments"
    )


@pytest.mark.parametrize("newest", [0, 1, 2])
def test_of_several_profiles_of_a_card_the_one_with_the_newest_payment_stays(newest):
    partitions = [home("a"), (home("a") + 1) % OLD, (home("a") + 2) % OLD]
    rows = [row("a", partition, 9 if number == newest else 5) for number, partition in enumerate(partitions)]
    found, said = moved(*rows)
    assert found == {"a": 9}
    assert "2 were outside" in said
    assert "2 older ones of the same cards were left out" in said


def test_a_row_that_is_no_profile_stops_the_move():
    with pytest.raises(FatalStreamError, match="a row that is not a profile"):
        list(MovedProfiles(lambda: iter([(0, b"other", b"")]), OLD, NEW))
