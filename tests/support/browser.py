"""Measure a page in Chromium, in a frame as wide as a phone or a screen."""

from __future__ import annotations

import html
import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT_S = 60
OUTER = """<!doctype html><iframe style="width: {width}px; height: 3000px; border: 0" srcdoc="{page}"></iframe>
<pre></pre><script>
onload = () => {{
  const frame = document.querySelector("iframe").contentWindow, page = frame.document
  const size = element => {{
    const svg = element.ownerSVGElement, given = parseFloat(frame.getComputedStyle(element).fontSize)
    return svg ? given * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : given
  }}
  const texts = [...page.querySelectorAll("svg text, td, th, p, figcaption, h1, h2")]
  document.querySelector("pre").textContent = JSON.stringify({{
    scroll_width: page.documentElement.scrollWidth, smallest_text: Math.min(...texts.map(size))
  }})
}}
</script>
"""


def measure(page: str, width: int, folder: Path) -> dict[str, Any]:
    """Return the width of all content and the size of the smallest text, in pixels of the screen."""
    path = folder / "outer.html"
    path.write_text(OUTER.format(width=width, page=html.escape(page)), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--dump-dom"]
    command = ["chromium", *options, f"--user-data-dir={folder / 'browser'}", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    found = re.search("<pre>(.*?)</pre>", done.stdout, re.DOTALL)
    assert found, done.stderr
    return dict(json.loads(html.unescape(found[1])))
