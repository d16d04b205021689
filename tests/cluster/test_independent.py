import os
import signal

import distributed
import pytest

from mri_jax.cluster.independent import on_workers
from mri_jax.errors import UserError

pytestmark = pytest.mark.filterwarnings("default")


def squared(number: int) -> int:
    if number == 7:
        raise ValueError("seven")
    return number**2


def test_every_task_gives_something_also_one_that_is_lost(client):
    found = on_workers(squared, [1, 7, 3], client, lambda task, reason: (task, reason))
    assert sorted(found, key=str) == [(7, "Dask: seven"), 1, 9]


def refuses(number: int) -> int:
    raise UserError(f"scan {number} cannot be read")


def test_what_the_user_can_mend_ends_all(client):
    with pytest.raises(UserError, match=r"^scan 4 cannot be read"):
        list(on_workers(refuses, [4], client, lambda task, reason: 0))


def interrupted(_: int) -> str:
    os.kill(os.getpid(), signal.SIGINT)
    return str(distributed.get_worker().address)


def test_ctrl_c_in_a_terminal_leaves_workers_alone(client):
    address = client.submit(interrupted, 0, pure=False).result(timeout=30)
    assert address in client.nthreads()
