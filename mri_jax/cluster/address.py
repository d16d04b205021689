"""What ``--cluster`` names, and a Dask client of it."""

import contextlib
import ipaddress
import json
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mri_jax.errors import UserError

DEVICE = "device"
"""The Dask resource of which a worker states as many as it has devices."""
LOCAL = "local"
_QUEUES = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "lsf": "LSFCluster",
    "oar": "OARCluster",
    "htcondor": "HTCondorCluster",
    "moab": "MoabCluster",
}
_OF_QUEUES = ", ".join(f"{queue}:N" for queue in _QUEUES)
_FORMS = f"ADDRESS (tls://HOST:PORT), FILE of a scheduler, {LOCAL}:N or {_OF_QUEUES}"
_ADDRESS = re.compile(r"(?:(?:tcp|tls|ucx)://)?[^/\s]+:\d+")
_KIND = re.compile(r"[a-z_]+:\d{1,3}")  # of no cluster that is known: schedulers have higher ports
# What Dask must know of certificates, and the environment variables that tell it.
_CERTIFICATES = {
    f"distributed.comm.tls.{key}": f"DASK_DISTRIBUTED__COMM__TLS__{name}"
    for key, name in (
        ("ca-file", "CA_FILE"),
        ("client.cert", "CLIENT__CERT"),
        ("client.key", "CLIENT__KEY"),
    )
}
# Seconds in which a Dask scheduler must answer.
_SCHEDULER_TIMEOUT = 10.0
# How many workers may die in a task before it is given up; a preemptible pool brings some.
DEATHS = 20
_MOST_LOCAL = 256


@dataclass(frozen=True)
class Cluster:
    """Where workers are.

    Attributes:
      kind: ``scheduler``, one of Dask that runs already; ``local``, processes of this machine; or a
        queue, such as ``slurm``, whose jobs become workers.
      address: Of the scheduler.
      workers: How many processes or jobs.
    """

    kind: str
    address: str = ""
    workers: int = 0

    @classmethod
    def parse(cls, text: str, anyone: bool = False) -> "Cluster":
        """Returns what a command line asks for.

        Args:
          text: ``tcp://HOST:PORT``, ``tls://HOST:PORT``, the path of the file that ``dask scheduler
            --scheduler-file`` writes, ``local:N``, ``slurm:N``.
          anyone: Whether a scheduler may be used that anyone on the network can reach.

        Raises:
          UserError: It is none of these, or a scheduler that anyone could use.
        """
        kind, _, number = text.partition(":")
        if kind == LOCAL or kind in _QUEUES:
            if not re.fullmatch(r"[1-9]\d{0,5}", number):
                raise UserError(f"--cluster: {text!r}: {kind}:N needs a number of workers from 1")
            if kind == LOCAL and int(number) > _MOST_LOCAL:
                raise UserError(f"--cluster: {text!r}: at most {_MOST_LOCAL} on one machine")
            return cls(kind, workers=int(number))
        address = text
        if Path(text).is_file():
            address = _address_in(Path(text))
        elif not _ADDRESS.fullmatch(text) or _KIND.fullmatch(text):
            raise UserError(f"--cluster: {text!r} is not an existing file, nor one of {_FORMS}")
        address = address if "://" in address else f"tcp://{address}"
        if not (anyone or address.startswith("tls://") or _loopback(address)):
            raise UserError(
                f"--cluster: {address}: anyone who reaches a scheduler without TLS can run code as "
                "you; use tls:// (docs/scaling.md), or --open_scheduler in a network that you trust"
            )
        return cls("scheduler", address)


def _address_in(path: Path) -> str:
    try:
        address = json.loads(path.read_text(encoding="utf-8"))["address"]
        if isinstance(address, str):
            return address
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UserError(f"--cluster: {path}: is not a file that `dask scheduler` wrote")


def _loopback(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


@contextlib.contextmanager
def connected(cluster: Cluster, say: Callable[[str], None]) -> Iterator[Any]:
    """Gives a Dask client of a cluster, whose processes are ended afterwards if they are ours.

    Args:
      cluster: Where.
      say: Where the address of the dashboard goes.

    Raises:
      UserError: A package is not installed, or nothing answers.
    """
    try:
        import dask
        import distributed
    except ImportError:
        raise UserError("--cluster: dask is not installed (pip install -e '.[dask]')") from None
    # Dask's own log repeats what is said here.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(_CONFIG))
        if cluster.kind == "scheduler":
            where: Any = cluster.address
            if where.startswith("tls://"):
                _require_certificates(where)
        elif cluster.kind == LOCAL:
            where = stack.enter_context(_local(cluster.workers))
        else:
            where = stack.enter_context(_queued(cluster))
        try:
            client = distributed.Client(where, timeout=_SCHEDULER_TIMEOUT, set_as_default=False)
        except (OSError, ValueError) as error:
            raise UserError(
                f"--cluster: {cluster.address}: no scheduler answers ({error})"
            ) from None
        stack.enter_context(client)
        if client.dashboard_link and _drawn():
            say(f"dashboard of the cluster: {client.dashboard_link}")
        yield client


def _require_certificates(address: str) -> None:
    """Refuses to look for a scheduler with TLS without a certificate, or without its file."""
    from dask import config

    for key, variable in _CERTIFICATES.items():
        path = config.get(key, None)
        if path is None:
            raise UserError(
                f"--cluster: {address}: needs a certificate, and {variable} is not set "
                "(docs/scaling.md)"
            )
        if not Path(path).is_file():
            raise UserError(f"--cluster: {address}: {variable}: {path}: no such file")


_CONFIG = {
    "distributed.scheduler.allowed-failures": DEATHS,
    # Tasks of hours are not moved once they run, and none waits on a worker for long.
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.admin.log-length": 100,
}


def _drawn() -> bool:
    """Returns whether Dask can draw its dashboard here."""
    from importlib.util import find_spec

    return find_spec("bokeh") is not None


# Ctrl-C reaches all processes of a terminal: the launcher tells workers to save and end, and what
# Dask warns of when it ends them is no news.
_UNDISTURBED = (
    "import logging, signal\n"
    "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    "logging.getLogger('distributed.worker').setLevel(logging.ERROR)\n"
)


def _local(workers: int) -> Any:
    import distributed

    return distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        resources={DEVICE: 1},
        preload=[_UNDISTURBED],
        # A study knows what it needs; Dask would pause or end workers that hold their volumes.
        memory_limit=0,
    )


def _queued(cluster: Cluster) -> Any:
    from distributed.security import Security

    try:
        import dask_jobqueue
    except ImportError:
        raise UserError(
            f"--cluster: {cluster.kind}:N needs dask-jobqueue, which is not installed "
            "(pip install dask-jobqueue)"
        ) from None
    try:
        made = getattr(dask_jobqueue, _QUEUES[cluster.kind])(
            processes=1,
            protocol="tls",
            security=Security.temporary(),
            worker_extra_args=["--resources", f"{DEVICE}=1", "--nthreads", "1"],
        )
    except ValueError as error:
        raise UserError(
            f"--cluster: {cluster.kind}: {' '.join(str(error).split())} (dask-jobqueue reads "
            "cores, memory and queue from ~/.config/dask/jobqueue.yaml)"
        ) from None
    made.scale(jobs=cluster.workers)
    return made
