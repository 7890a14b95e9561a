"""HTML pages that work offline and without scripts, on a phone too."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

from fraud_service.domain.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# A wide table scrolls within its frame, so the page never does. A shadow shows on which side it continues.
STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
body, h1, h2 { overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
.scroll { overflow-x: auto; margin: .6rem 0; background:
  linear-gradient(90deg, Canvas 50%, transparent) 0 / 2rem local no-repeat,
  linear-gradient(270deg, Canvas 50%, transparent) 100% / 2rem local no-repeat,
  linear-gradient(90deg, #8888, transparent) 0 / .7rem no-repeat,
  linear-gradient(270deg, #8888, transparent) 100% / .7rem no-repeat; }
 .answer { font-size: 1.25rem; }
table { border-collapse: collapse; }
th, td { padding: .25rem .9rem .25rem 0; text-align: left; vertical-align: top; font-variant-numeric: tabular-nums; }
th, td { overflow-wrap: normal; } td { white-space: nowrap; } td.text { white-space: normal; min-width: 12rem; }
thead th { border-bottom: 1px solid #8888; }
tr.set td { font-weight: 600; }
figure { margin: 1rem 0; } figure svg { width: 100%; height: auto; background: #fff; border-radius: 6px; }
figcaption, .note { opacity: .8; font-size: .9rem; }
.warning { border-left: 4px solid #d55e00; padding: .2rem .8rem; }
@media (max-width: 40rem) {
  .facts tr { display: grid; grid-template-columns: 8rem 1fr; margin-bottom: .6rem; }
  .facts td { white-space: normal; overflow-wrap: anywhere; } .facts td:nth-child(3) { grid-column: 1 / -1; }
}
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 0 2rem; }
"""
LONG_TEXT: Final = 40  # characters
MARKED: Final = ' class="set"'


def escaped(text: str) -> str:
    """Escape markup, and control, bidirectional and invisible characters."""
    return escape(visible(text))


def page(title: str, body: str) -> str:
    """Return a complete page; `body` is HTML, `title` is text."""
    title = escaped(title)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{body}</body>\n</html>\n"
    )


def section(title: str, note: str, content: str) -> str:
    """Return a heading, a note and content; title and note are text, and the note may be empty."""
    explained = f'<p class="note">{escaped(note)}</p>\n' if note else ""
    return f"<h2>{escaped(title)}</h2>\n{explained}{content}"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], *, marked: Sequence[int] = ()) -> str:
    """Return a table of escaped values, formatted by `shown`; the rows with the `marked` numbers stand out."""
    titles = f"<thead><tr>{''.join(f'<th>{escaped(title)}</th>' for title in head)}</tr></thead>\n" if head else ""
    body = "".join(
        f"<tr{MARKED if number in marked else ''}>{''.join(map(_cell, row))}</tr>\n" for number, row in enumerate(rows)
    )
    kind = "" if head else ' class="facts"'
    return f'<div class="scroll"><table{kind}>\n{titles}<tbody>\n{body}</tbody>\n</table></div>\n'


def _cell(value: Any) -> str:
    text = shown(value)
    kind = ' class="text"' if len(text) > LONG_TEXT else ""  # such a cell has lines of a readable length
    return f"<td{kind}>{escaped(text)}</td>"


def shown(value: Any) -> str:
    """Format a value: four decimals for a float, a dash for None."""
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
