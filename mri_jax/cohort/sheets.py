"""The one way in which an archive's tables are read: a `Sheet` a file, a `Reading` for all of them.

A reader says which columns a file has, which codes and ranges its documentation gives them, and
which cells stand for missing. Names of files, row numbers and what is wrong are kept here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pandas as pd

from mri_jax import delimited
from mri_jax.cohort.dates import AUTO, to_dates, to_months
from mri_jax.cohort.exports import whose
from mri_jax.cohort.identity import unspelt
from mri_jax.cohort.joining import refuse_strangers
from mri_jax.cohort.reading import (
    MISSING,
    columns_of,
    disagreeing_rows,
    formula_cells,
    is_missing,
    select,
    to_codes,
    to_numbers,
)
from mri_jax.errors import UserError
from mri_jax.problems import Problem, add_rows, listed, refuse


@dataclass(frozen=True)
class Reading:
    """How the tables of one archive are read.

    Attributes:
      today: No date may be later.
      order: How 3/1/2006 is read where no date of a table tells (`mri_jax.cohort.dates.CHOICES`).
      missing: Words for missing besides `MISSING`, in small letters.
      codes: What the user calls a code of a diagnosis; ``missing`` removes it.
      sites: What the user calls a site; several may become one.
      days: How far a scan may be from the visit that labels it.
      problems: Faults of all tables; `mri_jax.problems.refuse` ends the reading.
    """

    today: date
    order: str = AUTO
    missing: frozenset[str] = frozenset()
    codes: Mapping[str, str] = field(default_factory=dict)
    sites: Mapping[str, str] = field(default_factory=dict)
    days: float = 90.0
    problems: list[Problem] = field(default_factory=list)

    def sheet(self, path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> "Sheet":
        """Reads some columns of a table.

        Args:
          path: The file.
          columns: Names of columns; ``A|B`` is A, or B where there is no A.
          optional: Those that need not be there; they come back empty.

        Raises:
          UserError: The file is no table, lacks columns, or is the table of another archive.
          TableError: Rows cannot be read.
        """
        wanted = {name: tuple(name.split("|")) for name in (*columns, *optional)}
        rows = delimited.read(path, [alias for names in wanted.values() for alias in names])
        found = columns_of(rows, wanted)
        if (other := whose(rows.header)) and not any(found[name] for name in columns):
            raise UserError(f"{path}: is a table of {other.upper()}: cohort {other} reads it")
        frame = select(rows, wanted, optional, self.missing)
        self.problems.extend(formula_cells(frame, str(path)))
        return Sheet(path, frame, self)


@dataclass(frozen=True)
class Sheet:
    """Rows of one table as text, indexed as a spreadsheet counts.

    Attributes:
      path: The file.
      rows: Its columns, by the names that they have in the file.
      how: How it is read.
    """

    path: Path
    rows: pd.DataFrame
    how: Reading

    def filled(self) -> "Sheet":
        """Returns the sheet.

        Raises:
          UserError: It has no rows.
        """
        if self.rows.empty:
            refuse(self.how.problems)
            raise UserError(f"{self.path}: has no rows below the names of its columns")
        return self

    def text(self, name: str) -> pd.Series:
        """Returns a column as text, ``""`` where it is missing."""
        values = self.rows[name]
        return values.where(~is_missing(values), "")

    def numbers(self, name: str, low: float, high: float, absent: Sequence[str] = ()) -> pd.Series:
        """Returns a column as numbers from ``low`` to ``high``, NaN for the codes ``absent``."""
        missing = MISSING | set(absent)
        return to_numbers(self.rows[name], str(self.path), self.how.problems, low, high, missing)

    def codes(
        self,
        name: str,
        codes: Mapping[str, str],
        absent: Sequence[str] = (),
        user: bool = False,
        further: Sequence[str] = (),
    ) -> pd.Series:
        """Returns what the codes of a column mean, ``""`` for missing and for codes ``absent``.

        Args:
          name: The column.
          codes: Codes of the documentation; any other is a problem.
          absent: Codes that stand for missing.
          user: Whether it is a diagnosis, whose codes the user may name (`Reading.codes`).
          further: Classes that they may be besides those of ``codes``.

        Raises:
          UserError: The user names a class that is none of the archive's.
        """
        classes = [*dict.fromkeys([*codes.values(), *further])]
        for code, said in self.how.codes.items() if user else ():
            if said not in (*classes, "missing"):
                raise UserError(
                    f"--code: {code}={said}: {said!r} must be one of {', '.join(classes)}, missing"
                )
        known = {**dict.fromkeys(absent, ""), **codes, **(self.how.codes if user else {})}
        remedy = "; name others: --code CODE=NAME, or CODE=missing" if user else ""
        named = to_codes(self.rows[name], known, str(self.path), self.how.problems, remedy=remedy)
        return named.replace("missing", "")

    def dates(self, name: str) -> pd.Series:
        """Returns a column as days."""
        return to_dates(
            self.rows[name], str(self.path), self.how.today, self.how.problems, self.how.order
        )

    def months(self, name: str, first: int = 1990) -> pd.Series:
        """Returns a column of months from the year ``first`` on as the middle of those months."""
        return to_months(self.rows[name], str(self.path), self.how.today, self.how.problems, first)

    def parts_of_dates(self, year: str, month: str, day: str) -> pd.Series:
        """Returns days that stand in three columns; NaT where a part is missing."""
        parts = pd.DataFrame(
            {
                "year": self.numbers(year, 1990, self.how.today.year, ("8888", "9999")),
                "month": self.numbers(month, 1, 12, ("88", "99")),
                "day": self.numbers(day, 1, 31, ("88", "99")),
            }
        )
        known = parts.notna().all(axis=1)
        dates = pd.to_datetime(parts.where(known), errors="coerce").astype("datetime64[ns]")
        self.wrong(day, known & dates.isna(), "is no day of that month")
        return dates

    def of_subjects(self, name: str, subject_of: Callable[[str], str | None], form: str) -> "Sheet":
        """Returns the sheet with subject ids in a column; what is none is a problem, and left out.

        Args:
          name: The column.
          subject_of: Returns the subject id that a text stands for, or None.
          form: What an id looks like, for the message.
        """
        names = {text: subject_of(text) or "" for text in self.rows[name].unique()}
        ids = self.rows[name].map(names).astype(object)
        self.wrong(name, ids == "", f"is no id of a subject, such as {form}")
        return Sheet(self.path, self.rows.assign(**{name: ids})[ids != ""], self.how)

    def sites(self, name: str, subject: str) -> pd.Series:
        """Returns a column of sites, by the user's names (`Reading.sites`).

        A site in two spellings, a subject (by the column of its ids) at two sites, and a row
        without a site are problems.
        """
        subjects = self.rows[subject]
        sites = self.text(name).replace(dict(self.how.sites))
        self.wrong(name, sites == "", "is missing: every subject belongs to a site")
        first: dict[str, str] = {}
        for site in sites.unique():
            first.setdefault(unspelt(site), site)
        same = sites.map(lambda site: first[unspelt(site)])
        other = sites[sites != same].drop_duplicates()
        for row, site in other.items():
            rule = f"is {same[row]} but for its spelling; if both are one site: --site"
            self._add(row, name, site, f"{rule} {site}={same[row]}")
        at = same.groupby(subjects).transform("first")
        for row in same.index[(same != at) & (same != "")]:
            rule = f"is of {subjects[row]}, who is at {at[row]} in another row: one site a subject"
            self._add(row, name, same[row], rule)
        unknown = sorted(set(self.how.sites) - set(self.text(name)))
        if unknown:
            self._add(
                None, name, unknown[0], f"of --site is no site of it: {listed(sites.unique())}"
            )
        return sites

    def once(self, *key: str, apart: Sequence[str] = ()) -> "Sheet":
        """Returns one row a key; those of one key that disagree, but in ``apart``, are problems."""
        facts = self.rows.drop(columns=list(apart))
        kept = disagreeing_rows(facts, key, str(self.path), self.how.problems).index
        return Sheet(self.path, self.rows.loc[kept], self.how)

    def same_people(self, name: str, ours: pd.Series, our_file: object) -> None:
        """Adds a problem where nobody in a column is among ``ours``, of another table."""
        refuse_strangers(ours, str(our_file), self.rows[name], str(self.path), self.how.problems)

    def wrong(self, name: str, where: pd.Series, rule: str) -> None:
        """Adds a problem for every row of a column where a rule is broken."""
        add_rows(self.how.problems, str(self.path), name, self.rows.loc[where, name], rule)

    def _add(self, row: object, name: str, value: str, rule: str) -> None:
        number = None if row is None else int(str(row))
        self.how.problems.append(Problem(str(self.path), number, name, value, rule))
