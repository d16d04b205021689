"""Quality control of a store: figures, a page to look through, and written exclusions.

  qc STORE                                        writes STORE/quality.csv and STORE/qc.html
  qc STORE --decisions decisions.csv --threshold 'leakage>0.05'    also STORE/exclusions.csv
  qc STORE ... --cohort cohort.csv --cohort-out cohort_qc.csv      also the table without them

The page opens from disk without a network; mark scans there and export decisions.csv. A scan is
left out only by such a decision or a stated threshold, with the reason in exclusions.csv, which
stands, also for a later --cohort-out, until decisions or thresholds are given again. Flags are only
a hint: a figure is compared with scans of the same scanner where that is known (columns
scanner, or manufacturer, model and field_strength, or site) and made 8 or more, else of the cohort.
With --cohort the scanners are read from that table, too, the exclusions are counted by class and
site, and cohort_qc_flow.csv continues the flow of subjects that stands beside the cohort table.
"""

import argparse
from pathlib import Path

import pandas as pd

from mri_jax import files
from mri_jax.cohort.continued import without_excluded
from mri_jax.cohort.table import read_table
from mri_jax.errors import UserError
from mri_jax.problems import counted, first_lines
from mri_jax.volumes import exclusions, outliers
from mri_jax.volumes.qc_page import page, pictures
from mri_jax.volumes.store import KEY, VolumeStore
from mri_jax.volumes.templates import load_template


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of ``python -m mri_jax qc``."""
    parser.add_argument("store", type=Path, metavar="STORE", help="the volume store")
    parser.add_argument("--out", type=Path, help="the page; default STORE/qc.html")
    parser.add_argument("--decisions", type=Path, help="decisions.csv as exported from the page")
    parser.add_argument(
        "--threshold", action="append", default=[], metavar="RULE", help="e.g. 'correlation<0.5'"
    )
    parser.add_argument("--cohort", type=Path, help="cohort table, to count by class and site")
    parser.add_argument("--cohort-out", type=Path, help="where to write it without the excluded")


def run(args: argparse.Namespace) -> int:
    """Write the page and tables; 0."""
    if args.cohort_out is not None and args.cohort is None:
        raise UserError("cohort-out: needs --cohort")
    store = VolumeStore(args.store)
    if not len(store):
        raise UserError(f"{args.store}: holds no scan; failed.csv in it says why")
    decisions = _read_decisions(args.decisions)
    given = bool(args.decisions or args.threshold)
    standing = None if given else exclusions.standing(store.path)
    excluded = exclusions.decided(store.index, decisions, args.threshold)
    excluded = excluded if standing is None else standing
    cohort = None if args.cohort is None else read_table(args.cohort)
    index = outliers.with_scanners(store.index, cohort)
    table = outliers.quality_table(index)
    files.write_csv(args.store / "quality.csv", table)
    out = args.out or args.store / "qc.html"
    settings = store.info.settings
    template = load_template(settings.get("template", "mni152"), settings.get("template_mask", ""))
    files.write_text(out, page(store, pictures(store, template), decisions, index))
    flagged = int((table["flags"] != "").sum())
    print(f"{out}: {counted(len(store), 'scan')}, {flagged} flagged")
    named = table[table["flags"] != ""][[*KEY, "flags"]].itertuples(index=False, name=None)
    lines = [f"{subject} {session}: {flags}" for subject, session, flags in named]
    for line in first_lines(lines, args.store / "quality.csv"):
        print(line)
    print("limits:")
    for group in outliers.groups_of(index).groups:
        print(f"  {group.describe()}")
    if given:
        files.write_csv(args.store / exclusions.NAME, excluded)
        _say("excluded", excluded, cohort)
    elif len(excluded):
        _say("excluded before, which stands", excluded, cohort)
    if args.cohort_out is not None:
        left_out = exclusions.keys(excluded)
        print(without_excluded(args.cohort, args.cohort_out, list(store.index.index), left_out))
    return 0


def _read_decisions(path: Path | None) -> pd.DataFrame | None:
    if path is None:
        return None
    return files.read_csv(path)


def _say(what: str, excluded: pd.DataFrame, cohort: pd.DataFrame | None) -> None:
    print(f"{what}: {counted(len(excluded), 'scan')} ({exclusions.NAME})")
    by = ["cohort", "reason"]
    if cohort is not None:
        site = ["site"] if "site" in cohort else []
        excluded = excluded.merge(cohort[[*KEY, "diagnosis", *site]], how="left", on=KEY)
        by = ["cohort", *site, "diagnosis"]
    for names, count in excluded.fillna("unknown").groupby(by).size().items():
        print(f"  {', '.join(map(str, names))}: {count}")
