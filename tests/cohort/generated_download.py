"""ADNI- and AIBL-like downloads of made-up subjects, with the truth for each.

No real record is here: ids, dates and values are drawn at random; only the names of columns, files
and folders are those of the archives. Every subject follows a story whose outcome is written down
beside it, not computed by the code under test.

    PYTHONPATH=.:tests python -m cohort.generated_download OUT --subjects 200 [--heads cohort.csv]

writes OUT/adni and OUT/aibl, each with ``tables/``, ``images/`` and ``truth.csv``. ``--heads``
takes the images from a cohort table (for instance of simulated raw heads), by cohort and label;
subjects for whom none is left get a small file of noise, which preprocessing refuses.
"""

import argparse
from pathlib import Path

import pandas as pd

from cohort.generated_adni import write_adni
from cohort.generated_aibl import write_aibl
from cohort.generated_archive import Head


def heads_of(table: Path) -> Head:
    """Images of a cohort table by cohort and label, each used once; None when there is no more."""
    frame = pd.read_csv(table, dtype=str)
    waiting = {
        key: [table.parent / image for image in rows["image"]]
        for key, rows in frame.groupby(["cohort", "diagnosis"])
    }

    def head(cohort: str, label: str) -> Path | None:
        return waiting[cohort, label].pop(0) if waiting.get((cohort, label)) else None

    return head


def main() -> None:
    """Write both downloads."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--subjects", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--heads", type=Path)
    args = parser.parse_args()
    head = heads_of(args.heads) if args.heads else (lambda *_: None)
    for name, write in (("adni", write_adni), ("aibl", write_aibl)):
        truth = write(args.out / name, args.subjects, args.seed, head)
        print(f"{args.out / name}: {len(truth)} subjects in cohorts")


if __name__ == "__main__":
    main()
