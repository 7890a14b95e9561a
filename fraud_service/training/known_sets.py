"""The ready mappings of well-known public data sets: their names, and which of them a file looks like."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

from fraud_service.training.mapping import READY, SUFFIX, FileMapping, load_mapping

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


class KnownSet(NamedTuple):
    """A public data set: the name and the title of its mapping, what to note about it, and the mapping."""

    name: str
    title: str
    note: str
    mapping: FileMapping

    @property
    def columns(self) -> set[str]:
        """All columns that the mapping reads."""
        return {
            name for names in self.mapping.fields.values() for name in ((names,) if isinstance(names, str) else names)
        }


def known_sets() -> Iterator[KnownSet]:
    """Load the mappings that ship with the package. Comments at the start of a file are its title and its notes."""
    for path in sorted(READY.glob(f"*{SUFFIX}")):
        lines = path.read_text(encoding="utf-8").splitlines()
        comments = [line.removeprefix("#").strip() for line in takewhile(lambda line: line.startswith("#"), lines)]
        title, *notes = filter(None, comments)
        yield KnownSet(path.stem, title, " ".join(notes), load_mapping(path.stem))


def recognise(columns: Collection[str]) -> KnownSet | None:
    """Return the data set whose columns a file has."""
    return next((known for known in known_sets() if known.columns <= {*columns}), None)
