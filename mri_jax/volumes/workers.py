"""Tasks done side by side: in processes of this machine, or by a Dask cluster.

What a task gives is up to its function; a `UserError` that it raises, such as a full disk, ends
all. A task whose process was killed, or that the cluster lost, gives what ``lost(task, reason)``
says.
"""

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from typing import Any, TypeVar

from mri_jax.errors import UserError

T = TypeVar("T")
R = TypeVar("R")
Lost = Callable[[T, str], R]
# Seconds in which a Dask scheduler must answer.
SCHEDULER_TIMEOUT = 10.0


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


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """Gives a client of the Dask scheduler at an address; None without an address.

    Raises:
      UserError: Dask is not installed, or nothing answers.
    """
    if not address:
        yield None
        return
    try:
        import distributed
    except ImportError:
        raise UserError(
            "scheduler: dask is not installed; pip install 'mri-jax[dask]' or use --workers"
        ) from None
    try:
        client = distributed.Client(address, timeout=SCHEDULER_TIMEOUT)
    except (OSError, ValueError) as error:
        raise UserError(f"scheduler: {address}: no answer ({error})") from None
    with client:
        yield client


def on_dask(
    work: Callable[[T], R], tasks: Sequence[T], client: Any, lost: Lost[T, R]
) -> Iterator[R]:
    """Yields what each task gives, as they end, with a client of `connected`."""
    import distributed

    futures = client.map(work, tasks, pure=False)
    waiting = dict(zip([f.key for f in futures], tasks, strict=True))
    for future in distributed.as_completed(futures, raise_errors=False):
        task = waiting.pop(future.key)
        if future.status == "finished":
            yield future.result()
        elif isinstance(error := future.exception(), UserError):
            raise error
        else:
            yield lost(task, f"Dask: {error}")
