"""Two streams that should say the same things in the same order, matched in one pass and bounded memory.

Items are pushed from both sides as they are read. As long as nothing is wrong, each meets its partner at once; after a
gap or a surplus the streams meet again by their keys, and what is left over says what went wrong. Equal keys meet in
their order, so that a thing that is there twice on both sides is no anomaly.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

Expected = TypeVar("Expected")
Found = TypeVar("Found")
Item = TypeVar("Item")

WINDOW: Final = 100_000  # items a partner is waited for, and keys remembered to tell a double from a stranger


class Pair(NamedTuple, Generic[Expected, Found]):
    """What was expected and what was found for it, and whether it came in its turn."""

    expected: Expected
    found: Found
    in_order: bool


class _Waiting(Generic[Item]):
    """Items without a partner, by key and in order of arrival; the number is their place in their stream."""

    def __init__(self) -> None:
        self._by_key: OrderedDict[Hashable, deque[tuple[int, Item]]] = OrderedDict()
        self.size = 0

    def put(self, key: Hashable, number: int, item: Item) -> None:
        self._by_key.setdefault(key, deque()).append((number, item))
        self.size += 1

    def take(self, key: Hashable) -> tuple[int, Item] | None:
        waiting = self._by_key.get(key)
        if waiting is None:
            return None
        self.size -= 1
        first = waiting.popleft()
        if not waiting:
            del self._by_key[key]
        return first

    def oldest(self) -> tuple[Hashable, Item]:
        key = next(iter(self._by_key))
        taken = self.take(key)
        if taken is None:
            raise AssertionError("a key without items is removed at once")
        return key, taken[1]

    def drain(self) -> Iterator[tuple[Hashable, Item]]:
        while self._by_key:
            yield self.oldest()


class Matcher(Generic[Expected, Found]):
    """Match what is found with what is expected.

    Parameters
    ----------
    on_missing
        Called with the key and the item of what was expected and does not come, and whether its key has met before.
    on_surplus
        The same for what nobody expected: whether it is a double or a stranger.
    """

    def __init__(
        self,
        on_missing: Callable[[Hashable, Expected, bool], None],
        on_surplus: Callable[[Hashable, Found, bool], None],
        window: int = WINDOW,
    ) -> None:
        self._on_missing = on_missing
        self._on_surplus = on_surplus
        self._window = window
        self._expected: _Waiting[Expected] = _Waiting()
        self._found: _Waiting[Found] = _Waiting()
        self._numbers = [0, 0]
        self._newest = (-1, -1)
        self._met: OrderedDict[Hashable, None] = OrderedDict()

    @property
    def lead(self) -> int:
        """By how many more the expected side waits than the found one: who is behind should be read next."""
        return self._expected.size - self._found.size

    def expect(self, key: Hashable, item: Expected) -> Pair[Expected, Found] | None:
        """Take in what is expected next; returns the pair, if its partner is here."""
        number = self._next(0)
        partner = self._found.take(key)
        if partner is not None:
            return self._meet(key, (number, item), partner)
        self._expected.put(key, number, item)
        if self._expected.size > self._window:
            self._missing(*self._expected.oldest())
        return None

    def find(self, key: Hashable, item: Found) -> Pair[Expected, Found] | None:
        """Take in what is found next; returns the pair, if it was expected."""
        number = self._next(1)
        partner = self._expected.take(key)
        if partner is not None:
            return self._meet(key, partner, (number, item))
        self._found.put(key, number, item)
        if self._found.size > self._window:
            self._surplus(*self._found.oldest())
        return None

    def finish(self) -> None:
        """Say that both streams are at their end: whoever waits, waits in vain."""
        for key, expected in self._expected.drain():
            self._missing(key, expected)
        for key, found in self._found.drain():
            self._surplus(key, found)

    def _next(self, side: int) -> int:
        self._numbers[side] += 1
        return self._numbers[side]

    def _meet(self, key: Hashable, expected: tuple[int, Expected], found: tuple[int, Found]) -> Pair[Expected, Found]:
        in_order = expected[0] > self._newest[0] and found[0] > self._newest[1]
        if in_order:
            self._newest = expected[0], found[0]
        self._met[key] = None
        if len(self._met) > self._window:
            self._met.popitem(last=False)
        return Pair(expected[1], found[1], in_order)

    def _missing(self, key: Hashable, expected: Expected) -> None:
        self._on_missing(key, expected, key in self._met)

    def _surplus(self, key: Hashable, found: Found) -> None:
        self._on_surplus(key, found, key in self._met)
