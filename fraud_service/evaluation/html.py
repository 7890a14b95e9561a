"""HTML pages that work offline and without scripts."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

from fraud_service.domain.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; margin: .6rem 0; }
th, td { padding: .2rem .9rem .2rem 0; text-align: left; font-variant-numeric: tabular-nums; }
thead th { border-bottom: 1px solid #8888; }
figure { margin: 1rem 0; } figure svg { width: 100%; height: auto; background: #fff; border-radius: 6px; }
figcaption, .note { color: #777; font-size: .9rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1rem; }
"""


def escaped(text: str) -> str:
    """Escape markup, and control, bidirectional and invisible characters."""
    return escape(visible(text))


def page(title: str, body: str) -> str:
    """Return a complete page; `body` is HTML, `title` is text."""
    title = escaped(title)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{title}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{body}</body>\n</html>\n"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table of escaped values, formatted by `shown`."""
    titles = f"<thead><tr>{''.join(f'<th>{escaped(title)}</th>' for title in head)}</tr></thead>\n" if head else ""
    body = "".join(f"<tr>{''.join(f'<td>{escaped(shown(value))}</td>' for value in row)}</tr>\n" for row in rows)
    return f"<table>\n{titles}<tbody>\n{body}</tbody>\n</table>\n"


def shown(value: Any) -> str:
    """Format a value: four decimals for a float, a dash for None."""
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
