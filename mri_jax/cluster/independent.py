"""Tasks that follow no other, on the workers of a cluster."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from mri_jax.errors import UserError

T = TypeVar("T")
R = TypeVar("R")
Lost = Callable[[T, str], R]
"""What a task gives whose worker was lost, from the task and the reason."""


def on_workers(
    work: Callable[[T], R], tasks: Sequence[T], client: Any, lost: Lost[T, R]
) -> Iterator[R]:
    """Yields what each task gives, as they end.

    Args:
      work: Does a task.
      tasks: The tasks.
      client: A Dask client.
      lost: Says what a task gives that the cluster lost.

    Raises:
      UserError: A task raised it.
    """
    import distributed

    futures = client.map(work, tasks, pure=False)
    waiting = dict(zip([f.key for f in futures], tasks, strict=True))
    for future in distributed.as_completed(futures, loop=client.loop, raise_errors=False):
        task = waiting.pop(future.key)
        if future.status == "finished":
            yield future.result()
        elif isinstance(error := future.exception(), UserError):
            raise error
        else:
            yield lost(task, f"Dask: {error}")
