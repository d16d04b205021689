"""Tasks done side by side in processes of this machine.

What a task gives is up to its function; a `UserError` that it raises, such as a full disk, ends
all. A task whose process was killed gives what ``lost(task, reason)`` says.
"""

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from typing import TypeVar

from mri_jax.cluster.independent import Lost
from mri_jax.errors import UserError

T = TypeVar("T")
R = TypeVar("R")


def in_processes(
    work: Callable[[T], R], tasks: Sequence[T], workers: int, lost: Lost[T, R]
) -> Iterator[R]:
    """Yields what each task gives, as they end; one whose process is killed costs no other."""
    waiting = list(tasks)
    try:
        with _pool(workers) as pool:
            try:
                futures = {pool.submit(work, task): task for task in tasks}
                for future in as_completed(futures):
                    result = future.result()
                    waiting.remove(futures[future])
                    yield result
            except (KeyboardInterrupt, GeneratorExit, UserError):
                # The pool would first do all that waits; what is in hand is done again next time.
                # Its thread is waited for, since it holds the semaphores of the pool's queues.
                for worker in active_children():
                    worker.kill()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    except BrokenProcessPool:
        # A worker was killed (out of memory, a crash in a library). Which task did it is unknown:
        # the rest runs each in a process of its own, so that only the culprit is lost.
        for task in waiting:
            yield _alone(work, task, lost)


def _alone(work: Callable[[T], R], task: T, lost: Lost[T, R]) -> R:
    with _pool(1) as pool:
        future: Future[R] = pool.submit(work, task)
        try:
            return future.result()
        except BrokenProcessPool:
            return lost(task, "the worker process was killed (out of memory?)")


def _pool(workers: int) -> ProcessPoolExecutor:
    # Ctrl-C reaches every process of a terminal; the first process answers for all.
    quiet = (signal.SIGINT, signal.SIG_IGN)
    return ProcessPoolExecutor(workers, get_context("spawn"), signal.signal, quiet)
