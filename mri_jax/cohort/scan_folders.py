"""T1w scans in folders that say whose they are: for archives without tables of their images."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mri_jax.cohort import images as im
from mri_jax.cohort.sheets import Reading
from mri_jax.errors import UserError
from mri_jax.problems import Problem, counted, listed
from mri_jax.trees import why_absent

_RUN = re.compile(r"_run-?0*(\d+)|anat_0*(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Layout:
    """How the folders and files of a download tell its scans.

    Attributes:
      scan: What the path of a wanted scan matches, below the root, with ``/`` between folders.
      subject_of: Returns the subject id that one folder's or file's name holds, or None.
      visit_of: Returns the session that such a path names, or empty.
      words: The layouts, for messages.
    """

    scan: re.Pattern[str]
    subject_of: Callable[[str], str | None]
    visit_of: Callable[[str], str]
    words: str


def find_scans(root: Path, layout: Layout, reading: Reading) -> tuple[pd.DataFrame, list[str]]:
    """Returns the scans of a folder as an images table (`mri_jax.cohort.images`), and notes.

    Args:
      root: The folder; all folders in it are searched, hidden ones and links to folders are not.
      layout: How scans are told.
      reading: Scans whose folders and name are of several subjects, or that lie outside the root
        by a link, are added to its problems.

    Raises:
      UserError: There is no such folder, or no scan in it.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder of images")
    inside = os.path.realpath(root)
    rows, nobody = [], []
    for folder, deeper, names in os.walk(root):
        deeper[:] = sorted(name for name in deeper if not name.startswith((".", "__MACOSX")))
        for name in sorted(names):
            path = Path(folder, name)
            parts = path.relative_to(root).parts
            text = "/".join(parts)
            if name.startswith(".") or not layout.scan.search(text):
                continue
            said = dict.fromkeys(of for part in parts if (of := layout.subject_of(part)))
            if not said:
                nobody.append(text)
                continue
            if len(said) > 1:
                rule = f"its folders and name are of {' and '.join(said)}; which is right?"
                reading.problems.append(Problem(str(path), None, "", "", rule))
            absent = why_absent(path)
            if not absent and not os.path.realpath(path).startswith(inside + os.sep):
                rule = "leaves the folder of images by a link"
                reading.problems.append(Problem(str(path), None, "", "", rule))
            run = _RUN.search(text)
            rows.append(
                {
                    "subject_id": next(reversed(said)),
                    "image_id": text,
                    "visit": layout.visit_of(text),
                    "description": name,
                    "repeat": run is not None and int(run[1] or run[2]) > 1,
                    "path": "" if absent else str(path),
                    "instead": absent,
                }
            )
    if not rows:
        found = f"; {nobody[0]} is of no subject" if nobody else ""
        raise UserError(f"{root}: has no T1w scan (looked for {layout.words}){found}")
    notes = [f"{counted(len(rows), 'T1w scan')} in {root.name or root}"]
    if nobody:
        rule = counted(len(nobody), "scan is", "scans are")
        notes.append(f"{rule} left out, of no subject of the archive: {listed(nobody)}")
    frame = pd.DataFrame(rows).assign(
        date=pd.NaT, level="raw", field=np.nan, accelerated=False, t1=True, quality=np.nan,
        selected=False, preference=0.0, dicom=False,
    )  # fmt: skip
    frame = frame.astype({"date": "datetime64[ns]", "field": float, "repeat": bool})
    return frame[[*im.COLUMNS, "dicom"]], notes
