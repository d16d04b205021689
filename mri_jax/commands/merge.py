"""Join the shards that a job array wrote into one store: index, quality table, failures.

merge STORE
"""

import argparse
from pathlib import Path

from mri_jax.problems import counted
from mri_jax.volumes import batch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of ``python -m mri_jax merge``."""
    parser.add_argument("store", type=Path, help="the --out of the shards")


def run(args: argparse.Namespace) -> int:
    """Merge; 0 when no scan failed, else 1."""
    summary = batch.merge(args.store)
    failed = f" (see {args.store / 'failed.csv'})" if summary.failed else ""
    print(f"{args.store}: {counted(summary.done, 'scan')}, {summary.failed} failed{failed}")
    return 1 if summary.failed else 0
