"""Measure the learner on full topics, and the backtest, which runs the same computation over a file."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import msgspec
from harness import CACHE, LEAST, Broker, Results, broker, committed, scorers, watched, written
from support.processes import Service, fresh_settings

from fraud_service.admin.history_producer import HistoryProducer
from fraud_service.config.settings import Settings
from fraud_service.demo.simulator import World, write
from fraud_service.domain.time import DAY, HOUR
from fraud_service.models import artifact
from fraud_service.training import backtest
from fraud_service.training.history import History

if TYPE_CHECKING:
    from pathlib import Path

DELAY: Final = 7 * DAY
MARGIN: Final = 3 * HOUR  # of event time before the end, because no score has passed the last boundaries


class Sizes(msgspec.Struct, frozen=True):
    """The simulated world. Most of its labels come after seven days."""

    cards: int = 2_000
    days: int = 24


def file(sizes: Sizes) -> Path:
    """Return the file of simulated payments, written at the first call."""
    path = CACHE / f"learning-{sizes.cards}-{sizes.days}.parquet"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        write(World(seed=6, cards=sizes.cards, merchants=1_000, days=sizes.days), path)
    return path


def learner(place: Broker, sizes: Sizes) -> dict[str, float]:
    """Score all payments, send all labels, then start and measure the learner."""
    settings = fresh_settings(place.bootstrap, place.folder)
    events = list(History.open(file(sizes)))
    with HistoryProducer(settings) as feed:
        feed.produce(events, DELAY)
    with scorers(settings, place.folder / "learning", LEAST) as (service,):
        done = committed(settings, settings.scorer_group)
        service.wait_until(lambda: done() >= len(events), 240)
    end = events[-1].transaction.timestamp - MARGIN
    known = (label for event in events if (label := event.label(DELAY)) is not None)
    wanted = sum(label.labelled_at < end for label in known)
    with Service(settings, "learn", place.folder / "learner", is_forked=False) as service:
        if service.process is None:
            raise AssertionError("the learner has no process after its start")
        progress = written(settings, settings.topics.labelled)
        cost = watched([service.process.pid], progress, int(0.9 * wanted), service.folder / "log")
    return {**cost._asdict(), "examples": wanted}


def offline(sizes: Sizes) -> dict[str, float]:
    """Backtest the file."""
    history = History.open(file(sizes))
    plan = backtest.BacktestPlan("bench", artifact.shipped_folder(), DELAY)
    began, cpu = time.perf_counter(), time.process_time()
    table, _ = backtest.backtest(history, plan, Settings())
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {"rate": table.num_rows / seconds, "cpu": cpu / table.num_rows * 1e6, "transactions": table.num_rows}


def run(sizes: Sizes) -> dict[str, Any]:
    """Measure the learner and the backtest."""
    found = Results("learning", msgspec.to_builtins(sizes))
    if "learner" not in found.found:
        with broker() as place:
            found.measured("learner", lambda: learner(place, sizes))
    found.measured("backtest", lambda: offline(sizes))
    return found.found
