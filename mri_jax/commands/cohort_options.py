"""The options of the subcommands of ``cohort``."""

import argparse
from collections.abc import Collection
from pathlib import Path
from typing import Any

from mri_jax.cohort.dates import AUTO, CHOICES
from mri_jax.cohort.images import LEVELS, ImageChoice
from mri_jax.cohort.labels import LabelRules
from mri_jax.delimited import MISSING

SCAN_OPTIONS = ("days", "level", "acceleration", "repeats", "field", "quality")


def archive_options(command: argparse.ArgumentParser, images: str, loni: bool) -> None:
    """Declares where an archive's tables and images are, and how cells are read.

    Args:
      command: The subcommand.
      images: What the images may be.
      loni: Whether the images are those of the LONI archive: DICOM, with dated tables.
    """
    command.add_argument("--tables", type=Path, required=True, help="folder of study data")
    command.add_argument("--images", type=Path, required=True, help=images)
    further = "further words for missing (--missing=+-9,unknown); a --code counts before them"
    command.add_argument("--missing", default="", metavar="+WORDS", help=further)
    if loni:
        command.add_argument(
            "--dcm2niix", default="dcm2niix",
            help="program that converts DICOM; default: %(default)s",
        )  # fmt: skip
        command.add_argument("--nifti", type=Path, help="where it writes (default: nifti/ by OUT)")
        command.add_argument(
            "--dates", choices=CHOICES, default=AUTO,
            help="how 3/1/2006 is read in a table in which no date tells the order; default: auto",
        )  # fmt: skip


def code_option(command: argparse._ActionsContainer) -> None:
    """Declares ``--code``."""
    command.add_argument(
        "--code", action="append", default=[], metavar="CODE=NAME",
        help="what a further code of a diagnosis means: a class of the archive's (its page in "
        "docs/ lists them), or missing; for bids and caps any name",
    )  # fmt: skip


def site_option(command: argparse._ActionsContainer) -> None:
    """Declares ``--site``."""
    command.add_argument(
        "--site", action="append", default=[], metavar="SITE=NAME",
        help="another name for a site; several of one name become one cohort (UM_1=UM UM_2=UM)",
    )  # fmt: skip


def label_options(
    command: argparse.ArgumentParser,
    mci: str,
    window: float = LabelRules.window,
    codes_of_visits: bool = True,
) -> None:
    """Declares how a history of diagnoses becomes a label.

    Args:
      command: The subcommand.
      mci: Default of ``--mci``.
      window: Default of ``--window``.
      codes_of_visits: Whether visits have codes that tell their month, or dates alone.
    """
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
        "--window", type=float, default=window, metavar="MONTHS",
        help=f"around the horizon in which a visit still counts as at it{told}",
    )  # fmt: skip
    if codes_of_visits:
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
    code_option(group)


def image_options(
    command: argparse.ArgumentParser, wanted: Collection[str], days: float = ImageChoice.days
) -> None:
    """Declares those options of the choice of a scan that an archive's images can answer.

    Args:
      command: The subcommand.
      wanted: Their names; of all, `SCAN_OPTIONS`.
      days: Default of ``--days``.
    """
    told = "; default: %(default)s"
    every: dict[str, dict[str, Any]] = {
        "days": {
            "type": float, "default": days,
            "help": f"largest distance of a scan from the visit that labels it{told}",
        },
        "level": {"choices": LEVELS, "help": "the one processing level (default raw)"},
        "acceleration": {
            "choices": ("prefer-unaccelerated", "require-unaccelerated", "any"),
            "default": ImageChoice.acceleration, "help": f"accelerated scans{told}",
        },
        "repeats": {
            "choices": ("prefer-first", "require-first", "any"), "default": ImageChoice.repeats,
            "help": f"of several scans of a visit{told}",
        },
        "field": {
            "action": "append", "default": [], "metavar": "COHORT=TESLA|any",
            "help": "field strength wanted (default: any; ADNI1=1.5, later phases 3)",
        },
        "quality": {
            "choices": ("exclude-unusable", "ignore"), "default": ImageChoice.quality,
            "help": f"scans that the archive rated unusable, or failed{told}",
        },
    }  # fmt: skip
    group = command.add_argument_group("choice of the scan") if wanted else command
    for name in wanted:
        group.add_argument(f"--{name}", **every[name])


def adni_options(command: argparse.ArgumentParser) -> None:
    """Declares the options of ADNI alone."""
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


def bids_options(command: argparse.ArgumentParser) -> None:
    """Declares the options of trees."""
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
    missing_option(group)


def missing_option(group: argparse._ActionsContainer) -> None:
    """Declares ``--missing``."""
    words = ", ".join(sorted(word for word in MISSING if word)).replace("%", "%%")
    group.add_argument(
        "--missing", default="", metavar="WORDS",
        help="what counts as missing, in place of the list, or with a + in front besides it "
        f"(--missing=+-9,unknown); a --code counts before it. The list: the empty cell, {words}",
    )  # fmt: skip


def check_options(command: argparse.ArgumentParser) -> None:
    """Declares the options of ``cohort check``."""
    command.add_argument("inputs", type=Path, nargs="+", metavar="TABLE", help="cohort tables")
    command.add_argument("--order", default="", help="cohorts, earliest first, as in join")
    command.add_argument(
        "--root", type=Path, help="folder that image paths stay in, as preprocess has it"
    )
    command.add_argument("--store", type=Path, help="volume store: lists near-identical volumes")
    command.add_argument("--duplicates", type=Path, help="decisions (default: duplicates.csv)")
    command.add_argument("--threshold", type=float, help="correlation (default: calibrated)")
    command.add_argument("--out", type=Path, help="write the tables as one, decisions applied")
