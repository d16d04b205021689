"""Chosen DICOM series become NIfTI files, by dcm2niix."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pandas as pd

from mri_jax import files
from mri_jax.cohort import flow as flows
from mri_jax.cohort.assemble import EXCLUDED_COLUMNS, REASONS, Assembled
from mri_jax.cohort.images import NO_SCAN
from mri_jax.problems import counted
from mri_jax.progress import track


def converted(made: Assembled, folder: Path, program: str, script: Path) -> Assembled:
    """Converts the chosen DICOM series to NIfTI; a series that fails excludes its subject.

    Args:
      made: The table, whose images may be folders of DICOM files.
      folder: Where the NIfTI files are written; those that are there are kept.
      program: dcm2niix. Where it is not installed nothing is converted.
      script: Is then written with the commands, and a note names it.

    Returns:
      The table with the NIfTI files in place of the series.
    """
    table = made.table
    dicom = [i for i, image in enumerate(table["image"]) if Path(image).is_dir()]
    if not dicom:
        return made
    target = {i: folder / f"I{table.at[i, 'image_id']}.nii.gz" for i in dicom}
    commands = {
        i: [program, "-z", "y", "-b", "n", "-o", str(folder), "-f",
            f"I{table.at[i, 'image_id']}", table.at[i, "image"]]
        for i in dicom
    }  # fmt: skip
    waiting = [i for i in dicom if not target[i].exists()]
    failed: dict[int, str] = {}
    notes = list(made.notes)
    if waiting and shutil.which(program) is None:
        lines = [shlex.join(["mkdir", "-p", str(folder)])]
        lines += [shlex.join(commands[i]) for i in waiting]
        files.write_text(script, "\n".join(["#!/bin/sh", *lines, ""]))
        scans = counted(len(waiting), "scan is", "scans are")
        notes.append(f"{scans} DICOM and {program} is not installed; "
                     f"run sh {script}, the first line being: {lines[1]}")  # fmt: skip
    elif waiting:
        folder.mkdir(parents=True, exist_ok=True)
        for i in track(waiting, len(waiting), "scan", "dcm2niix"):
            done = subprocess.run(commands[i], capture_output=True, check=False, encoding="utf-8")
            if done.returncode or not target[i].exists():
                said = (done.stderr or done.stdout).strip().splitlines()
                failed[i] = f"dcm2niix failed: {said[-1] if said else 'no image written'}"
    images = [str(target.get(i, image)) for i, image in enumerate(table["image"])]
    lost = table.loc[list(failed)].assign(reason=NO_SCAN, detail=list(failed.values()))
    kept = table.assign(image=images).drop(index=list(failed)).reset_index(drop=True)
    lost = lost.assign(group=lost["group"].where(lost["group"] != "", lost["diagnosis"]))
    excluded = pd.concat([made.excluded, lost[EXCLUDED_COLUMNS]], ignore_index=True)
    return Assembled(kept, excluded, flows.start(kept, excluded, REASONS), tuple(notes))
