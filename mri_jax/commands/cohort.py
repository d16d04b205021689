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
from pathlib import Path

from mri_jax.cohort import continued, written
from mri_jax.cohort.continued import Outcomes
from mri_jax.cohort.dates import AUTO, CHOICES
from mri_jax.cohort.images import LEVELS, ImageChoice
from mri_jax.cohort.labels import LabelRules
from mri_jax.cohort.table import read_table
from mri_jax.cohort.written import beside, check_name
from mri_jax.commands import cohort_check, cohort_make, words
from mri_jax.delimited import MISSING
from mri_jax.volumes import exclusions
from mri_jax.volumes.store import VolumeStore

OUT_HELP = "the cohort table to write"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the subcommands and their options."""
    commands = parser.add_subparsers(dest="source", required=True, metavar="SOURCE")
    for name, text in (("adni", "from ADNI's tables"), ("aibl", "from AIBL's tables")):
        command = _sub(commands, name, text)
        command.add_argument("--tables", type=Path, required=True, help="folder of study data")
        command.add_argument(
            "--images", type=Path, required=True, help="download tree, its search CSV, or BIDS tree"
        )
        command.add_argument(
            "--dcm2niix",
            default="dcm2niix",
            help="program that converts DICOM; default: %(default)s",
        )
        command.add_argument("--nifti", type=Path, help="where it writes (default: nifti/ by OUT)")
        command.add_argument(
            "--dates", choices=CHOICES, default=AUTO,
            help="how 3/1/2006 is read in a table in which no date tells the order; default: auto",
        )  # fmt: skip
        further = "further words for missing (--missing=+-9,unknown); a --code counts before them"
        command.add_argument("--missing", default="", metavar="+WORDS", help=further)
        _label_options(command, "progression")
        _image_options(command)
        if name == "adni":
            _adni_options(command)
    for name, text in (("bids", "from a BIDS tree"), ("caps", "from a CAPS tree (t1-linear)")):
        command = _sub(commands, name, text)
        command.add_argument("tree", type=Path, metavar="DIR", help="the tree")
        _bids_options(command)
        _label_options(command, "baseline")
    command = _sub(commands, "join", "put cohort tables together")
    command.add_argument("inputs", type=Path, nargs="+", metavar="TABLE", help="cohort tables")
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
    command.add_argument("table", type=Path, metavar="TABLE", help="a cohort table")
    text = "the flow of subjects to the store, and to the n analysed by a run"
    command = commands.add_parser("flow", help=text, description=text)
    command.add_argument("table", type=Path, metavar="TABLE", help="a cohort table")
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
    told = "; default: %(default)s"
    keep = ("keep", "exclude")
    group.add_argument(
        "--mci", choices=("progression", "baseline"), default=mci,
        help=f"MCI becomes pMCI or sMCI by the later visits, or stays one class{told}",
    )  # fmt: skip
    group.add_argument(
        "--horizon", type=float, default=LabelRules.horizon, metavar="MONTHS",
        help=f"within which progression is asked for{told}",
    )  # fmt: skip
    group.add_argument(
        "--window", type=float, default=LabelRules.window, metavar="MONTHS",
        help=f"around the horizon in which a visit still counts as at it{told}",
    )  # fmt: skip
    group.add_argument(
        "--clock", choices=("visit", "date"), default=LabelRules.clock,
        help=f"months of the visit codes, or between the dates of examination{told}",
    )  # fmt: skip
    group.add_argument(
        "--reversion", choices=keep, default=LabelRules.reversion,
        help=f"subjects with MCI who return to CN by the horizon{told}",
    )  # fmt: skip
    group.add_argument(
        "--unstable", choices=keep, default=LabelRules.unstable,
        help=f"subjects whose AD, or CN, does not last to the horizon{told}",
    )  # fmt: skip
    group.add_argument(
        "--code", action="append", default=[], metavar="CODE=NAME",
        help="a further diagnosis code: CN, MCI, AD, missing, or with bids and caps any name",
    )  # fmt: skip


def _image_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("choice of the scan")
    told = "; default: %(default)s"
    group.add_argument(
        "--days", type=float, default=ImageChoice.days,
        help=f"largest distance of a scan from baseline{told}",
    )  # fmt: skip
    group.add_argument("--level", choices=LEVELS, help="the one processing level (default raw)")
    group.add_argument(
        "--acceleration",
        choices=("prefer-unaccelerated", "require-unaccelerated", "any"),
        default=ImageChoice.acceleration,
        help=f"accelerated scans{told}",
    )
    group.add_argument(
        "--repeats", choices=("prefer-first", "require-first", "any"), default=ImageChoice.repeats,
        help=f"of several scans of a visit{told}",
    )  # fmt: skip
    group.add_argument(
        "--field", action="append", default=[], metavar="COHORT=TESLA|any",
        help="field strength wanted (default: ADNI1=1.5, later phases 3, AIBL any)",
    )  # fmt: skip
    group.add_argument(
        "--quality", choices=("exclude-unusable", "ignore"), default=ImageChoice.quality,
        help=f"scans that the archive rated unusable, or failed{told}",
    )  # fmt: skip


def _adni_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("ADNI")
    told = "; default: %(default)s"
    group.add_argument(
        "--diagnosis", choices=("visit", "screening"), default="visit",
        help=f"DX of the baseline visit, or DX_bl of screening{told}",
    )  # fmt: skip
    group.add_argument(
        "--adnigo", choices=("own", "ADNI2", "exclude"), default="own",
        help=f"who enrolled in ADNI-GO: a cohort of their own, in ADNI-2, or left out{told}",
    )  # fmt: skip
    group.add_argument(
        "--exclude-groups", default="SMC", metavar="NAMES",
        help=f"enrolment groups left out (SMC,EMCI), or none{told}",
    )  # fmt: skip
    group.add_argument(
        "--continuing", choices=("exclude", "keep"), default="exclude",
        help=f"persons who enrolled in an earlier phase{told}",
    )  # fmt: skip
    group.add_argument(
        "--visits", choices=("auto", "adnimerge", "dxsum"), default="auto",
        help=f"the table of visits; auto: ADNIMERGE where it is there, else DXSUM{told}",
    )  # fmt: skip


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
        help="largest distance from the session to its scan, where labels are days (ses-d0129); "
        "default: %(default)s",
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
    command.add_argument("inputs", type=Path, nargs="+", metavar="TABLE", help="cohort tables")
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
        return _printed(written.describe(args.table))
    if args.source == "flow":
        return _continue_flow(args)
    if args.source == "join":
        codes = dict(words.pair(text, "code") for text in args.code)
        order, missing = words.names(args.order), words.missing(args)
        return _printed(*written.join(written.Parts(args.inputs, codes, missing), args.out, order))
    if args.source == "check":
        return cohort_check.check_tables(args)
    return cohort_make.make(args)


def _printed(*lines: str) -> int:
    for line in lines:
        print(line)
    return 0


def _continue_flow(args: argparse.Namespace) -> int:
    stored = list(VolumeStore(args.store).index.index)
    decided = exclusions.standing(args.store)
    excluded = None if decided is None else exclusions.keys(decided)
    became = Outcomes(stored, continued.scans_in(args.store / "failed.csv"), excluded)
    target = args.out or beside(args.table, "flow_to_end.csv")
    check_name(target)
    used = None if args.run is None else read_table(args.run / "cohort.csv")
    flow = continued.to_end(args.table, became, used)
    return _printed(written.write_flow(target, flow))
