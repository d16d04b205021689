"""A cohort table that was just made: written, and told."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from mri_jax.cohort import demographics
from mri_jax.cohort import flow as flows
from mri_jax.cohort.assemble import Assembled
from mri_jax.cohort.labels import LabelRules
from mri_jax.cohort.written import beside, next_command, write
from mri_jax.errors import UserError
from mri_jax.problems import counted


def write_made(
    out: Path, made: Assembled, images: pd.DataFrame, rules: LabelRules
) -> Iterator[str]:
    """Writes a table with the files beside it, and tells of it.

    Args:
      out: The table to write.
      made: The table, who was left out, and the flow of subjects.
      images: All images, an images table (`mri_jax.cohort.images`).
      rules: Rules of the labels.

    Yields:
      Lines for the terminal.

    Raises:
      UserError: No subject is kept; the files are written all the same.
    """
    named = write(out, made.table, made.excluded, made.flow)
    yield from (f"note: {note}" for note in (*made.notes, *_of_one_class(made.table)))
    yield f"labels: {rules.in_words} (docs/labels.md)\n\n{flows.as_markdown(made.flow)}\n"
    if counts := demographics.beside_paper(made.table):
        told = "Subjects here and in the paper, whose exact selection is not published"
        yield f"{told}:\n\n{counts}\n"
    yield _images_used(images, made.table)
    yield f"{counted(len(made.table), 'subject')}: {out}\n{named}"
    if made.table.empty:
        why = (made.excluded["reason"] + " (" + made.excluded["detail"] + ")").value_counts()
        first = "; ".join(f"{n} x {text}" for text, n in why.head(3).items())
        file = beside(out, "excluded.csv")
        raise UserError(f"no subject is kept: {first or 'none was found'}; {file} lists everybody")
    yield f"next: {next_command(out)}"


def _of_one_class(table: pd.DataFrame) -> Iterator[str]:
    """Yields a note for each of several cohorts that has one class, where the table has more."""
    if table["cohort"].nunique() > 1 and table["diagnosis"].nunique() > 1:
        for cohort, classes in table.groupby("cohort")["diagnosis"]:
            if classes.nunique() == 1:
                alone = f"{cohort} has {classes.iloc[0]} alone"
                yield f"{alone}: it can be trained on, not tested"


def _images_used(images: pd.DataFrame, table: pd.DataFrame) -> str:
    """Returns what became of the images whose files were found."""
    there = images[images["path"] != ""]
    kept = there["subject_id"].isin(table["subject_id"])
    others = kept.sum() - len(table)
    return (
        f"{counted(len(there), 'image')} with a file: {len(table)} chosen, "
        f"{counted(others, 'other')} of the same subjects, {(~kept).sum()} of subjects left out"
    )
