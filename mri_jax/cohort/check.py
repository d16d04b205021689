"""Everything that is wrong with one or several cohort tables, at once."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from mri_jax import files
from mri_jax.cohort import same_people
from mri_jax.cohort.identity import person, unspelt
from mri_jax.cohort.same_people import Apart
from mri_jax.cohort.table import image_problems, read_table, validate
from mri_jax.delimited import MISSING
from mri_jax.errors import UserError
from mri_jax.problems import Problem, TableError, refuse

_CHUNK = 1 << 16


def read_all(
    paths: Sequence[Path],
    codes: Mapping[str, str] = MappingProxyType({}),
    missing: frozenset[str] = MISSING,
) -> list[pd.DataFrame]:
    """Read tables as `read_table` does; the faults of all of them are reported together.

    Raises:
      UserError: A file cannot be read at all, or is given twice.
      TableError: Rows are wrong.
    """
    real = [os.path.realpath(path) for path in paths]
    if again := [path for i, path in enumerate(paths) if real[i] in real[:i]]:
        raise UserError(f"{again[0]}: is given twice")
    tables, problems = [], []
    for path in paths:
        try:
            tables.append(read_table(path, codes, missing))
        except TableError as error:
            problems += list(error.problems)
    refuse(problems)
    return tables


def refuse_together(paths: Sequence[Path], tables: Sequence[pd.DataFrame]) -> None:
    """Checks what the rows of several tables say together, as `table.validate` does of one.

    Args:
      paths: The files.
      tables: Their rows, each valid by itself.

    Raises:
      TableError: A scan is in two of them, or two ids or sexes are those of one person; each fault
        names the file and the row that it stands in.
    """
    places = [
        (str(path), row)
        for path, table in zip(paths, tables, strict=True)
        for row in range(2, len(table) + 2)
    ]
    try:
        validate(pd.concat(tables, ignore_index=True), "")
    except TableError as error:
        refuse(_placed(found, places) for found in error.problems)


def _placed(found: Problem, places: Sequence[tuple[str, int]]) -> Problem:
    """Returns a fault of tables that were put together with its own file and row."""
    if found.row is None:
        return found
    file, row = places[found.row - 2]
    return replace(found, file=file, row=row, rule=f"{found.rule} (in all tables together)")


def faults(paths: Sequence[Path], order: Sequence[str] = ()) -> list[Problem]:
    """Returns what is wrong with tables whose rows are right, alone and against each other.

    Args:
      paths: Tables.
      order: Cohorts, earliest first, among which persons may be shared, because a study removes
        the persons of an earlier one from the later ones.

    Returns:
      Images that are absent or leave the folder, one site in two spellings, persons in two cohorts
      (unless ``order`` has both), ids that are probably one person and are not told apart, scans
      that occur twice, and the same image bytes under two subjects.

    Raises:
      UserError: As `read_all`.
    """
    tables = read_all(paths)
    problems: list[Problem] = []
    for path, table in zip(paths, tables, strict=True):
        problems += image_problems(table, path)
    rows = pd.concat(
        [
            table.assign(file=str(path), row=range(2, len(table) + 2), folder=str(path.parent))
            for path, table in zip(paths, tables, strict=True)
        ],
        ignore_index=True,
    )
    apart = same_people.read(paths)
    problems += _respelt(rows)
    problems += _in_two_cohorts(rows, order, apart) + _probable(rows, apart)
    return problems + _twice(rows) + _same_bytes(rows)


def _respelt(rows: pd.DataFrame) -> list[Problem]:
    """Cohorts that differ by their spelling alone; the first row of each but the first."""
    first = rows.drop_duplicates("cohort")
    same = first.groupby(first["cohort"].map(unspelt))["cohort"].transform("first")
    return [
        Problem(row["file"], row["row"], "cohort", row["cohort"],
                f"is {named} but for its spelling; give one site one name")
        for row, named in zip(first.to_dict("records"), same, strict=True)
        if row["cohort"] != named
    ]  # fmt: skip


def _in_two_cohorts(rows: pd.DataFrame, order: Sequence[str], apart: Apart) -> list[Problem]:
    """Persons in two cohorts; the cohorts of ``order`` count as one."""
    group = rows["cohort"].mask(rows["cohort"].isin(list(order)), "")
    rows = rows.assign(person=same_people.people(rows, apart).map(person), group=group)
    first = rows.drop_duplicates("person").set_index("person")
    other = rows[rows["group"] != rows["person"].map(first["group"])]
    problems = []
    for row in other.drop_duplicates(["person", "cohort"]).to_dict("records"):
        cohort, earlier = row["cohort"], first.at[row["person"], "cohort"]
        rule = (
            f"is in cohort {cohort} and in {earlier}; name both in --order to keep the earlier "
            "one, or say that they number their subjects separately: a line "
            f"cohorts,{earlier},{cohort},REASON in {same_people.NAME} "
            f"(columns {','.join(same_people.COLUMNS)})"
        )
        problems.append(Problem(row["file"], row["row"], "subject_id", row["subject_id"], rule))
    return problems


def _probable(rows: pd.DataFrame, apart: Apart) -> list[Problem]:
    place = rows.drop_duplicates(["subject_id", "cohort"]).set_index(["subject_id", "cohort"])
    problems = []
    for one, other in same_people.find(rows, apart):
        file, row = place.loc[(other.subject_id, other.cohort), ["file", "row"]]
        rule = f"may be the person of {one}; {same_people.way_out([(one, other)], file)}"
        problems.append(Problem(file, int(row), "subject_id", other.subject_id, rule))
    return problems


def _twice(rows: pd.DataFrame) -> list[Problem]:
    again = rows[rows.duplicated(["subject_id", "session_id"])]
    first = rows.drop_duplicates(["subject_id", "session_id"])
    where = first.set_index(["subject_id", "session_id"])["file"]
    return [
        Problem(row["file"], row["row"], "session_id", f"{row['subject_id']} {row['session_id']}",
                f"is also in {where[row['subject_id'], row['session_id']]}")
        for row in again.to_dict("records")
    ]  # fmt: skip


def _same_bytes(rows: pd.DataFrame) -> list[Problem]:
    """Images of two subjects with equal bytes; only files of equal size and sample are hashed."""
    images = rows[rows["image"] != ""]
    paths = pd.Series(
        [os.path.join(f, i) for f, i in zip(images["folder"], images["image"], strict=True)],
        index=images.index,
        dtype=object,
    )
    paths = paths[[os.path.isfile(path) for path in paths]]
    for describe in (os.path.getsize, _sample, files.sha256_of_file):
        said = paths.map(describe)
        paths = paths[said.duplicated(keep=False)]
    said = said[paths.index]
    problems = []
    for _, index in said.groupby(said).groups.items():
        alike = images.loc[index].drop_duplicates("subject_id")
        first = alike.iloc[0]
        for row in alike.iloc[1:].to_dict("records"):
            rule = f"has the same bytes as the image of {first['subject_id']} in {first['file']}"
            problems.append(Problem(row["file"], row["row"], "image", row["image"], rule))
    return problems


def _sample(path: str) -> str:
    """Returns a hash of the first, middle and last 64 KiB."""
    digest = hashlib.sha256()
    with files.opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        for place in (0, max(0, size // 2 - _CHUNK // 2), max(0, size - _CHUNK)):
            file.seek(place)
            digest.update(file.read(_CHUNK))
    return digest.hexdigest()
