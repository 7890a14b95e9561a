"""Run all benchmarks and write the page of their results (`make bench`).

`python benchmarks/performance.py [PART ...]` runs only these parts. Without a name it runs all of them, then writes the
page. The part `page` only writes it. Results are in `.cache/bench`, one file for each part, and are not measured again.
Remove the folder to measure everything again.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Final

import fleet
import ladder
import latency
import learning
import live
import page
import scale
import stages
from harness import end_in_good_order, say

if TYPE_CHECKING:
    from collections.abc import Callable

MILLIONS: Final = 1_000_000


def parts(options: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """Return the function that runs each part, by name."""
    cards = tuple(int(float(text) * MILLIONS) for text in options.million_cards.split(","))
    return {
        "ladder": lambda: ladder.run(ladder.Sizes(options.messages, options.runs)),
        "latency": lambda: latency.run(latency.Sizes(options.seconds, options.runs)),
        "stages": lambda: stages.run(stages.Sizes(runs=options.runs)),
        "fleet": lambda: fleet.run(fleet.Sizes(options.messages, options.runs)),
        "live": lambda: live.run(live.Sizes()),
        "learning": lambda: learning.run(learning.Sizes()),
        "scale": lambda: scale.run(scale.Sizes(cards)),
        "page": page.write,
    }


def main() -> None:
    """Run the requested parts."""
    end_in_good_order()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="ladder, latency, stages, fleet, live, learning, scale, page")
    parser.add_argument("--messages", type=int, default=ladder.Sizes().messages, help="payments on a full topic")
    parser.add_argument("--runs", type=int, default=3, help="repetitions of each repeated measurement")
    parser.add_argument("--seconds", type=float, default=latency.Sizes().seconds, help="length of each load")
    parser.add_argument("--million-cards", default="0.01,1,10", help="cards in state; 10 need 50 GB of disk")
    options = parser.parse_args()
    known = parts(options)
    unknown = [name for name in options.parts if name not in known]
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}; the parts are {', '.join(known)}")
    for name in options.parts or known:
        began = time.monotonic()
        known[name]()
        say(f"{name}: done after {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
