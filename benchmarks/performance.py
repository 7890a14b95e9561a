"""`make bench`: everything measured, side by side, and the page written from it.

`python benchmarks/performance.py [PART ...]` runs some parts alone; without a name all of them, and the page. Results
lie in `.cache/bench`, one file a part; what is there is not measured again. Remove the folder to measure anew.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import ladder
import latency
from harness import say

if TYPE_CHECKING:
    from collections.abc import Callable


def parts(options: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """Return what runs each part, with its sizes."""
    sizes = ladder.Sizes(options.messages, options.runs)
    return {
        "ladder": lambda: ladder.run(sizes),
        "latency": lambda: latency.run(latency.Sizes(options.seconds, options.runs)),
    }


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*")
    parser.add_argument("--messages", type=int, default=ladder.Sizes().messages)
    parser.add_argument("--runs", type=int, default=ladder.Sizes().runs)
    parser.add_argument("--seconds", type=float, default=latency.Sizes().seconds)
    options = parser.parse_args()
    known = parts(options)
    for name in options.parts or known:
        say(f"{name}: begins")


if __name__ == "__main__":
    main()
