"""Run one function in several processes, with progress."""

from __future__ import annotations

from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from typing import TYPE_CHECKING, Any, Final

from fraud_service.domain.errors import FraudServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.queues import SimpleQueue

STEP: Final = 1000  # units of work between two progress messages
POLL_S: Final = 0.2  # seconds between two looks at the progress

_progress: SimpleQueue[int]  # set in each worker process


def _run_counted(work: Callable[..., Any], share: tuple[Any, ...], report: Callable[[int], None]) -> Any:
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        if done % STEP == 0:
            report(STEP)

    result = work(*share, count)
    report(done % STEP)
    return result


def run_in_processes(
    work: Callable[..., Any], shares: Sequence[tuple[Any, ...]], progress: Callable[[int], None]
) -> list[Any]:
    """Run `work(*share, count)` for each share in a process of its own, and return the results in order.

    `work` is a function of a module that calls `count()` for every unit of work. `progress` receives the number of
    further units that are done. An error of `work` is raised as it is, after the other workers are ended. Raises
    `FraudServiceError` when a worker process was killed.
    """
    if len(shares) == 1:
        return [_run_counted(work, shares[0], progress)]
    context = get_context("spawn")  # librdkafka's threads do not survive a fork
    queue, others = context.SimpleQueue(), set(active_children())
    with ProcessPoolExecutor(len(shares), context, _connect, (queue,)) as pool:
        futures = [pool.submit(_run, work, share) for share in shares]
        workers = set(active_children()) - others
        try:
            waiting, has_failed = set(futures), False
            while waiting and not has_failed:
                done, waiting = wait(futures, POLL_S, FIRST_EXCEPTION)
                has_failed = any(future.exception() for future in done)
                # The executor overlooks the death of a worker that it started while it was already waiting.
                if any(worker.exitcode for worker in workers):
                    raise BrokenProcessPool  # noqa: TRY301 - ends the other workers, as any error does
                while not queue.empty():
                    progress(queue.get())
            return [future.result() for future in futures if not has_failed or future in done]
        except BaseException as error:
            for worker in workers:
                worker.terminate()
            if isinstance(error, BrokenProcessPool):
                raise FraudServiceError("a worker process was killed: does the machine have enough memory?") from None
            raise


def _connect(queue: SimpleQueue[int]) -> None:
    global _progress  # noqa: PLW0603 - the only way to hand a queue to the workers of an executor
    _progress = queue


def _run(work: Callable[..., Any], share: tuple[Any, ...]) -> Any:
    return _run_counted(work, share, _progress.put)
