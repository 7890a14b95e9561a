"""Write a mapping as TOML."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from fraud_service.domain.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fraud_service.training.mapping import FileMapping

BARE_KEY: Final = re.compile("[A-Za-z0-9_-]+")


def to_toml(mapping: FileMapping, comments: Sequence[str] = ()) -> str:
    """Return the entries that differ from the defaults as TOML, after some lines of comment.

    >>> from fraud_service.training.mapping import FileMapping
    >>> print(to_toml(FileMapping(time_unit="s", fields={"card_id": ("User", "Card")})))
    time_unit = "s"
    <BLANKLINE>
    [fields]
    card_id = ["User", "Card"]
    <BLANKLINE>
    """
    entries = msgspec.to_builtins(mapping, builtin_types=(datetime,))
    tables = {name: entries.pop(name) for name in ("fields", "constants") if name in entries}
    lines = [f"# {visible(comment)}" for comment in comments]
    lines += _lines(entries)
    for name, table in tables.items():
        lines += ["", f"[{name}]", *_lines(table)]
    return "\n".join([*lines[not lines[0] :], ""]) if lines else ""


def _lines(table: Mapping[str, object]) -> Iterator[str]:
    for key, value in table.items():
        name = key if BARE_KEY.fullmatch(key) else _value(key)
        yield f"{name} = {_value(value)}"


def _value(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
