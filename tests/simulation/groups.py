"""The group coordinator: members, generations, static membership, eager rebalances and committed offsets."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from confluent_kafka import KafkaError
from simulation.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from simulation.log import Place


class Membership(NamedTuple):
    """The identity that a member sends with each request."""

    group: str
    member: str
    generation: int
    instance: str | None


@dataclass
class Member:
    """A member in the coordinator's list. `is_beating` returns whether its process sends heartbeats."""

    topics: list[str]
    instance: str | None
    session_timeout: float
    rebalance_timeout: float
    is_beating: Callable[[], bool]
    seen: float
    has_joined: bool = True
    assigned: list[Place] = field(default_factory=list)


@dataclass
class Group:
    """One consumer group."""

    members: dict[str, Member] = field(default_factory=dict)
    generation: int = 0
    is_rebalancing: bool = False
    started: float = 0.0
    offsets: dict[Place, int] = field(default_factory=dict)
    held: dict[int, dict[Place, int]] = field(default_factory=dict)  # offsets in open transactions, by producer


class Groups:
    """All groups of a cluster. `partitions` returns the number of a topic's partitions."""

    def __init__(self, partitions: Callable[[str], int]) -> None:
        self._partitions = partitions
        self._groups: dict[str, Group] = {}
        self._numbers = count(1)
        self.history: list[tuple[str, Place, int]] = []  # all committed offsets, in order

    def of(self, name: str) -> Group:
        """Return a group; creates it at the first request."""
        return self._groups.setdefault(name, Group())

    def join(self, name: str, member: Member, now: float) -> str:
        """Add a member; returns its id. A member with a known instance id gets its partitions back."""
        group = self.of(name)
        identity = f"{member.instance or 'member'}-{next(self._numbers)}"
        before = [key for key, known in group.members.items() if member.instance and known.instance == member.instance]
        for key in before:  # fences the predecessor
            known = group.members.pop(key)
            member.assigned = known.assigned
        group.members[identity] = member
        if before and not group.is_rebalancing:
            return identity
        self._rebalance(group, now)
        member.has_joined = True
        self._complete(group, now)
        return identity

    def rejoin(self, membership: Membership, now: float) -> None:
        """Record that a member has given up its partitions."""
        group = self.of(membership.group)
        self.known(membership).has_joined = True
        if not group.is_rebalancing:
            self._rebalance(group, now)
            self.known(membership).has_joined = True
        self._complete(group, now)

    def leave(self, membership: Membership, now: float) -> None:
        """Remove a member at once."""
        group = self.of(membership.group)
        if group.members.pop(membership.member, None) is not None:
            self._rebalance(group, now)
            self._complete(group, now)

    def check(self, membership: Membership) -> None:
        """Reject a request unless it comes from a member of this generation."""
        self.known(membership)
        if membership.generation != self.of(membership.group).generation:
            raise BrokerError(KafkaError.ILLEGAL_GENERATION)

    def commit(self, membership: Membership, offsets: dict[Place, int]) -> None:
        """Commit offsets outside of a transaction."""
        self.check(membership)
        self._apply(membership.group, offsets)

    def hold(self, name: str, producer: int, offsets: dict[Place, int]) -> None:
        """Hold offsets until the producer's transaction ends."""
        self.of(name).held.setdefault(producer, {}).update(offsets)

    def release(self, name: str, producer: int, *, is_commit: bool) -> None:
        """Commit or drop the offsets held for a producer."""
        offsets = self.of(name).held.pop(producer, {})
        if is_commit:
            self._apply(name, offsets)

    def fetch(self, name: str, places: Iterable[Place]) -> dict[Place, int | None]:
        """Return committed offsets, None for none. Raises an error while a transaction holds one of them."""
        group = self.of(name)
        wanted = list(places)
        if any(place in held for held in group.held.values() for place in wanted):
            raise BrokerError(KafkaError.UNSTABLE_OFFSET_COMMIT)
        return {place: group.offsets.get(place) for place in wanted}

    def advance(self, now: float) -> None:
        """Check heartbeats, drop members whose session has ended, and end rebalances after their timeout."""
        for group in self._groups.values():
            for key, member in list(group.members.items()):
                if member.is_beating():
                    member.seen = now
                elif now - member.seen > member.session_timeout:
                    del group.members[key]
                    self._rebalance(group, now)
            if group.is_rebalancing and group.members:
                limit = max(member.rebalance_timeout for member in group.members.values())
                self._complete(group, now, is_over=now - group.started > limit)

    def _apply(self, name: str, offsets: dict[Place, int]) -> None:
        self.of(name).offsets.update(offsets)
        self.history += [(name, place, offset) for place, offset in offsets.items()]

    def known(self, membership: Membership) -> Member:
        """Return the member. Raises an error for an unknown member, and for one that its instance id fences."""
        members = self.of(membership.group).members
        if membership.member in members:
            return members[membership.member]
        if membership.instance and any(one.instance == membership.instance for one in members.values()):
            raise BrokerError(KafkaError.FENCED_INSTANCE_ID)
        raise BrokerError(KafkaError.UNKNOWN_MEMBER_ID)

    def _rebalance(self, group: Group, now: float) -> None:
        if not group.is_rebalancing:
            group.is_rebalancing, group.started = True, now
            for member in group.members.values():
                member.has_joined = False

    def _complete(self, group: Group, now: float, *, is_over: bool = False) -> None:
        """Assign partitions when all members have joined, or the timeout of the others is over."""
        if is_over:  # a static member stays until its session ends, even if it has not joined again
            for key in [key for key, one in group.members.items() if not one.has_joined and one.instance is None]:
                del group.members[key]
        if not group.is_rebalancing or not (is_over or all(one.has_joined for one in group.members.values())):
            return
        group.is_rebalancing = False
        group.generation += 1
        self._assign(group)

    def _assign(self, group: Group) -> None:
        """Assign by range: for each topic, the first partitions go to the first member."""
        for member in group.members.values():
            member.assigned = []
        for topic in sorted({topic for member in group.members.values() for topic in member.topics}):
            takers = [
                member
                for _, member in sorted(group.members.items(), key=lambda item: item[1].instance or item[0])
                if topic in member.topics
            ]
            share, more = divmod(self._partitions(topic), len(takers))
            begin = 0
            for number, member in enumerate(takers):
                end = begin + share + (number < more)
                member.assigned += [(topic, partition) for partition in range(begin, end)]
                begin = end
