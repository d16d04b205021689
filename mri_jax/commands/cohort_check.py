"""Checks cohort tables together with their images and their store."""

import argparse
from pathlib import Path

from mri_jax.cohort import check
from mri_jax.cohort import flow as flows
from mri_jax.cohort.table import image_problems, read_table
from mri_jax.cohort.written import Parts, check_name, root_of
from mri_jax.commands import words
from mri_jax.errors import UserError
from mri_jax.problems import Problem, counted, refuse
from mri_jax.showing.numbers import class_named
from mri_jax.study import twice
from mri_jax.volumes import inputs, scans


def check_tables(args: argparse.Namespace) -> int:
    """Refuses what is wrong with tables; with a store, lists near-identical volumes too."""
    problems = check.faults(args.inputs, words.names(args.order))
    refuse([*problems, *_unusable_images(args.inputs, args.root)])
    parts = Parts(args.inputs)
    table = parts.table()
    counts = table.drop_duplicates(["subject_id", "cohort"]).groupby(["cohort", "diagnosis"]).size()
    for (cohort, name), n in counts.items():
        print(f"{cohort} {class_named(str(name))}: {counted(n, 'subject')}")
    left_out: dict[str, str] = {}
    if args.store is not None:
        decisions = args.duplicates or args.inputs[0].parent / "duplicates.csv"
        left_out = twice.resolved(table, args.store, decisions, args.threshold, print)
    present = sorted(set(left_out) & set(table["subject_id"]))
    if args.out is not None:
        check_name(args.out)
        kept = table[~table["subject_id"].isin(left_out)]
        print(parts.write_less(args.out, table, kept, flows.DUPLICATES, left_out))
    elif present:
        raise UserError(
            f"duplicates: {counted(len(present), 'subject is', 'subjects are')} to be left out "
            f"({', '.join(present[:5])}); "
            "write the table without them with --out"
        )
    print("no problem found")
    return 0


def _unusable_images(paths: list[Path], root: Path | None) -> list[Problem]:
    """Returns what `preprocess` would refuse before it reads a voxel; prints its ``--root``.

    These are paths that leave the root, and files without the name or the header of a scan; what
    `image_problems` tells is left out.
    """
    problems = []
    for path in paths:
        table = read_table(path)
        told = {problem.row for problem in image_problems(table, path)}
        rows = zip(table["subject_id"], table["session_id"], table["image"], strict=True)
        named = {(subject, session): (i, image) for i, (subject, session, image) in enumerate(rows)}
        needed = root_of(path, table)
        if needed and root is None:
            print(f"{path}: images lie outside its folder: preprocess needs --root {needed}")
        try:
            entries = inputs.find(path, root=root or needed).entries
        except UserError as error:
            if not told:
                rule = f"preprocess will refuse it: {error}"
                problems.append(Problem(str(path), None, "", "", rule))
            continue
        for entry in entries:
            row, image = named[entry.key]
            if not image or row + 2 in told:
                continue
            if reason := entry.problem or scans.check_header(entry.path, entry.orientation):
                rule = f"preprocess will refuse it: {reason.removeprefix(f'{entry.path.name}: ')}"
                problems.append(Problem(str(path), row + 2, "image", image, rule))
    return problems
