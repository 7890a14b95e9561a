"""Work spread over processes: a share each, progress and results through a pipe."""

from __future__ import annotations

from multiprocessing import get_context
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, Final

from fraud_service.domain.errors import FraudServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection

STEP: Final = 1000  # units of work between two words of progress


class _Counter:
    """Counts units of work, and says so once in a while."""

    def __init__(self, say: Callable[[int], None]) -> None:
        self._say = say
        self._count = 0

    def __call__(self) -> None:
        self._count += 1
        if self._count % STEP == 0:
            self._say(self._count)


def run_in_processes(
    work: Callable[..., Any], shares: Sequence[tuple[Any, ...]], progress: Callable[[int], None]
) -> list[Any]:
    """Run `work(*share, count)` for each share, at once; returns the results in order.

    Parameters
    ----------
    work
        A function of a module, which calls `count()` for every unit of work. What it raises is raised here.
    progress
        Told how many units are done in all.

    Raises
    ------
    FraudServiceError
        What a share raised, or that its process was ended from outside.
    """
    if len(shares) == 1:
        return [work(*shares[0], _Counter(progress))]
    context = get_context("spawn")  # librdkafka's threads do not survive a fork
    pipes, processes = [], []
    for share in shares:
        receiving, sending = context.Pipe(duplex=False)
        process = context.Process(target=_run, args=(work, share, sending), daemon=True)
        process.start()
        sending.close()
        pipes.append(receiving)
        processes.append(process)
    try:
        return _collected(pipes, progress)
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _run(work: Callable[..., Any], share: tuple[Any, ...], pipe: Connection) -> None:
    try:
        pipe.send(("done", work(*share, _Counter(lambda count: pipe.send(("at", count))))))
    except FraudServiceError as error:
        pipe.send(("failed", error))


def _collected(pipes: list[Connection], progress: Callable[[int], None]) -> list[Any]:
    counts: dict[Any, int] = dict.fromkeys(pipes, 0)
    results: dict[Any, Any] = {}
    while len(results) < len(pipes):
        ready: list[Any] = wait([pipe for pipe in pipes if pipe not in results])
        for pipe in ready:
            try:
                word, value = pipe.recv()
            except EOFError:
                raise FraudServiceError(
                    "a process of the replay was ended from outside: is there memory enough?"
                ) from None
            if word == "failed":
                raise value
            if word == "done":
                results[pipe] = value
            else:
                counts[pipe] = value
                progress(sum(counts.values()))
    return [results[pipe] for pipe in pipes]
