"""Make, check and describe the cohort table: who is studied, with which scan and which label.

  cohort adni   --tables DIR --images DIR|TABLE --out cohort.csv
  cohort aibl   --tables DIR --images DIR|TABLE --out cohort.csv
  cohort bids   DIR --out cohort.csv
  cohort caps   DIR --participants FILE --out cohort.csv
  cohort join   a.csv b.csv --out cohort.csv
  cohort check  cohort.csv [other.csv ...] [--store STORE]
  cohort describe cohort.csv
  cohort flow   cohort.csv --store STORE [--run RUN]

Beside cohort.csv stand excluded.csv (everyone left out, with the reason), flow.csv and flow.png
(the flow of subjects); beside NAME.csv they are NAME_excluded.csv and so on. docs/cohorts.md has
the columns, docs/adni.md and docs/aibl.md the way from a download, docs/labels.md the labels.
"""

import argparse
import shlex
import shutil
import subprocess
from dataclasses import fields
from datetime import date
from pathlib import Path

import pandas as pd

from mri_jax import files, trees
from mri_jax.cohort import adni, aibl, bids, demographics
from mri_jax.cohort import flow as flows
from mri_jax.cohort.assemble import (
    EXCLUDED_COLUMNS,
    REASONS,
    Assembled,
    CohortSource,
    SubjectSelection,
    assemble,
)
from mri_jax.cohort.bids_tables import TableOptions
from mri_jax.cohort.dates import AUTO, CHOICES
from mri_jax.cohort.images import LEVELS, NO_SCAN, ImageChoice
from mri_jax.cohort.labels import LabelRules
from mri_jax.commands import cohort_tables
from mri_jax.commands.cohort_tables import beside, check_name
from mri_jax.delimited import MISSING, further_words, words_for_missing
from mri_jax.errors import UserError
from mri_jax.progress import track

