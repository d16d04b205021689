"""Where networks look: maps, region tables and checks for the scans of a run.

  explain RUN --cohort ADNI2 --out DIR [--method integrated-gradients --method grad-cam]
  explain RUN --cohort ADNI2 --out DIR --sanity         with the checks that reviewers ask for
  explain RUN --cohort ADNI2 --out DIR --subject ID     single scans

A scan is explained only by networks that had it as a test subject. DIR/summary.html ties maps
(NIfTI in template space), pictures, tables and checks together. docs/explanation.md has the rest.
"""

import argparse
from functools import partial
from pathlib import Path

from mri_jax import files
from mri_jax.commands.forms import add_forms
from mri_jax.errors import UserError
from mri_jax.explanation.methods import BASELINES, METHODS, MethodSettings
from mri_jax.models import choice


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of ``python -m mri_jax explain``."""
    parser.add_argument(
        "run", type=files.expanded, metavar="RUN", help="a results folder of launch.py"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="where to write")
    parser.add_argument("--cohort", required=True, help="whose scans, e.g. ADNI2")
    parser.add_argument(
        "--method", action="append", default=[], choices=[*METHODS, "all"], help="default: all"
    )
    parser.add_argument("--subject", action="append", default=[], help="only this one; repeatable")
    parser.add_argument(
        "--per-class", type=int, default=10, help="subjects of each class; 0: all; default: 10"
    )
    parser.add_argument("--sanity", action="store_true", help="also check the methods")
    parser.add_argument("--network", default="", help="variant, e.g. cnn5-w1; default: the first")
    parser.add_argument("--stage", action="append", default=[], help="default: all of the variant")
    parser.add_argument("--regions", type=Path, help="label image; default: the simulation's")
    parser.add_argument("--region-names", type=Path, help="table of label and name")
    parser.add_argument(
        "--baseline", choices=list(BASELINES), default="background",
        help="of the gradient methods: the constant outside the brain, or the cohort's mean; "
        "default: %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--steps", type=int, default=32, help="of integrated gradients; default: 32"
    )
    parser.add_argument(
        "--block", type=int, default=0, help="of Grad-CAM and attention; default: by size"
    )
    parser.add_argument(
        "--patch", type=float, default=16.0, metavar="MM", help="edge of a patch; default: 16"
    )
    parser.add_argument(
        "--stages", type=files.expanded, help="folder of stages, where the run was moved"
    )
    parser.add_argument(
        "--store", type=files.expanded, help="store of the volumes, where it was moved"
    )
    parser.add_argument(
        "--table",
        type=files.expanded,
        metavar="CSV",
        help="the run's cohort table, for --sanity; default: where the run had it, else its copy",
    )
    parser.add_argument("--seed", type=int, default=0, help="of draws and bootstrap")
    parser.add_argument("--threads", type=int, default=2, help="that read volumes; default: 2")
    add_forms(parser)


def run(args: argparse.Namespace) -> int:
    """Explain and say where the page is."""
    from mri_jax import backend
    from mri_jax.explanation.explain import explain
    from mri_jax.explanation.request import Request
    from mri_jax.runs.trained import open_run
    from mri_jax.study.permuted import permuted_network

    for name, value, least in (
        ("per-class", args.per_class, 0),
        ("threads", args.threads, 1),
        ("block", args.block, 0),
    ):
        if value < least:
            raise UserError(f"{name}: {value} must be at least {least}")

    backend.start()
    forms = choice.available(args.forms)
    everything = not args.method or "all" in args.method
    request = Request(
        cohort=args.cohort,
        variant=args.network,
        stages=tuple(dict.fromkeys(args.stage)),
        subjects=tuple(dict.fromkeys(args.subject)),
        per_class=args.per_class,
        methods=() if everything else tuple(dict.fromkeys(args.method)),
        settings=MethodSettings(args.baseline, args.steps, args.block, args.patch),
        regions=args.regions,
        region_names=args.region_names,
        seed=args.seed,
        threads=args.threads,
        forms=forms,
    )
    opened = open_run(args.run, args.stages, args.store)
    control = partial(permuted_network, table=args.table, forms=forms) if args.sanity else None
    page = explain(opened, request, args.out, control)
    print(page)
    return 0
