"""The options of ``cohort bids`` and ``cohort caps`` become a source of the cohort room."""

import argparse

from mri_jax.cohort import bids
from mri_jax.cohort.assemble import CohortSource, SubjectSelection
from mri_jax.cohort.bids_tables import TableOptions
from mri_jax.cohort.images import ImageChoice
from mri_jax.commands import words


def source_of(args: argparse.Namespace) -> tuple[CohortSource, ImageChoice, SubjectSelection]:
    """Returns what a BIDS or CAPS tree says, and how scans and subjects are chosen."""
    codes = tuple(words.pair(text, "code") for text in args.code)
    options = bids.BidsOptions(
        cohort=args.cohort or args.tree.resolve().name,
        prefer=words.names(args.prefer),
        session=args.session,
        order=words.names(args.session_order),
        family=args.family,
        root=args.root,
        tables=TableOptions(
            codes=codes,
            sex_codes=tuple(words.pair(text, "sex-code") for text in args.sex_code),
            diagnosis_column=args.diagnosis_column,
            coarse_ages=args.coarse_ages,
            missing=words.missing(args),
        ),
    )
    source = bids.read(args.tree, options, args.participants, caps=args.source == "caps")
    # Which labels are one session was settled when the tree was read.
    choice = ImageChoice(days=args.days, level="bids", by_month=False)
    return source, choice, SubjectSelection(exclude_groups=())
