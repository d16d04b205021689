"""Makes a cohort table of ADNI, AIBL, a BIDS or a CAPS tree, as the options say."""

import argparse
from dataclasses import fields
from datetime import date

from mri_jax import trees
from mri_jax.cohort import adni, aibl, dicom
from mri_jax.cohort.assemble import CohortSource, SubjectSelection, assemble
from mri_jax.cohort.images import ImageChoice
from mri_jax.cohort.labels import LabelRules
from mri_jax.cohort.made import write_made
from mri_jax.cohort.written import beside, check_name
from mri_jax.commands import cohort_bids, words
from mri_jax.delimited import further_words


def make(args: argparse.Namespace) -> int:
    """Makes a cohort table."""
    check_name(args.out)
    rules = LabelRules(**{f.name: getattr(args, f.name) for f in fields(LabelRules)})
    tree = args.source in ("bids", "caps")
    source, choice, selection = cohort_bids.source_of(args) if tree else _source(args)
    made = assemble(source, rules, choice, selection)
    if not tree:
        folder = args.nifti or args.out.parent / "nifti"
        made = dicom.converted(made, folder, args.dcm2niix, beside(args.out, "convert.sh"))
    for line in write_made(args.out, made, source.images, rules):
        print(line)
    return 0


def _source(args: argparse.Namespace) -> tuple[CohortSource, ImageChoice, SubjectSelection]:
    codes = tuple(words.pair(text, "code") for text in args.code)
    today = date.today()
    missing = further_words(args.missing, [code for code, _ in codes])
    if args.source == "adni":
        how = adni.AdniOptions(args.diagnosis, args.adnigo, args.visits, codes, args.dates, missing)
        source = adni.read(args.tables, args.images, how, today)
        left_out = () if args.exclude_groups == "none" else words.names(args.exclude_groups)
        selection = SubjectSelection(left_out, args.continuing)
        wanted = dict(adni.FIELD)
    else:
        source = aibl.read(args.tables, args.images, today, codes, args.dates, missing)
        selection, wanted = SubjectSelection(exclude_groups=()), {}
    for text in args.field:
        cohort, tesla = words.pair(text, "field")
        wanted.pop(cohort, None)
        if tesla != "any":
            wanted[cohort] = words.tesla(text, tesla)
    choice = ImageChoice(
        days=args.days,
        level=args.level or ("bids" if trees.is_tree(args.images) else "raw"),
        acceleration=args.acceleration,
        repeats=args.repeats,
        field=wanted,
        quality=args.quality,
    )
    return source, choice, selection
