"""Where items are worked on: in this process, or in several; results come in order.

Anything with a `map` like theirs can take their place, such as a cluster.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from s2v_cli.errors import TrainingError

Task = TypeVar("Task")
Result = TypeVar("Result")

AHEAD = 8  # tasks a process that may be under way or wait: so much memory their results take


class Executor(Protocol):
    """Applies a function to tasks, anywhere."""

    def map(
        self,
        worker: Callable[[Task], Result],
        tasks: Iterable[Task],
        lost: Callable[[Task], Result],
    ) -> Iterator[Result]:
        """Results in the order of the tasks, each as soon as it and those before it are there.

        Args:
            worker: picklable; what it raises is raised here.
            tasks: taken as they are needed, not all at once.
            lost: makes the result of a task that ended its process.
        """
        ...


@dataclass
class _Pending(Generic[Task, Result]):
    """A task that waits for its result."""

    task: Task
    future: Future[Result] | None = None

    def finished(self) -> bool:
        """Whether its result, or what it raised, is there."""
        if self.future is None or self.future.cancelled() or not self.future.done():
            return False
        return not isinstance(self.future.exception(), BrokenProcessPool)


class Here:
    """Works in this process."""

    def map(
        self,
        worker: Callable[[Task], Result],
        tasks: Iterable[Task],
        lost: Callable[[Task], Result],
    ) -> Iterator[Result]:
        """See `Executor`. As in a worker of its own, one thread computes."""
        import torch

        threads = torch.get_num_threads()
        for task in tasks:
            torch.set_num_threads(1)
            try:
                result = worker(task)
            finally:
                torch.set_num_threads(threads)
            yield result


class Processes:
    """Works in several processes of this machine.

    A task that ends its process (some decoders do that on damaged files) costs the tasks beside it
    a second try; it is tried once more alone, and then given up.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def map(
        self,
        worker: Callable[[Task], Result],
        tasks: Iterable[Task],
        lost: Callable[[Task], Result],
    ) -> Iterator[Result]:
        """See `Executor`."""
        queue, rest = deque[_Pending[Task, Result]](), iter(tasks)
        pool = self._pool(self.workers)
        try:
            while True:
                room = self.workers * AHEAD - len(queue)
                queue.extend(_Pending(task) for task in itertools.islice(rest, room))
                if not queue:
                    return
                try:
                    for pending in queue:
                        if pending.future is None:
                            pending.future = pool.submit(worker, pending.task)
                    head = queue[0].future
                    assert head is not None
                    result = head.result()
                except BrokenProcessPool:
                    pool.shutdown(wait=True, cancel_futures=True)
                    pool = self._pool(self.workers)
                    open_ones = [pending for pending in queue if not pending.finished()]
                    for number, pending in enumerate(open_ones):
                        pending.future = None
                        if number <= self.workers:  # it was under way: it may be the one
                            pending.future = Future()
                            pending.future.set_result(self._alone(worker, pending.task, lost))
                    continue
                queue.popleft()
                yield result
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _alone(
        self, worker: Callable[[Task], Result], task: Task, lost: Callable[[Task], Result]
    ) -> Result:
        with self._pool(1) as pool:
            try:
                pool.submit(_nothing).result()
            except BrokenProcessPool:
                raise TrainingError(
                    "Worker processes cannot start. In a script, guard its main part with "
                    "\"if __name__ == '__main__':\", or use one worker (--workers 1)."
                ) from None
            try:
                return pool.submit(worker, task).result()
            except BrokenProcessPool:
                return lost(task)

    @staticmethod
    def _pool(workers: int) -> ProcessPoolExecutor:
        # spawn: this process may have threads, of torch or of a progress bar, which fork breaks
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(workers, mp_context=context, initializer=_start)


def can_spawn() -> bool:
    """Whether new processes could import this one's main file; not so where it was piped in."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    return file is None or getattr(main, "__spec__", None) is not None or os.path.exists(file)


def _nothing() -> None:
    """A task that cannot fail."""


def default_workers() -> int:
    """One a core that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def _start() -> None:
    """Begin a worker: Ctrl-C is for its parent, and without a parent it has no purpose.

    It computes with one thread: other workers have the other cores, and what it computes does not
    depend on how many there are.
    """
    os.environ["OMP_NUM_THREADS"] = "1"  # read by torch when it is imported
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=follow, daemon=True).start()
