"""The tables of settings: one per topic, with the kind of value and its bounds."""

from __future__ import annotations

from datetime import timedelta
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args, get_origin

from fraud_service.config.setting_groups import TopicNames
from fraud_service.config.settings import PREFIX, Settings, as_text, variables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

HEADER: Final = ("variable", "default", "kind", "meaning")
KINDS: Final = {bool: "`true` or `false`", int: "integer", float: "number", str: "text", timedelta: "duration"}


def setting_groups() -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """Yield the title of each group of settings and its rows."""
    for group in Settings.__bases__[::-1]:
        own = [name for name in group.__annotations__ if name in Settings.model_fields]
        kinds = [(name, kind(Settings.model_fields[name])) for name in own if name != "topics"]
        if "topics" in own:
            kinds += [(f"TOPICS__{name}", "topic name") for name in TopicNames.model_fields]
        yield cleandoc(group.__doc__ or "").rstrip("."), [_row(name, text) for name, text in kinds]


def _row(name: str, text: str) -> tuple[str, ...]:
    variable = f"{PREFIX}{name.upper()}"
    default, meaning = variables()[variable]
    return f"`{variable}`", f"`{default}`", text, meaning


def kind(field: FieldInfo) -> str:
    """Say what a setting takes: its type, its bounds, or its choices."""
    hint = next(one for one in (*get_args(field.annotation), field.annotation) if one is not type(None))
    if get_origin(field.annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(field.annotation))
    if get_origin(field.annotation) is dict:
        return "JSON object"
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if hint is Path:
        return "path"
    return KINDS[hint] + _bounds(field.metadata)


def _bounds(metadata: list[Any]) -> str:
    found = {name: as_text(getattr(one, name)) for one in metadata for name in ("gt", "ge", "le") if hasattr(one, name)}
    if not found.keys() & {"ge", "gt"}:
        return ""
    low = found["ge"] if "ge" in found else f"above {found['gt']}"
    return f", {low} to {found['le']}" if "le" in found else f", {low} or more"
