"""Cohort tables that exist: written, joined, checked and described."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from mri_jax import files
from mri_jax.cohort import check, continued, demographics, flow_picture, same_people
from mri_jax.cohort import flow as flows
from mri_jax.cohort import near_duplicates as near
from mri_jax.cohort.assemble import EXCLUDED_COLUMNS
from mri_jax.cohort.problems import Problem, refuse
from mri_jax.cohort.table import placed, read_table, write_table
from mri_jax.cohort.task import remove_earlier
from mri_jax.delimited import MISSING
from mri_jax.errors import UserError
from mri_jax.volumes import described, descriptors, inputs, scans
from mri_jax.volumes.store import VolumeStore


def beside(table: Path, name: str) -> Path:
    """As `mri_jax.cohort.flow.beside`, for files of this machine."""
    return Path(flows.beside(table, name))


def check_name(out: Path) -> None:
    """Refuse an output that is not called ``.csv``."""
    if out.suffix != ".csv":
        raise UserError(f"--out: {out} must end in .csv")


def write(out: Path, table: pd.DataFrame, excluded: pd.DataFrame, flow: pd.DataFrame) -> str:
    """Write a cohort table, its exclusions, its flow and a picture of it; returns their names."""
    write_table(out, placed(table, out.parent))
    left_out, counts, picture = (
        beside(out, name) for name in ("excluded.csv", "flow.csv", "flow.png")
    )
    files.write_csv(left_out, excluded)
    flows.write(counts, flow)
    flow_picture.write(picture, flow)
    return f"written: {out}, {left_out} ({len(excluded)} left out), {counts} and {picture}"


def describe(path: Path) -> int:
    """Write and print the demographics of a table."""
    described = demographics.describe(read_table(path))
    text = demographics.as_markdown(described)
    files.write_markdown(beside(path, "demographics.md"), text)
    files.write_csv(beside(path, "demographics.csv"), described.groups)
    files.write_csv(beside(path, "demographics_tests.csv"), described.tests)
    files.write_text(beside(path, "demographics.tex"), demographics.as_latex(described))
    print(f"{text}\nwritten: {beside(path, 'demographics')}.md, .csv, .tex and _tests.csv")
    return 0


def next_command(out: Path) -> str:
    """The command that preprocesses a table; images outside its folder need their root."""
    root = _root_of(out, read_table(out))
    command = ["python", "-m", "mri_jax", "preprocess", "--input", str(out)]
    command += ["--root", str(root)] if root else []
    return shlex.join([*command, "--out", "STORE"])


def join(
    paths: list[Path],
    out: Path,
    order: tuple[str, ...],
    codes: Mapping[str, str],
    missing: frozenset[str],
) -> int:
    """Put tables together, persons of an earlier cohort removed from the later ones."""
    check_name(out)
    table = _read(paths, codes, missing)
    apart = same_people.read(paths)
    if pairs := same_people.find(table, apart):
        way_out = same_people.way_out(pairs, out)
        print(f"note: a study will refuse this: {same_people.described(pairs)}; {way_out}")
    if order:
        kept, removed = remove_earlier(table, order, apart)
        reason = pd.Series("", index=removed["subject_id"].unique()) + flows.EARLIER
        _reduce(paths, out, table, kept, "joined cohorts", reason.to_dict(), codes, missing)
    else:
        _reduce(paths, out, table, table, "", {}, codes, missing)
    if (table["image"] != "").any():
        print(f"next: {next_command(out)}")
    return 0


def check_tables(
    paths: list[Path],
    order: tuple[str, ...],
    root: Path | None,
    store: Path | None,
    duplicates: Path | None,
    threshold: float | None,
    out: Path | None,
) -> int:
    """Refuse what is wrong with tables; with a store, list near-identical volumes too."""
    check.refuse_all(paths, order)
    _refuse_images(paths, root)
    table = _read(paths)
    counts = table.drop_duplicates(["subject_id", "cohort"]).groupby(["cohort", "diagnosis"]).size()
    for (cohort, name), n in counts.items():
        print(f"{cohort} {name}: {n} subjects")
    left_out: dict[str, str] = {}
    if store is not None:
        left_out = _resolve(
            table, store, duplicates or paths[0].parent / "duplicates.csv", threshold
        )
    present = sorted(set(left_out) & set(table["subject_id"]))
    if out is not None:
        check_name(out)
        kept = table[~table["subject_id"].isin(left_out)]
        _reduce(paths, out, table, kept, flows.DUPLICATES, left_out)
    elif present:
        raise UserError(
            f"duplicates: {len(present)} subjects are to be left out ({', '.join(present[:5])}); "
            "write the table without them with --out"
        )
    print("no problem found")
    return 0


def continue_flow(path: Path, store: Path, run: Path | None, out: Path | None) -> int:
    """Carry the flow beside a table on to its store, and to what a study analysed."""
    left, flow = read_table(path), _flow_of(path)
    # `qc --cohort-out` has counted these two already, for the table that it wrote.
    done = set(flow["stage"])
    if flows.PREPROCESSING not in done:
        stored, failed = VolumeStore(store).index.index, _scans_of(store / "failed.csv")
        flow, left = continued.after_preprocessing(flow, left, list(stored), failed)
    if flows.QUALITY not in done and (store / "exclusions.csv").exists():
        flow, left = continued.after_quality(flow, left, _scans_of(store / "exclusions.csv"))
    if run is not None:
        flow, _ = continued.analysed(flow, left, read_table(run / "cohort.csv"))
    target = out or beside(path, "flow_to_end.csv")
    check_name(target)
    flows.write(target, flow)
    flow_picture.write(target.with_suffix(".png"), flow)
    print(f"{flows.as_markdown(flow)}\n\nwritten: {target} and {target.with_suffix('.png')}")
    return 0


def _scans_of(path: Path) -> list[tuple[str, str]]:
    if not path.exists():
        return []
    rows = files.read_csv(path)
    return list(rows[["subject_id", "session_id"]].itertuples(index=False, name=None))


def _refuse_images(paths: list[Path], root: Path | None) -> None:
    """Refuse images that `preprocess` would refuse before it reads a voxel; says its ``--root``.

    Raises:
      TableError: A path leaves the root, a file has no name of a scan, or no header of one.
    """
    problems = []
    for path in paths:
        table = read_table(path)
        rows = zip(table["subject_id"], table["session_id"], table["image"], strict=True)
        named = {(subject, session): (i, image) for i, (subject, session, image) in enumerate(rows)}
        needed = _root_of(path, table)
        if needed and root is None:
            print(f"{path}: images lie outside its folder: preprocess needs --root {needed}")
        for entry in inputs.find(path, root=root or needed).entries:
            row, image = named[entry.key]
            reason = entry.problem or scans.check_header(entry.path, entry.orientation)
            if image and reason:
                rule = f"preprocess will refuse it: {reason.removeprefix(f'{entry.path.name}: ')}"
                problems.append(Problem(str(path), row + 2, "image", image, rule))
    refuse(problems)


def _root_of(path: Path, table: pd.DataFrame) -> Path | None:
    """The folder of all images of a table, links followed; None where its own folder is enough."""
    images = [image for image in table["image"] if image]
    outside = [image for image in images if os.path.isabs(image)]
    if not outside:
        return None
    folders = {os.path.dirname(place) for i in outside for place in (i, os.path.realpath(i))}
    within = {os.path.realpath(path.parent)} if len(outside) < len(images) else set()
    return Path(os.path.commonpath([*folders, *within]))


def _read(
    paths: list[Path],
    codes: Mapping[str, str] = MappingProxyType({}),
    missing: frozenset[str] = MISSING,
) -> pd.DataFrame:
    """All rows, image paths as seen from here."""
    tables = check.read_all(paths, codes, missing)
    for path, table in zip(paths, tables, strict=True):
        table["image"] = [str(path.parent / image) if image else "" for image in table["image"]]
    return pd.concat(tables, ignore_index=True)


def _reduce(
    paths: list[Path],
    out: Path,
    before: pd.DataFrame,
    after: pd.DataFrame,
    stage: str,
    reasons: dict[str, str],
    codes: Mapping[str, str] = MappingProxyType({}),
    missing: frozenset[str] = MISSING,
) -> None:
    """Write what is left of joined tables, their flows extended by the stage that reduced them."""
    flow = flows.join([_flow_of(path, codes, missing) for path in paths])
    excluded = [
        files.read_csv(beside(path, "excluded.csv"))
        for path in paths
        if beside(path, "excluded.csv").exists()
    ]
    if stage:
        lost = flows.lost_between(before, after, pd.Series(reasons, dtype=object))
        flow = flows.extend(flow, stage, after, lost)
        rows = [(s, c, stage, why, d) for (c, d, s), why in lost.items()]
        names = ["subject_id", "cohort", "reason", "detail", "group"]
        excluded.append(pd.DataFrame(rows, columns=names))
    everyone = pd.concat([pd.DataFrame(columns=EXCLUDED_COLUMNS), *excluded], ignore_index=True)
    written = write(out, after, everyone[EXCLUDED_COLUMNS].fillna(""), flow)
    print(f"{flows.as_markdown(flow)}\n\n{len(after)} rows: {out}\n{written}")


def _flow_of(
    path: Path,
    codes: Mapping[str, str] = MappingProxyType({}),
    missing: frozenset[str] = MISSING,
) -> pd.DataFrame:
    """The flow beside a table; for a table written by hand, one that begins with it."""
    stored = beside(path, "flow.csv")
    if stored.exists():
        flow = flows.read(stored)
        return flow.assign(**{"class": flow["class"].replace(dict(codes))})
    table = read_table(path, codes, missing)
    return flows.start(table, pd.DataFrame(columns=EXCLUDED_COLUMNS))


def _resolve(
    table: pd.DataFrame, folder: Path, file: Path, threshold: float | None
) -> dict[str, str]:
    """List near-identical volumes in ``duplicates.csv``; every line must have a decision."""
    store = VolumeStore(folder)
    keys = [key for key in table[["subject_id", "session_id"]].itertuples(index=False, name=None)
            if key in store.index.index]  # fmt: skip
    if len(keys) < 2:
        raise UserError(f"{folder}: holds {len(keys)} scans of the table; at least 2 are needed")
    print(f"{folder}: holds {len(keys)} of {len(table)} scans of the table, and "
          f"{len(store) - len(keys)} that are not in it")  # fmt: skip
    store.check(keys)
    own = described.of_scans(store, keys)
    volumes = near.compared(own, descriptors.mirrored(own))
    subjects = [subject for subject, _ in keys]
    found = near.calibrate(volumes, subjects)
    limit = found.value if threshold is None else threshold
    if threshold is None and found.rescans:
        said = f"which finds {found.found:.0%} of {found.rescans} pairs of known rescans"
    elif threshold is None:
        said = "which could not be tried on known rescans: no subject has two scans"
    else:
        said = "the threshold given"
    pairs = near.pairs_above(volumes, subjects, limit)
    mirrored = sum(pair.mirrored for pair in pairs)
    print(f"near-identical volumes: {len(pairs)} pairs of different ids "
          + (f"({mirrored} of them mirrored) " if mirrored else "")
          + f"correlate at least {limit:.3f}, {said}")  # fmt: skip
    listed = near.listing(pairs, keys, near.read(file))
    if len(listed):
        files.write_csv(file, listed)
    near.check_decisions(listed, str(file))
    return near.dropped(listed)
