"""Compare the scorer with a bare client, plain Quix, a stateful step, a naive service and other frameworks.

Every rung is a separate process on the same topic, which is full before the process starts. The benchmark reads
progress and cost from outside. Progress is the offsets that the group committed, or the records on the output topic for
peers that commit none. Cost is the processor time of the process and its children. The runs of all rungs are
interleaved, so that a slow minute of the machine affects all of them.
"""

from __future__ import annotations

import importlib
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from harness import (
    LEAST,
    ONCE,
    Broker,
    Cost,
    Results,
    broker,
    committed,
    payments,
    pid_of,
    running,
    say,
    scorers,
    send,
    spread,
    watched,
    written,
)
from support.processes import fresh_settings

from fraud_service.kafka import clients, topics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fraud_service.config.settings import Settings

    Build = Callable[[], list[str]]

HERE: Final = Path(__file__).resolve().parent
NOT_BUILT: Final = "not built"
SCORER: Final = "scorer, at-least-once"
SCORER_ONCE: Final = "scorer, exactly-once, commit every 0.1 s"
STEP: Final = "Quix stateful step with output"
PARSED: Final = "Quix stateful step, JSON in and out"
NAIVE: Final = "naive service"
STREAMS: Final = "Kafka Streams"


class Rung(NamedTuple):
    """A process to measure: the scorer with its settings, or a command.

    `share` is the part of the topic that it processes: slow rungs process less. A peer may commit elsewhere, so its
    progress is the number of records it writes.
    """

    name: str
    share: float
    command: tuple[str, ...] = ()
    scorer: dict[str, str] | None = None
    guarantee: str = "at-least-once"
    is_peer: bool = False


def _script(name: str, *words: str) -> tuple[str, ...]:
    return (sys.executable, str(HERE / name), *words)


RAW, PASS = "raw client: consume and decode", "Quix pass-through"
RUNGS: Final = (
    Rung(RAW, 1.0, _script("rungs.py", "raw")),
    Rung(PASS, 0.75, _script("rungs.py", "passthrough")),
    Rung(STEP, 0.75, _script("rungs.py", "stateful")),
    Rung(PARSED, 0.75, _script("rungs.py", "parsed")),
    Rung(SCORER, 0.25, scorer=LEAST),
    Rung(SCORER_ONCE, 0.25, scorer=ONCE),
    Rung(NAIVE, 0.005, _script("naive.py")),
)


class Sizes(msgspec.Struct, frozen=True):
    """The number of messages on the topic, and the number of runs."""

    messages: int = 400_000
    runs: int = 3


def peers() -> dict[str, Build]:
    """Return the build function of each peer from `benchmarks/peers`, which may be absent."""
    if not (HERE / "peers" / "__init__.py").exists():
        return {}
    found: dict[str, Build] = importlib.import_module("peers").PEERS
    return found


def _peer_rungs() -> Iterator[Rung | str]:
    """Yield a rung for each peer and guarantee, or a text with the name and the reason if the build fails."""
    listed = peers()
    for name, build in listed.items():
        try:
            command = tuple(build())
        except (OSError, RuntimeError, ValueError) as error:
            yield f"{name}: {NOT_BUILT}: {error}"
            continue
        yield Rung(name, 1.0 if name == STREAMS else 0.25, command, is_peer=True)
        if name == STREAMS:
            yield Rung(f"{name}, exactly-once", 1.0, command, guarantee="exactly-once", is_peer=True)
    if not listed:
        yield f"{STREAMS}: {NOT_BUILT}"
        yield f"bytewax: {NOT_BUILT}"


def measure(rung: Rung, settings: Settings, place: Broker, messages: int) -> Cost:
    """Run one rung over the topic."""
    letters = "".join(letter if letter.isalnum() else "-" for letter in rung.name)
    group = f"{letters}-{time.monotonic_ns()}"
    settings = settings.model_copy(update={"scorer_group": group})  # changelog and state change with it
    folder, wanted = place.folder / group, max(int(rung.share * messages), 1000)
    with _process(rung, settings, folder, group) as (pid, output):
        progress = written(settings, output) if rung.is_peer else committed(settings, group)
        return watched([pid], progress, wanted, folder / "log")


