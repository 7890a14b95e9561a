"""A fake Kafka client that returns a test's messages, and runs a function during a poll."""

from __future__ import annotations

from types import SimpleNamespace


class Polled:
    """A message as the client returns it."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def error(self):
        return None

    def topic(self):
        return "in"

    def partition(self):
        return 0

    def offset(self):
        return self._offset

    def key(self):
        return b"k"

    def value(self):
        return b"v"

    def timestamp(self):
        return (1, 5)


class Client:
    """Context and consumer in one. `happens` maps the number of a poll to a function that runs inside it."""

    def __init__(self, messages: int, happens=None) -> None:
        self.waiting = [Polled(offset) for offset in range(messages)]
        self.happens = happens or {}
        self.polls, self.timeouts, self.produced, self.stored = 0, [], [], []
        self.exactly_once, self.commits, self.clock = False, [], 100.0
        self._created_at = 0.0
        self.consumer = self.checkpoint = self
        self.producer = SimpleNamespace(poll=lambda _: None, produce=lambda **record: self.produced.append(record))

    def poll(self, timeout):
        self.polls += 1
        self.timeouts.append(timeout)
        self.happens.get(self.polls, lambda: None)()
        return self.waiting.pop(0) if self.waiting else None

    def store_offset(self, topic, partition, offset):
        self.stored.append((topic, partition, offset))

    def empty(self):
        return not self.stored

    def commit_checkpoint(self, *, force):
        assert force
        self.commits.append(self.stored)
        self.stored = []
        self.clock += 0.02  # seconds that a commit takes
        self._created_at = self.clock

    def sleep(self, seconds):
        self.clock += seconds

    def monotonic(self):
        return self.clock
