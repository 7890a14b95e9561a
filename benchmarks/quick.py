"""`make bench-quick`: the ratios in three minutes, beside the ones that are committed; ends with one JSON line.

Exit code 1 when a ratio is clearly worse than `benchmarks/ratios.json` says, which `make bench` writes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import ladder
import latency
from harness import broker, end_in_good_order, payments, say, send
from support.processes import fresh_settings

if TYPE_CHECKING:
    from harness import Broker

RATIOS: Final = Path(__file__).with_name("ratios.json")
MESSAGES: Final = 240_000
SECONDS: Final = 8.0
# A quick run measures each rung once, within seconds, on a machine that others may use. In six runs of one day there
# were ratios of 47 to 69, 0.21 to 0.42, and 0.04 to 0.29: run it again before you believe the last one.
TOLERANCE: Final = 0.35
TOLERANCE_COST: Final = 0.15  # of exactly-once, which is a share already


def throughput(place: Broker) -> dict[str, Any]:
    """Measure each rung that a ratio needs, once."""
    settings = fresh_settings(place.bootstrap, place.folder)
    send(settings, payments(MESSAGES))
    found = {}
    for rung in ladder.RUNGS:
        cost = ladder.measure(rung, settings, place, MESSAGES)
        say(f"{rung.name}: {cost.rate:,.0f} a second, {cost.cpu:.1f} µs of processor time each")
        found[f"{rung.name} #0"] = cost._asdict()
    return found


def line() -> dict[str, Any]:
    """Measure, and return what the last line says."""
    with broker() as place:
        say(f"on {place.kind}")
        found = throughput(place)
        half = {guarantee: rate / 2 for guarantee, rate in latency.capacity(place, ladder.capacity(found)).items()}
        delays = {one: latency.measure(place, one, rate, SECONDS) for one, rate in half.items()}
    for guarantee, delay in delays.items():
        late = delay["late"]
        say(f"{guarantee}: the feeder was {late['handed_p99_ms']:.1f} ms late (p99) at {delay['rate']:,.0f} a second")
    least, once = delays["at-least-once"]["score"], delays["exactly-once"]["score"]
    return {
        **ladder.ratios(found),
        "p50_ms": round(least["p50"], 1),
        "p99_ms": round(least["p99"], 1),
        "exactly_once_p99_ms": round(once["p99"], 1),
        "broker": place.kind,
    }


def worse(now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """Return what is clearly worse than before, a sentence each."""
    found = []
    for name in ("throughput_vs_naive", "throughput_vs_quix_step"):
        least = before[name] * (1 - TOLERANCE)
        if now[name] < least:
            found.append(f"{name} is {now[name]}, it was {before[name]}; less than {least:.2f} is not noise")
    most = before["exactly_once_cost"] + TOLERANCE_COST
    if now["exactly_once_cost"] > most:
        was = before["exactly_once_cost"]
        found.append(
            f"exactly_once_cost is {now['exactly_once_cost']}, it was {was}; more than {most:.2f} is not noise"
        )
    return found


def compared(now: dict[str, Any]) -> list[str]:
    """Compare with the committed ratios, if that means something; returns what is clearly worse."""
    if not RATIOS.exists():
        say(f"{RATIOS.name} is not there: nothing to compare with; `make bench` writes it")
        return []
    before = json.loads(RATIOS.read_text(encoding="utf-8"))
    if before["broker"] != now["broker"]:
        say(f"not compared: the committed ratios are of {before['broker']}, these are of {now['broker']}")
        return []
    problems = worse(now, before)
    say("WORSE: " + "; ".join(problems) if problems else f"no ratio is clearly worse than in {RATIOS.name}")
    return problems


def main() -> None:
    """Measure, compare, tell."""
    end_in_good_order()
    now = line()
    problems = compared(now)
    print(json.dumps(now))  # noqa: T201
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
