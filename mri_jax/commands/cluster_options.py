"""Options of commands whose work Dask workers may do."""

import argparse
import contextlib
import sys
from typing import Any

from mri_jax.cluster.address import Cluster, connected
from mri_jax.errors import UserError


def add_cluster_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``--cluster`` and ``--open-scheduler``, as ``launch.py`` has them."""
    parser.add_argument(
        "--cluster", metavar="WHERE",
        help="Dask workers that see the same files: address or file of a scheduler, local:N, "
        "slurm:N; in place of --workers",
    )  # fmt: skip
    parser.add_argument(
        "--open-scheduler",
        "--open_scheduler",  # as launch.py, and so every message, calls it
        action="store_true",
        help="use a scheduler without TLS, with whose help anyone can run code",
    )


def client_of(args: argparse.Namespace) -> contextlib.AbstractContextManager[Any]:
    """Gives a Dask client of the cluster that is asked for; None where none is.

    Raises:
      UserError: One option makes no sense with another, or there is no such cluster.
    """
    if args.cluster is None:
        if args.open_scheduler:
            raise UserError("--open-scheduler: says which --cluster may be used; leave it out")
        return contextlib.nullcontext()
    if args.workers is not None:
        raise UserError("--workers: are processes of this machine; leave it out with --cluster")
    where = Cluster.parse(args.cluster, args.open_scheduler)
    return connected(where, lambda line: print(line, file=sys.stderr))