OUT_HELP = "the cohort table to write"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommands and their options."""
    commands = parser.add_subparsers(dest="source", required=True, metavar="SOURCE")
    for name, text in (("adni", "from ADNI's tables"), ("aibl", "from AIBL's tables")):
        command = _sub(commands, name, text)
        command.add_argument("--tables", type=Path, required=True, help="folder of study data")
        command.add_argument(
            "--images", type=Path, required=True, help="download tree, its search CSV, or BIDS tree"
        )
        command.add_argument("--dcm2niix", default="dcm2niix", help="program that converts DICOM")
        command.add_argument("--nifti", type=Path, help="where it writes (default: nifti/ by OUT)")
        command.add_argument(
            "--dates", choices=CHOICES, default=AUTO,
            help="how 3/1/2006 is read in a table in which no date tells the order",
        )  # fmt: skip
        further = "further words for missing (--missing=+-9,unknown); a --code counts before them"
        command.add_argument("--missing", default="", metavar="+WORDS", help=further)
        _label_options(command, "progression")
        _image_options(command)
        if name == "adni":
            _adni_options(command)
    for name, text in (("bids", "from a BIDS tree"), ("caps", "from a CAPS tree (t1-linear)")):
        command = _sub(commands, name, text)
        command.add_argument("tree", type=Path)
        _bids_options(command)
        _label_options(command, "baseline")
    command = _sub(commands, "join", "put cohort tables together")
    command.add_argument("inputs", type=Path, nargs="+")
    command.add_argument(
        "--code",
        action="append",
        default=[],
        metavar="NAME=NEW",
        help="give a class another name, such as one that counts as missing",
    )
    _missing_option(command)
    command.add_argument("--order", default="", help="cohorts, earliest first: a person of an "
                         "earlier one is removed from the later ones (ADNI1,ADNI2)")  # fmt: skip
    _check_options(commands.add_parser("check", help="everything that is wrong with tables"))
    command = commands.add_parser("describe", help="demographics by cohort and class")
    command.add_argument("table", type=Path)
    text = "the flow of subjects to the store, and to the n analysed by a run"
    command = commands.add_parser("flow", help=text, description=text)
    command.add_argument("table", type=Path)
    command.add_argument("--store", type=Path, required=True, help="volume store made of it")
    command.add_argument("--run", type=Path, help="results folder of a study")
    command.add_argument("--out", type=Path, help="default: beside the table, flow_to_end.csv")


def _sub(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, text: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text)
    command.add_argument("--out", type=Path, required=True, help=OUT_HELP)
    return command


def _label_options(command: argparse.ArgumentParser, mci: str) -> None:
    group = command.add_argument_group("labels (docs/labels.md)")
    group.add_argument("--mci", choices=("progression", "baseline"), default=mci)
    group.add_argument("--horizon", type=float, default=LabelRules.horizon, help="months")
    group.add_argument("--window", type=float, default=LabelRules.window, help="months")
    group.add_argument("--clock", choices=("visit", "date"), default=LabelRules.clock)
    group.add_argument("--reversion", choices=("keep", "exclude"), default=LabelRules.reversion)
    group.add_argument("--unstable", choices=("keep", "exclude"), default=LabelRules.unstable)
    group.add_argument(
        "--code", action="append", default=[], metavar="CODE=NAME",
        help="a further diagnosis code: CN, MCI, AD, missing, or with bids and caps any name",
    )  # fmt: skip


def _image_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("choice of the scan")
    group.add_argument("--days", type=float, default=ImageChoice.days, help="from baseline")
    group.add_argument("--level", choices=LEVELS, help="the one processing level (default raw)")
    group.add_argument(
        "--acceleration",
        choices=("prefer-unaccelerated", "require-unaccelerated", "any"),
        default=ImageChoice.acceleration,
    )
    group.add_argument(
        "--repeats", choices=("prefer-first", "require-first", "any"), default=ImageChoice.repeats
    )
    group.add_argument(
        "--field", action="append", default=[], metavar="COHORT=TESLA|any",
        help="field strength wanted (default: ADNI1=1.5, later phases 3, AIBL any)",
    )  # fmt: skip
    group.add_argument(
        "--quality", choices=("exclude-unusable", "ignore"), default=ImageChoice.quality
    )


def _adni_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("ADNI")
    group.add_argument("--diagnosis", choices=("visit", "screening"), default="visit",
                       help="DX of the baseline visit, or DX_bl of screening")  # fmt: skip
    group.add_argument("--adnigo", choices=("own", "ADNI2", "exclude"), default="own")
    group.add_argument("--exclude-groups", default="SMC", metavar="NAMES",
                       help="enrolment groups left out, or none (SMC,EMCI)")  # fmt: skip
    group.add_argument("--continuing", choices=("exclude", "keep"), default="exclude",
                       help="persons who enrolled in an earlier phase")  # fmt: skip
    group.add_argument("--visits", choices=("auto", "adnimerge", "dxsum"), default="auto")


def _bids_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--cohort", help="name of the cohort (default: the folder's)")
    command.add_argument("--participants", type=Path, help="participants table, if not the tree's")
    command.add_argument(
        "--prefer", default="", help="parts of file names, most wanted first (acq-MPRAGE,run-1)"
    )
    command.add_argument("--session", default="", help="session to label (default: the earliest)")
    command.add_argument(
        "--session-order", default="", metavar="NAMES",
        help="sessions, the earliest first, where nothing tells their time (pre,post,fu)",
    )  # fmt: skip
    command.add_argument(
        "--days", type=float, default=ImageChoice.days,
        help="from the session to its scan, where labels are days (ses-d0129)",
    )  # fmt: skip
    command.add_argument("--family", default="", help="put before every subject id")
    command.add_argument("--root", type=Path, help="folder that links may lead to (default: TREE)")
    group = command.add_argument_group("cells of the tables")
    group.add_argument(
        "--diagnosis-column", default="", metavar="NAME",
        help="column of the classes, e.g. sex (default: the first that has classes)",
    )  # fmt: skip
    group.add_argument(
        "--sex-code", action="append", default=[], metavar="CODE=F|M|O|missing",
        help="1=M and 2=F in ABIDE",
    )  # fmt: skip
    group.add_argument("--coarse-ages", action="store_true", help="take 89+ as 89, and 18-38 as 28")
    _missing_option(group)


def _missing_option(group: argparse._ActionsContainer) -> None:
    words = ", ".join(sorted(word for word in MISSING if word)).replace("%", "%%")
    group.add_argument(
        "--missing", default="", metavar="WORDS",
        help="what counts as missing, in place of the list, or with a + in front besides it "
        f"(--missing=+-9,unknown); a --code counts before it. The list: the empty cell, {words}",
    )  # fmt: skip


def _check_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("inputs", type=Path, nargs="+")
    command.add_argument("--order", default="", help="cohorts, earliest first, as in join")
    command.add_argument(
        "--root", type=Path, help="folder that image paths stay in, as preprocess has it"
    )
    command.add_argument("--store", type=Path, help="volume store: lists near-identical volumes")
    command.add_argument("--duplicates", type=Path, help="decisions (default: duplicates.csv)")
    command.add_argument("--threshold", type=float, help="correlation (default: calibrated)")
    command.add_argument("--out", type=Path, help="write the tables as one, decisions applied")


def run(args: argparse.Namespace) -> int:
    """Run one subcommand."""
    if args.source == "describe":
        return cohort_tables.describe(args.table)
    if args.source == "flow":
        return cohort_tables.continue_flow(args.table, args.store, args.run, args.out)
    if args.source == "join":
        codes = dict(_pair(text, "code") for text in args.code)
        return cohort_tables.join(args.inputs, args.out, _names(args.order), codes, _missing(args))
    if args.source == "check":
        return cohort_tables.check_tables(
            args.inputs, _names(args.order), args.root, args.store, args.duplicates,
            args.threshold, args.out,
        )  # fmt: skip
    return _make(args)


def _make(args: argparse.Namespace) -> int:
    check_name(args.out)
    rules = LabelRules(**{f.name: getattr(args, f.name) for f in fields(LabelRules)})
    source, rules, choice, selection = _source(args, rules)
    made = assemble(source, rules, choice, selection)
    if args.source in ("adni", "aibl"):
        made = _converted(made, args)
    written = cohort_tables.write(args.out, made.table, made.excluded, made.flow)
    for note in made.notes:
        print(f"note: {note}")
    print(f"labels: {rules}\n\n{flows.as_markdown(made.flow)}\n")
    if counts := demographics.beside_paper(made.table):
        print(
            f"Subjects here and in the paper, whose exact selection is not published:\n\n{counts}\n"
        )
    print(_images_used(source.images, made.table))
    print(f"{len(made.table)} subjects: {args.out}\n{written}")
    if made.table.empty:
        why = (made.excluded["reason"] + " (" + made.excluded["detail"] + ")").value_counts()
        first = "; ".join(f"{n} x {text}" for text, n in why.head(3).items())
        file = beside(args.out, "excluded.csv")
        raise UserError(f"no subject is kept: {first or 'none was found'}; {file} has them all")
    print(f"next: {cohort_tables.next_command(args.out)}")
    return 0


def _images_used(images: pd.DataFrame, table: pd.DataFrame) -> str:
    """What became of the images whose files were found."""
    there = images[images["path"] != ""]
    kept = there["subject_id"].isin(table["subject_id"])
    others = kept.sum() - len(table)
    return (
        f"{len(there)} images with a file: {len(table)} chosen, {others} others of the same "
        f"subjects, {(~kept).sum()} of subjects left out"
    )


def _source(
    args: argparse.Namespace, rules: LabelRules
) -> tuple[CohortSource, LabelRules, ImageChoice, SubjectSelection]:
    codes = tuple(_pair(text, "code") for text in args.code)
    if args.source in ("bids", "caps"):
        options = bids.BidsOptions(
            cohort=args.cohort or args.tree.resolve().name,
            prefer=_names(args.prefer),
            session=args.session,
            order=_names(args.session_order),
            family=args.family,
            root=args.root,
            tables=TableOptions(
                codes=codes,
                sex_codes=tuple(_pair(text, "sex-code") for text in args.sex_code),
                diagnosis_column=args.diagnosis_column,
                coarse_ages=args.coarse_ages,
                missing=_missing(args),
            ),
        )
        source = bids.read(args.tree, options, args.participants, caps=args.source == "caps")
        # Which labels are one session was settled when the tree was read.
        choice = ImageChoice(days=args.days, level="bids", by_month=False)
        return source, rules, choice, SubjectSelection(exclude_groups=())
    today = date.today()
    missing = further_words(args.missing, [code for code, _ in codes])
    if args.source == "adni":
        how = adni.AdniOptions(args.diagnosis, args.adnigo, args.visits, codes, args.dates, missing)
        source = adni.read(args.tables, args.images, how, today)
        left_out = () if args.exclude_groups == "none" else _names(args.exclude_groups)
        selection = SubjectSelection(left_out, args.continuing)
        wanted = dict(adni.FIELD)
    else:
        source = aibl.read(args.tables, args.images, today, codes, args.dates, missing)
        selection, wanted = SubjectSelection(exclude_groups=()), {}
    for text in args.field:
        cohort, tesla = _pair(text, "field")
        wanted.pop(cohort, None)
        if tesla != "any":
            wanted[cohort] = _tesla(text, tesla)
    choice = ImageChoice(
        days=args.days,
        level=args.level or ("bids" if trees.is_tree(args.images) else "raw"),
        acceleration=args.acceleration,
        repeats=args.repeats,
        field=wanted,
        quality=args.quality,
    )
    return source, rules, choice, selection


def _tesla(text: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise UserError(f"--field: {text!r} must be COHORT=TESLA, e.g. ADNI1=1.5") from None


def _missing(args: argparse.Namespace) -> frozenset[str]:
    return words_for_missing(args.missing) if args.missing else MISSING


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise UserError(f"--{option}: {text!r} must have the form NAME=VALUE")
    return name, value


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _converted(made: Assembled, args: argparse.Namespace) -> Assembled:
    """Convert the chosen DICOM series, or say how; a series that fails excludes its subject."""
    table = made.table
    dicom = [i for i, image in enumerate(table["image"]) if Path(image).is_dir()]
    if not dicom:
        return made
    folder = args.nifti or args.out.parent / "nifti"
    target = {i: folder / f"I{table.at[i, 'image_id']}.nii.gz" for i in dicom}
    commands = {
        i: [args.dcm2niix, "-z", "y", "-b", "n", "-o", str(folder), "-f",
            f"I{table.at[i, 'image_id']}", table.at[i, "image"]]
        for i in dicom
    }  # fmt: skip
    waiting = [i for i in dicom if not target[i].exists()]
    failed: dict[int, str] = {}
    notes = list(made.notes)
    if waiting and shutil.which(args.dcm2niix) is None:
        lines = [shlex.join(["mkdir", "-p", str(folder)])]
        lines += [shlex.join(commands[i]) for i in waiting]
        script = beside(args.out, "convert.sh")
        files.write_text(script, "\n".join(["#!/bin/sh", *lines, ""]))
        notes.append(f"{len(waiting)} scans are DICOM and {args.dcm2niix} is not installed; "
                     f"run sh {script}, the first line being: {lines[1]}")  # fmt: skip
    elif waiting:
        folder.mkdir(parents=True, exist_ok=True)
        for i in track(waiting, len(waiting), "scan", "dcm2niix"):
            done = subprocess.run(commands[i], capture_output=True, check=False, encoding="utf-8")
            if done.returncode or not target[i].exists():
                said = (done.stderr or done.stdout).strip().splitlines()
                failed[i] = f"dcm2niix failed: {said[-1] if said else 'no image written'}"
    images = [str(target.get(i, image)) for i, image in enumerate(table["image"])]
    lost = table.loc[list(failed)].assign(reason=NO_SCAN, detail=list(failed.values()))
    kept = table.assign(image=images).drop(index=list(failed)).reset_index(drop=True)
    lost = lost.assign(group=lost["group"].where(lost["group"] != "", lost["diagnosis"]))
    excluded = pd.concat([made.excluded, lost[EXCLUDED_COLUMNS]], ignore_index=True)
    return Assembled(kept, excluded, flows.start(kept, excluded, REASONS), tuple(notes))
