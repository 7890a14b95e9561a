"""A stand-in for `confluent_kafka.Consumer`, as far as Quix and our code use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka import OFFSET_BEGINNING, OFFSET_INVALID, KafkaError, KafkaException, TopicPartition
from simulation.admin import metadata
from simulation.errors import BrokerError, disconnected, kafka_error, timed_out
from simulation.groups import Member, Membership
from simulation.host import here
from simulation.log import Record
from simulation.messages import Message
from simulation.producer import RETRY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from simulation.log import Place

    Callback = Callable[[Any, list[TopicPartition]], None]

IDLE = 0.5  # extra seconds of a poll without messages, because a seed spends most of its time on idle polls
NOT_FETCHED = 0.3  # share of polls that return nothing although there are messages
PAUSE_LOST = 0.1  # share of pauses that the client discards before its first fetch
NO_RECORD = Record(None, None, [], 0)


@dataclass
class Cursor:
    """The position in a partition: the next offset to fetch, and the messages the application got."""

    next: int | None
    position: int = OFFSET_INVALID
    is_paused: bool = False


class Consumer:
    """A consumer that runs the group's callbacks in `poll`. Heartbeats continue while the host runs and polls."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._host = here.get()
        self._broker = self._host.broker
        self._group: str = options["group.id"]
        self._instance: str | None = options.get("group.instance.id")
        self._session = options.get("session.timeout.ms", 45_000) / 1000
        self._most_idle = options.get("max.poll.interval.ms", 300_000) / 1000
        self._is_committed = options.get("isolation.level", "read_committed") == "read_committed"
        self._cursors: dict[Place, Cursor] = {}
        self._topics: list[str] = []
        self._callbacks: dict[str, Callback] | None = None
        self._member: str | None = None
        self._generation = -1  # of the current assignment
        self._owned: list[Place] = []
        self._polled = self._broker.now
        self._is_closed = False
        self._fatal: KafkaError | None = None

    def subscribe(self, topics: list[str], **callbacks: Callback) -> None:
        """Join the group at the next poll."""
        self._topics, self._callbacks, self._polled = topics, callbacks, self._broker.now

    def poll(self, timeout: float = -1) -> Message | None:
        """Handle group events, then return a message, an error, or None."""
        try:
            error = self._host.call("poll", self._overslept, [disconnected])
        except KafkaException as lost:
            error = lost.args[0]
        if error is not None:
            return Message(("", -1), -1, NO_RECORD, error)
        self._serve()
        if self._fatal is not None:
            return Message(("", -1), -1, NO_RECORD, self._fatal)
        message = self._next()
        if message is None and timeout != 0:
            self._host.pause(max(timeout, IDLE))
            self._polled = self._broker.now
            self._serve()
            message = self._next()
        return message

    def consume(self, num_messages: int = 1, timeout: float = -1) -> list[Message]:
        """Return the available messages."""
        found: list[Message] = []
        while len(found) < num_messages and (message := self.poll(0 if found else timeout)) is not None:
            found.append(message)
        return found

    def assign(self, partitions: list[TopicPartition]) -> None:
        """Read these partitions from the given or the committed offsets, and resume all of them."""
        self._cursors = {_place(one): Cursor(one.offset if one.offset >= 0 else _logical(one)) for one in partitions}

    def unassign(self) -> None:
        """Stop reading all partitions."""
        self._cursors = {}

    def assignment(self) -> list[TopicPartition]:
        """Return the assigned partitions."""
        return [TopicPartition(*place) for place in self._cursors]

    def pause(self, partitions: list[TopicPartition]) -> None:
        """Stop fetching these partitions until `resume`. A pause right after the assignment can be lost."""
        self._mark([one for one in partitions if not self._is_lost(one)], is_paused=True)

    def resume(self, partitions: list[TopicPartition]) -> None:
        """Fetch these partitions again."""
        self._mark(partitions, is_paused=False)

    def seek(self, partition: TopicPartition) -> None:
        """Continue from another offset."""
        cursor = self._cursors.get(_place(partition))
        if cursor is None:
            raise kafka_error(KafkaError._STATE)
        cursor.next = partition.offset if partition.offset >= 0 else _logical(partition)
        cursor.position = OFFSET_INVALID

    def position(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """Return the next offset of each partition."""
        known = [self._cursors.get(_place(one)) for one in partitions]
        return [
            TopicPartition(one.topic, one.partition, OFFSET_INVALID if cursor is None else cursor.position)
            for one, cursor in zip(partitions, known, strict=True)
        ]

    def committed(self, partitions: list[TopicPartition], timeout: float = -1) -> list[TopicPartition]:
        """Return committed offsets after all transactions that hold them have ended."""
        places = [_place(one) for one in partitions]
        deadline = self._broker.now + timeout if timeout >= 0 else float("inf")
        while True:
            try:
                found = self._host.call(
                    "committed", lambda: self._broker.groups.fetch(self._group, places), [timed_out]
                )
            except BrokerError as error:
                if self._broker.now >= deadline:
                    raise timed_out() from error
                self._host.pause(RETRY)
            else:
                return [
                    TopicPartition(*place, OFFSET_INVALID if found[place] is None else found[place]) for place in places
                ]

    def commit(self, offsets: list[TopicPartition], asynchronous: bool = True) -> list[TopicPartition]:
        """Commit offsets outside of a transaction."""
        wanted = {_place(one): one.offset for one in offsets}
        try:
            self._host.call("commit", lambda: self._broker.groups.commit(self._membership, wanted), [timed_out])
        except BrokerError as error:
            raise kafka_error(error.code) from error
        return offsets

    def get_watermark_offsets(
        self, partition: TopicPartition, timeout: float = -1, cached: bool = False
    ) -> tuple[int, int]:
        """Return the first offset and the end, which is the last stable offset with `read_committed`."""
        log = self._host.call("watermarks", lambda: self._broker.log(_place(partition)), [timed_out])
        return 0, log.stable_end if self._is_committed else log.end

    def list_topics(self, topic: str | None = None, timeout: float = -1) -> Any:
        """Return the topics."""
        return self._host.call("list_topics", lambda: metadata(self._broker), [timed_out])

    def consumer_group_metadata(self) -> Membership:
        """Return this member's identity for the producer."""
        return self._membership

    def memberid(self) -> str | None:
        """Return the member id."""
        return self._member

    def close(self) -> None:
        """Give up the partitions. A static member does not leave the group before its session ends."""
        if self._is_closed:
            return
        self._host.call("close", lambda: None)
        try:
            if self._generation >= 0 and self._owned:
                self._give_up("on_revoke")
        finally:
            self._is_closed = True
            if self._member is not None and self._instance is None:
                self._broker.groups.leave(self._membership, self._broker.now)

    @property
    def _membership(self) -> Membership:
        return Membership(self._group, self._member or "", self._generation, self._instance)

    def _is_beating(self) -> bool:
        is_polling = self._broker.now - self._polled <= self._most_idle
        return not self._is_closed and is_polling and self._host.is_beating()

    def _overslept(self) -> KafkaError | None:
        late, self._polled = self._broker.now - self._polled > self._most_idle, self._broker.now
        return KafkaError(KafkaError._MAX_POLL_EXCEEDED) if late and self._owned else None

    def _serve(self) -> None:
        """Follow the group's rebalances: join, give up partitions, take new ones."""
        if self._callbacks is None or self._is_closed:
            return
        groups, now = self._broker.groups, self._broker.now
        group = groups.of(self._group)
        if self._member is None:
            member = Member(self._topics, self._instance, self._session, self._most_idle, self._is_beating, now)
            self._member = groups.join(self._group, member, now)
        try:
            known = groups.known(self._membership)
            if self._generation >= 0 and self._generation != group.generation:
                self._give_up("on_lost")
            elif group.is_rebalancing and not known.has_joined:
                self._give_up("on_revoke")
            if not known.has_joined:
                groups.rejoin(self._membership, self._broker.now)
        except BrokerError as error:  # the group has dropped the member, perhaps while its callback ran
            self._member = None
            if error.code == KafkaError.FENCED_INSTANCE_ID:
                self._fatal = KafkaError(error.code, error.args[0], fatal=True)
            self._give_up("on_lost")
            return
        if self._generation < 0 and not group.is_rebalancing:
            self._generation, self._owned = group.generation, list(known.assigned)
            self._callbacks["on_assign"](self, [TopicPartition(*place) for place in self._owned])

    def _give_up(self, how: str) -> None:
        """Call the application's revoke or lost callback, then hold no partition."""
        try:
            if self._owned and how in self._callbacks:
                self._callbacks[how](self, [TopicPartition(*place) for place in self._owned])
        finally:
            self._owned, self._generation = [], -1
            self.unassign()

    def _next(self) -> Message | None:
        if not self._host.calm and self._host.luck.random() < NOT_FETCHED:
            return None
        places = [place for place, cursor in self._cursors.items() if not cursor.is_paused]
        self._host.luck.shuffle(places)
        for place in places:
            cursor = self._cursors[place]
            if cursor.next is None and not self._find(place, cursor):
                continue
            offset, record = self._broker.log(place).read(cursor.next, is_committed=self._is_committed)
            if record is not None:
                cursor.next = cursor.position = offset + 1
                return Message(place, offset, record)
            if offset > cursor.next:  # markers and aborted records move the position too
                cursor.next = cursor.position = offset
        return None

    def _find(self, place: Place, cursor: Cursor) -> bool:
        """Find the start: the committed offset, or the first one. False while a transaction holds it."""
        try:
            cursor.next = self._broker.groups.fetch(self._group, [place])[place] or 0
        except BrokerError:
            return False
        return True

    def _is_lost(self, partition: TopicPartition) -> bool:
        cursor = self._cursors.get(_place(partition))
        is_new = cursor is not None and cursor.next is None
        return is_new and not self._host.calm and self._host.luck.random() < PAUSE_LOST

    def _mark(self, partitions: Iterable[TopicPartition], *, is_paused: bool) -> None:
        for one in partitions:
            cursor = self._cursors.get(_place(one))
            if cursor is not None:
                cursor.is_paused = is_paused


def _place(partition: TopicPartition) -> Place:
    return partition.topic, partition.partition


def _logical(partition: TopicPartition) -> int | None:
    return 0 if partition.offset == OFFSET_BEGINNING else None
