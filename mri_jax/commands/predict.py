"""What the networks of a run say about scans that it has not seen: a table, and a page a scan.

  predict RUN SCAN.nii.gz [SCAN ...] --out DIR      raw T1w files, preprocessed as the run's were
  predict RUN BIDS_DIR --out DIR                    every T1w scan of a BIDS or CAPS tree or table
  predict RUN STORE --out DIR                       every volume of a store; no pages unless --pages
  predict MODEL ... --out DIR                       with a folder from export-model in place of RUN

Every stage of the run is asked (source networks first, tuned ones of repeat 0); --stage chooses.
DIR gets predictions.csv, failed.csv and pages/. A scan that cannot be used is named in failed.csv
and the exit code is 1. This is research software; its output is not a diagnosis.
"""

import argparse
import sys
from pathlib import Path

from mri_jax import backend
from mri_jax.commands.forms import add_forms
from mri_jax.errors import UserError
from mri_jax.models import choice
from mri_jax.prediction import scans
from mri_jax.prediction.model import ARGMAX, POINTS
from mri_jax.prediction.open import open_model
from mri_jax.prediction.predict import FAILED, PAGES, TABLE, Options, predict
from mri_jax.problems import counted, first_lines
from mri_jax.showing import simulated


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of ``python -m mri_jax predict``."""
    parser.add_argument(
        "model", type=Path, metavar="RUN", help="a results folder, or a model folder"
    )
    parser.add_argument("scans", type=Path, nargs="+", metavar="SCAN", help="file, folder or store")
    parser.add_argument("--out", type=Path, required=True, help="folder of the result")
    add_choice(parser)
    parser.add_argument(
        "--point", choices=POINTS, default=ARGMAX, help="operating point; default: argmax"
    )
    parser.add_argument(
        "--pages",
        action=argparse.BooleanOptionalAction,
        help="default: yes, unless a store is given",
    )
    parser.add_argument("--masks", type=Path, help="brain masks, where the run used given ones")
    parser.add_argument(
        "--root", type=Path, help="folder that paths and links stay in (default: of the input)"
    )
    parser.add_argument(
        "--orientation",
        default="",
        metavar="CODE",
        help="where the voxel axes run to (RAS, LAS, ...), of files that state no orientation",
    )
    parser.add_argument(
        "--despite-quality", action="store_true", help="predict scans that fail quality control too"
    )
    parser.add_argument("--batch", type=int, default=8, help="volumes at a time; default: 8")
    parser.add_argument("--threads", type=int, default=2, help="that read volumes; default: 2")


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Arguments that choose networks of a run, and where its files are."""
    parser.add_argument("--network", default="", help="variant; default: the first of the run")
    parser.add_argument(
        "--stage", action="append", default=[], help="source, tuned-high, ...; may be repeated"
    )
    parser.add_argument("--stages", type=Path, metavar="DIR", help="the run's folder of stages")
    parser.add_argument("--store", type=Path, metavar="DIR", help="the run's store, if moved")
    add_forms(parser)


def run(args: argparse.Namespace) -> int:
    """Predict; 0 when every scan was predicted, 1 when some failed."""
    for name in ("batch", "threads"):
        if getattr(args, name) < 1:
            raise UserError(f"{name}: {getattr(args, name)} must be at least 1")
    for source in args.scans:
        if not source.exists():  # told before the model of a run is made, which takes a while
            raise UserError(f"input: {source}: no such file or folder")
    backend.start()
    forms = choice.available(args.forms)
    model = open_model(args.model, args.network, args.stage, args.stages, args.store, forms)
    wanted = scans.find(model, args.scans, args.masks, args.orientation, args.root)
    for note in wanted.notes:
        print(f"note: {note}", file=sys.stderr)
    pages = not wanted.stores if args.pages is None else args.pages
    options = Options(args.point, pages, args.despite_quality, args.batch, args.threads, forms)
    done = predict(model, wanted, args.out, options)
    word = f"{simulated.WORD} training data: " if model.simulated else ""
    print(
        f"{word}{args.out / TABLE}: {counted(done.predicted, 'scan')}"
        + (f", pages in {args.out / PAGES}" if pages and done.predicted else "")
        + f"; {done.unlike} unlike the training data, {done.known} that networks were trained on, "
        f"{done.failed} failed" + (f" (see {args.out / FAILED})" if done.failed else "")
    )
    reasons = ((each.source, each.reason) for each in done.failures)
    lines = [f"{name}: {reason.removeprefix(f'{name}: ')}" for name, reason in reasons]
    for line in first_lines(lines, args.out / FAILED):
        print(line)
    return 1 if done.failed else 0
