"""Cohort tables on disk, with the files beside them: written, joined, described."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from mri_jax import files
from mri_jax.cohort import check, demographics, same_people
from mri_jax.cohort import flow as flows
from mri_jax.cohort.assemble import EXCLUDED_COLUMNS
from mri_jax.cohort.table import placed, read_table, write_table
from mri_jax.cohort.task import remove_earlier
from mri_jax.delimited import MISSING
from mri_jax.errors import UserError
from mri_jax.problems import counted


def beside(table: Path, name: str) -> Path:
    """Returns the path of a file beside a table; see `mri_jax.cohort.flow.beside`."""
    return Path(flows.beside(table, name))


def check_name(out: Path) -> None:
    """Refuses an output that is not called ``.csv``."""
    if out.suffix != ".csv":
        raise UserError(f"--out: {out} must end in .csv")


def write(out: Path, table: pd.DataFrame, excluded: pd.DataFrame, flow: pd.DataFrame) -> str:
    """Writes a cohort table, its exclusions, its flow and a picture of it; returns their names."""
    write_table(out, placed(table, out.parent))
    left_out, counts, picture = (
        beside(out, name) for name in ("excluded.csv", "flow.csv", "flow.png")
    )
    files.write_csv(left_out, excluded)
    flows.write(counts, flow)
    _draw(picture, flow)
    return f"written: {out}, {left_out} ({len(excluded)} left out), {counts} and {picture}"


def write_flow(out: Path, flow: pd.DataFrame) -> str:
    """Writes a flow and a picture of it; returns it for the terminal, with the files' names."""
    flows.write(out, flow)
    _draw(out.with_suffix(".png"), flow)
    return f"{flows.as_markdown(flow)}\n\nwritten: {out} and {out.with_suffix('.png')}"


def _draw(path: Path, flow: pd.DataFrame) -> None:
    """Draws a flow."""
    from mri_jax.cohort import flow_picture  # what is refused need not wait for matplotlib

    flow_picture.write(path, flow)


def describe(path: Path) -> str:
    """Writes the demographics of a table; returns them for the terminal, with the files' names."""
    described = demographics.describe(read_table(path))
    text = demographics.as_markdown(described)
    files.write_markdown(beside(path, "demographics.md"), text)
    files.write_csv(beside(path, "demographics.csv"), described.groups)
    files.write_csv(beside(path, "demographics_tests.csv"), described.tests)
    files.write_text(beside(path, "demographics.tex"), demographics.as_latex(described))
    return f"{text}\nwritten: {beside(path, 'demographics')}.md, .csv, .tex and _tests.csv"


def next_command(out: Path) -> str:
    """Returns the command that preprocesses a table; images outside its folder need their root."""
    root = root_of(out, read_table(out))
    command = ["python", "-m", "mri_jax", "preprocess", "--input", str(out)]
    command += ["--root", str(root)] if root else []
    return shlex.join([*command, "--out", "STORE"])


@dataclass(frozen=True)
class Parts:
    """Cohort tables that are put together.

    Attributes:
      paths: Their files.
      codes: Other names for classes.
      missing: Words that count as missing.
    """

    paths: Sequence[Path]
    codes: Mapping[str, str] = field(default_factory=dict)
    missing: frozenset[str] = MISSING

    def table(self) -> pd.DataFrame:
        """Returns all rows, image paths as seen from here."""
        tables = check.read_all(self.paths, self.codes, self.missing)
        check.refuse_together(self.paths, tables)
        for path, table in zip(self.paths, tables, strict=True):
            images = [str(path.parent / image) if image else "" for image in table["image"]]
            table["image"] = images
        return pd.concat(tables, ignore_index=True)

    def write_less(
        self,
        out: Path,
        before: pd.DataFrame,
        after: pd.DataFrame,
        stage: str = "",
        reasons: Mapping[str, str] = MappingProxyType({}),
    ) -> str:
        """Writes what is left of the tables, their flows extended by the stage that reduced them.

        Args:
          out: The table to write.
          before: All rows.
          after: Those that are left.
          stage: Name of the stage; empty: there was none.
          reasons: Why a subject was left out.

        Returns:
          Lines for the terminal.
        """
        flow = flows.join([flow_of(path, self.codes, self.missing) for path in self.paths])
        beside_them = [beside(path, "excluded.csv") for path in self.paths]
        excluded = [files.read_csv(path) for path in beside_them if path.exists()]
        if stage:
            lost = flows.lost_between(before, after, pd.Series(dict(reasons), dtype=object))
            flow = flows.extend(flow, stage, after, lost)
            rows = [(s, c, stage, why, d) for (c, d, s), why in lost.items()]
            names = ["subject_id", "cohort", "reason", "detail", "group"]
            excluded.append(pd.DataFrame(rows, columns=names))
        everyone = pd.concat([pd.DataFrame(columns=EXCLUDED_COLUMNS), *excluded], ignore_index=True)
        named = write(out, after, everyone[EXCLUDED_COLUMNS].fillna(""), flow)
        return f"{flows.as_markdown(flow)}\n\n{counted(len(after), 'row')}: {out}\n{named}"


def join(parts: Parts, out: Path, order: tuple[str, ...]) -> list[str]:
    """Puts tables together, persons of an earlier cohort removed from the later ones.

    Args:
      parts: The tables.
      out: The table to write.
      order: Cohorts, earliest first; empty: everybody stays.

    Returns:
      Lines for the terminal.
    """
    check_name(out)
    table, lines = parts.table(), []
    apart = same_people.read(parts.paths)
    if pairs := same_people.find(table, apart):
        way_out = same_people.way_out(pairs, out)
        lines.append(f"note: a study will refuse this: {same_people.described(pairs)}; {way_out}")
    if order:
        kept, removed = remove_earlier(table, order, apart)
        reason = pd.Series("", index=removed["subject_id"].unique()) + flows.EARLIER
        lines.append(parts.write_less(out, table, kept, "joined cohorts", reason.to_dict()))
    else:
        lines.append(parts.write_less(out, table, table))
    if (table["image"] != "").any():
        lines.append(f"next: {next_command(out)}")
    return lines


def root_of(path: Path, table: pd.DataFrame) -> Path | None:
    """Returns the folder of all images, links followed; None where the table's own is enough."""
    images = [image for image in table["image"] if image]
    outside = [image for image in images if os.path.isabs(image)]
    if not outside:
        return None
    folders = {os.path.dirname(place) for i in outside for place in (i, os.path.realpath(i))}
    within = {os.path.realpath(path.parent)} if len(outside) < len(images) else set()
    return Path(os.path.commonpath([*folders, *within]))


def flow_of(
    path: Path,
    codes: Mapping[str, str] = MappingProxyType({}),
    missing: frozenset[str] = MISSING,
) -> pd.DataFrame:
    """Returns the flow beside a table; for a table written by hand, one that begins with it."""
    stored = beside(path, "flow.csv")
    if stored.exists():
        flow = flows.read(stored)
        return flow.assign(**{"class": flow["class"].replace(dict(codes))})
    table = read_table(path, codes, missing)
    return flows.start(table, pd.DataFrame(columns=EXCLUDED_COLUMNS))
