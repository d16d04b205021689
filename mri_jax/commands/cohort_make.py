"""Makes a cohort table of an archive's tables, a BIDS or a CAPS tree, as the options say."""

import argparse
from dataclasses import fields
from datetime import date

from mri_jax.cohort import adni, aibl, dicom
from mri_jax.cohort.archives import ARCHIVES
from mri_jax.cohort.assemble import CohortSource, SubjectSelection, assemble
from mri_jax.cohort.dates import AUTO
from mri_jax.cohort.images import ImageChoice
from mri_jax.cohort.labels import LabelRules
from mri_jax.cohort.made import write_made
from mri_jax.cohort.sheets import Reading
from mri_jax.cohort.written import beside, check_name
from mri_jax.commands import cohort_bids, words
from mri_jax.delimited import further_words
from mri_jax.errors import UserError
from mri_jax.problems import listed


def make(args: argparse.Namespace) -> int:
    """Makes a cohort table."""
    check_name(args.out)
    if "days" in args and not args.days >= 0:
        raise UserError(f"--days: {args.days:g} must be a number from 0")
    tree = args.source in ("bids", "caps")
    source, choice, selection = cohort_bids.source_of(args) if tree else _source(args)
    rules = _rules(args)
    made = assemble(source, rules, choice, selection)
    if "dcm2niix" in args:
        folder = args.nifti or args.out.parent / "nifti"
        made = dicom.converted(made, folder, args.dcm2niix, beside(args.out, "convert.sh"))
    for line in write_made(args.out, made, source.images, rules):
        print(line)
    return 0


def _rules(args: argparse.Namespace) -> LabelRules:
    """Returns the rules of labels; an archive without a history of diagnoses has no options."""
    asked = {f.name: getattr(args, f.name) for f in fields(LabelRules) if f.name in args}
    return LabelRules(**(asked or {"mci": "baseline"}))


def _source(args: argparse.Namespace) -> tuple[CohortSource, ImageChoice, SubjectSelection]:
    codes = tuple(words.pair(text, "code") for text in args.code)
    today = date.today()
    missing = further_words(args.missing, [code for code, _ in codes])
    order = args.dates if "dates" in args else AUTO
    selection, wanted = SubjectSelection(exclude_groups=()), {}
    if args.source == "adni":
        how = adni.AdniOptions(args.diagnosis, args.adnigo, args.visits, codes, order, missing)
        source = adni.read(args.tables, args.images, how, today)
        left_out = () if args.exclude_groups == "none" else words.names(args.exclude_groups)
        selection = SubjectSelection(left_out, args.continuing)
        wanted = dict(adni.FIELD)
    else:
        read = aibl.read if args.source == "aibl" else ARCHIVES[args.source].read
        sites = dict(words.pair(text, "site") for text in args.site) if "site" in args else {}
        days = args.days if "days" in args else ImageChoice.days
        reading = Reading(today, order, missing, dict(codes), sites, days)
        source = read(args.tables, args.images, reading)
    return source, _choice(args, source, wanted), selection


def _choice(
    args: argparse.Namespace, source: CohortSource, wanted: dict[str, float]
) -> ImageChoice:
    """Returns how a scan is chosen, by those options that the command has."""
    asked = {
        name: getattr(args, name)
        for name in ("days", "acceleration", "repeats", "quality")
        if name in args
    }
    known = {*source.visits["cohort"], *wanted}
    for text in args.field if "field" in args else []:
        cohort, tesla = words.pair(text, "field")
        if cohort not in known:
            raise UserError(f"--field: {cohort!r} is no cohort of it: {listed(sorted(known))}")
        wanted.pop(cohort, None)
        if tesla != "any":
            wanted[cohort] = words.tesla(text, tesla)
    tree = source.images["level"].eq("bids").all()
    level = (args.level if "level" in args else None) or ("bids" if tree else "raw")
    return ImageChoice(level=level, field=wanted, **asked)