@contextmanager
def _process(rung: Rung, settings: Settings, folder: Path, group: str) -> Iterator[tuple[int, str]]:
    if rung.scorer is not None:
        topics.create(clients.admin(settings), topics.topic_specs(settings), 1)
        with scorers(settings, folder, rung.scorer) as (service,):
            folder.joinpath("log").symlink_to(service.folder / "log")
            yield pid_of(service), settings.topics.scores
        return
    source, output = settings.topics.transactions, f"{settings.topics.scores}.{group}"
    words = [settings.bootstrap_servers, source, output, group, str(folder / "state"), rung.guarantee]
    if rung.is_peer:  # a peer creates its own topics, and has its commit interval as an argument
        words.append("100" if rung.guarantee == "exactly-once" else "1000")
    else:
        spec = next(spec for spec in topics.topic_specs(settings) if spec.role == "scores")
        topics.create(clients.admin(settings), [msgspec.structs.replace(spec, name=output)], 1)
    with running([*rung.command, *words], folder) as process:
        yield process.pid, output


def absent() -> list[str]:
    """Return the peers that cannot be built here, each with the reason."""
    return [text for text in _peer_rungs() if isinstance(text, str)]


def run(sizes: Sizes) -> dict[str, Any]:
    """Measure all rungs, interleaved."""
    found = Results("ladder", msgspec.to_builtins(sizes))
    rungs = {
        f"{rung.name} #{number}": rung
        for number in range(sizes.runs)
        for rung in [*RUNGS, *(one for one in _peer_rungs() if isinstance(one, Rung))]
    }
    if not rungs.keys() <= found.found.keys():
        with broker() as place:
            settings = fresh_settings(place.bootstrap, place.folder)
            found.found["broker"] = place.kind
            send(settings, payments(sizes.messages))
            say(f"ladder: {sizes.messages} payments on {place.kind}")
            for name, rung in rungs.items():
                found.measured(name, lambda rung=rung: measure(rung, settings, place, sizes.messages)._asdict())
    return found.found


def medians(found: dict[str, Any]) -> dict[str, Any]:
    """Return median and spread of every rung."""
    runs: dict[str, list[dict[str, float]]] = {}
    for name, cost in found.items():
        if " #" in name:
            runs.setdefault(name.rpartition(" #")[0], []).append(cost)
    return {
        name: {figure: spread([cost[figure] for cost in costs]) for figure in Cost._fields}
        for name, costs in runs.items()
    }


def ratio(found: dict[str, Any], over: str, under: str) -> dict[str, float]:
    """Return how many times as fast one rung was as another, from the ratios of neighbouring runs."""
    above, below = _runs(found, over), _runs(found, under)
    return spread([one["rate"] / other["rate"] for one, other in zip(above, below, strict=True)])


def _runs(found: dict[str, Any], rung: str) -> list[dict[str, float]]:
    return [cost for name, cost in found.items() if name.startswith(f"{rung} #")]


def ratios(found: dict[str, Any]) -> dict[str, float]:
    """Return the main ratios of the ladder."""
    return {
        "throughput_vs_naive": round(ratio(found, SCORER, NAIVE)["median"], 1),
        "throughput_vs_quix_step": round(ratio(found, SCORER, STEP)["median"], 2),
        "exactly_once_cost": round(1 - ratio(found, SCORER_ONCE, SCORER)["median"], 2),
    }


def capacity(found: dict[str, Any]) -> dict[str, float]:
    """Return the scorer's transactions per second under both guarantees."""
    names = {"at-least-once": SCORER, "exactly-once": SCORER_ONCE}
    return {one: spread([cost["rate"] for cost in _runs(found, name)])["median"] for one, name in names.items()}
