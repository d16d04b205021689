"""From raw T1w scans to a store of volumes.

  preprocess --input DIR_OR_TABLE --out STORE [--grid dev] [--brain template] [--workers N]

The input is a BIDS tree, a CAPS tree (Clinica's t1-linear), a FreeSurfer SUBJECTS_DIR, a folder of
NIfTI, MGH or Analyze files, or a table (CSV, TSV) with the columns subject_id and image, such as
the cohort table. Scans that fail are named with the reason in STORE/failed.csv and the exit code
is 1; running the same command again continues where it stopped.
docs/preprocessing.md describes every step.
"""

import argparse
import re
import sys
from pathlib import Path

from mri_jax import files
from mri_jax.commands.cluster_options import add_cluster_arguments, client_of
from mri_jax.errors import UserError
from mri_jax.problems import counted
from mri_jax.volumes import batch, brain, inputs
from mri_jax.volumes.grids import GRIDS
from mri_jax.volumes.pipeline import REGISTRATIONS, PreprocessSettings
from mri_jax.volumes.templates import PACKAGED

# So many reasons of failures are printed; all of them stand in failed.csv.
REASONS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of ``python -m mri_jax preprocess``."""
    parser.add_argument("--input", type=Path, required=True, help="folder or table of scans")
    parser.add_argument("--out", type=Path, required=True, help="folder of the store")
    parser.add_argument("--grid", choices=list(GRIDS), default="dev", help="default: dev (2 mm)")
    parser.add_argument(
        "--brain", choices=list(brain.METHODS), default="template",
        help="how the brain is found: template, by registration to the template's; deepbet, by "
        "that network (installed apart); mask, as --masks says; none, the scans have no skull. "
        "Default: template",
    )  # fmt: skip
    parser.add_argument("--masks", type=Path, help="folder of brain masks, for --brain mask")
    parser.add_argument("--no-n4", action="store_true", help="skip inhomogeneity correction")
    parser.add_argument(
        "--registration",
        choices=list(REGISTRATIONS),
        default="affine",
        help="affine gives every brain the template's size, rigid keeps its own; default: affine",
    )
    parser.add_argument("--dtype", choices=["float16", "float32"], default="float16",
                        help="of the stored volumes; default: float16")  # fmt: skip
    parser.add_argument(
        "--template",
        type=files.expanded,
        default=PACKAGED,
        help="mni152, or the path of a T1w head; default: mni152",
    )
    parser.add_argument(
        "--template-mask", type=files.expanded, default="", help="brain mask of that head"
    )
    parser.add_argument("--cohort", default="", help="name of the cohort, where the input has none")
    parser.add_argument(
        "--root", type=Path, help="folder that paths and links stay in (default: of the input)"
    )
    parser.add_argument(
        "--orientation",
        default="",
        metavar="CODE",
        help="where the voxel axes run to (RAS, LAS, ...), of files that state no orientation",
    )
    parser.add_argument("--workers", type=int, help="processes on this machine; default: 1")
    parser.add_argument(
        "--shard", default="", metavar="K/N", help="do every N-th scan from the K-th"
    )
    add_cluster_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Preprocess; 0 when every scan is in the store, 1 when some failed."""
    settings = PreprocessSettings(
        grid=args.grid,
        brain=args.brain,
        n4=not args.no_n4,
        dtype=args.dtype,
        template=args.template,
        template_mask=args.template_mask,
        registration=args.registration,
    )
    if (args.masks is not None) and args.brain != "mask":
        raise UserError(f"masks: used only with --brain mask, not {args.brain}")
    found = inputs.find(args.input, args.cohort, args.root, args.masks, args.orientation)
    people = counted(len({entry.subject_id for entry in found.entries}), "subject")
    scans = counted(len(found.entries), "scan")
    print(
        f"{args.input}: {scans} of {people}, read as a {found.form}",
        file=sys.stderr,
    )
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    shard = _shard(args.shard)
    if args.brain == "template":
        print(f"note: {brain.ADVICE}", file=sys.stderr)
    with client_of(args) as client:
        workers = 1 if args.workers is None else args.workers
        summary = batch.run(found.entries, settings, args.out, workers, shard, client)
    print(
        f"{args.out}: {summary.done} done, {summary.skipped} done before, {summary.failed} failed"
        + (f" (see {args.out / 'failed.csv'})" if summary.failed and not shard else "")
    )
    for reason, count in summary.reasons[:REASONS]:
        print(f"  {count} failed: {reason}")
    if len(summary.reasons) > REASONS:
        print(f"  ... and {counted(len(summary.reasons) - REASONS, 'other reason')}")
    for note, count in summary.readings:
        print(f"  {count} done; column reading: {note}")
    if summary.surplus:
        first = " ".join(summary.surplus[0])
        there = "in the store from earlier runs and"
        rule = counted(
            len(summary.surplus), f"further scan lies {there} is", f"further scans lie {there} are"
        )
        print(f"  {rule} not in this input, e.g. {first}")
    return 1 if summary.failed else 0


def _shard(text: str) -> tuple[int, int] | None:
    if not text:
        return None
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"shard: {text!r} is not K/N with K from 1 to N")
    return int(match[1]), int(match[2])
