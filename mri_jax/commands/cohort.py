"""Make, check and describe the cohort table: who is studied, with which scan and which label.

  cohort adni   --tables DIR --images DIR|TABLE --out cohort.csv
  cohort aibl   --tables DIR --images DIR|TABLE --out cohort.csv
  cohort abide  --tables DIR --images DIR --out cohort.csv (and ppmi, oasis3, nacc)
  cohort bids   DIR --out cohort.csv
  cohort caps   DIR --participants FILE --out cohort.csv
  cohort join   a.csv b.csv --out cohort.csv
  cohort check  cohort.csv [other.csv ...] [--store STORE]
  cohort describe cohort.csv
  cohort flow   cohort.csv --store STORE [--run RUN]

Beside cohort.csv stand excluded.csv (everyone left out, with the reason), flow.csv and flow.png
(the flow of subjects); beside NAME.csv they are NAME_excluded.csv and so on. docs/cohorts.md has
the columns, docs/adni.md, docs/abide.md and so on the way
from a download, docs/labels.md the labels.
"""

import argparse
from pathlib import Path

from mri_jax.cohort import continued, written
from mri_jax.cohort.archives import ARCHIVES
from mri_jax.cohort.continued import Outcomes
from mri_jax.cohort.table import read_table
from mri_jax.cohort.written import beside, check_name
from mri_jax.commands import cohort_check, cohort_make, words
from mri_jax.commands import cohort_options as options
from mri_jax.volumes import exclusions
from mri_jax.volumes.store import VolumeStore

OUT_HELP = "the cohort table to write"
LONI_IMAGES = "download tree, its search CSV, or BIDS tree"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the subcommands and their options."""
    commands = parser.add_subparsers(dest="source", required=True, metavar="SOURCE")
    for name, text in (("adni", "from ADNI's tables"), ("aibl", "from AIBL's tables")):
        command = _sub(commands, name, text)
        options.archive_options(command, LONI_IMAGES, loni=True)
        options.label_options(command, "progression")
        options.image_options(command, options.SCAN_OPTIONS)
        if name == "adni":
            options.adni_options(command)
    for name, archive in ARCHIVES.items():
        command = _sub(commands, name, f"from {archive.title}'s tables")
        told = LONI_IMAGES if archive.loni else "folder of scans"
        options.archive_options(command, told, archive.loni)
        if archive.sites:
            options.site_option(command)
        if archive.history:
            options.label_options(command, "progression", archive.window, codes_of_visits=False)
        else:
            options.code_option(command)
        options.image_options(command, archive.scans, archive.days)
    for name, text in (("bids", "from a BIDS tree"), ("caps", "from a CAPS tree (t1-linear)")):
        command = _sub(commands, name, text)
        command.add_argument("tree", type=Path, metavar="DIR", help="the tree")
        options.bids_options(command)
        options.label_options(command, "baseline")
    command = _sub(commands, "join", "put cohort tables together")
    command.add_argument("inputs", type=Path, nargs="+", metavar="TABLE", help="cohort tables")
    command.add_argument(
        "--code",
        action="append",
        default=[],
        metavar="NAME=NEW",
        help="give a class another name, such as one that counts as missing",
    )
    options.missing_option(command)
    command.add_argument("--order", default="", help="cohorts, earliest first: a person of an "
                         "earlier one is removed from the later ones (ADNI1,ADNI2)")  # fmt: skip
    options.check_options(commands.add_parser("check", help="everything that is wrong with tables"))
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
