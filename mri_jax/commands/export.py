"""Write one volume of a store as NIfTI, aligned to the template in any viewer.

export STORE SUBJECT out.nii.gz [--session ses-M006] [--mask]
"""

import argparse
from pathlib import Path

from mri_jax.volumes.export import export
from mri_jax.volumes.store import VolumeStore


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of ``python -m mri_jax export``."""
    parser.add_argument("store", type=Path, metavar="STORE", help="the volume store")
    parser.add_argument("subject", help="subject_id as in index.csv")
    parser.add_argument("out", type=Path, help="file to write, .nii or .nii.gz")
    parser.add_argument(
        "--session", default="", help="session_id, for a subject with several scans"
    )
    parser.add_argument("--mask", action="store_true", help="the brain mask instead of the volume")


def run(args: argparse.Namespace) -> int:
    """Export; 0."""
    store = VolumeStore(args.store)
    kind = "mask" if args.mask else "volume"
    print(export(store, args.subject, args.session, args.out, kind))
    return 0
