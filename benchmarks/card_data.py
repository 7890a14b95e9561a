"""Measure how often the guard mistakes harmless values for card data, by kind of value.

    PYTHONPATH=tests python benchmarks/card_data.py 200000

The values are random, but the same in each run. Prints one JSON line for each kind: the number of values, the number
mistaken for card data, and their share.
"""

from __future__ import annotations

import json
import sys

from support.harmless import KINDS, rate


def main() -> None:
    """Measure every kind."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    for kind in KINDS:
        tried, taken = rate(kind, count)
        line = {"kind": kind, "tried": tried, "taken": taken, "share": f"{taken / tried:.4%}"}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
