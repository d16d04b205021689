"""What generated downloads have in common: stories of made-up subjects, and an image tree."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

# From a cohort and a label to the image of a head, or None for a small file of noise.
Head = Callable[[str, str], Path | None]


@dataclass(frozen=True)
class Story:
    """What happens to a subject, and what must become of it.

    ``visits`` are code=DX (``-`` for a visit without a diagnosis); ``outcome`` is a label, or a
    reason for exclusion; ``scans`` names a way of scanning.
    """

    name: str
    dx_bl: str
    visits: str
    outcome: str
    scans: str = "usual"
    phases: tuple[str, ...] = ()
    deciding: str = ""


@dataclass
class Archive:
    """What the generator collects before it writes."""

    folder: Path
    rng: np.random.Generator
    head: Head
    cohort: str = ""
    searched: list[dict] = field(default_factory=list)
    mprage: list[dict] = field(default_factory=list)
    mayo: list[dict] = field(default_factory=list)
    rated: list[dict] = field(default_factory=list)
    number: int = 40000

    def image(
        self,
        ptid: str,
        description: str,
        day: pd.Timestamp,
        tesla: float,
        *,
        kind: str = "Original",
        file: bool = True,
        grade: int | None = None,
        passed: bool | None = None,
        label: str = "",
        visit: str = "",
    ) -> str:
        """Add one image; returns its id."""
        self.number += int(self.rng.integers(1, 9))
        image, series = str(self.number), str(self.number + 500000)
        when = f"{day:%Y-%m-%d}_09_3{image[-1]}_21.0"
        text = "".join(c if c.isalnum() or c in "-." else "_" for c in description)
        place = self.folder / ptid / text / when / f"I{image}"
        if file:
            place.mkdir(parents=True)
            name = place / f"{ptid}_MR_{text}_S{series}_I{image}.nii"
            self._write(name, label, int(image))
        self.searched.append(
            {
                "Image Data ID": f"I{image}", "Subject": ptid, "Group": "", "Sex": "", "Age": "",
                "Visit": visit, "Modality": "MRI", "Description": description, "Type": kind,
                "Acq Date": f"{day.month}/{day.day}/{day.year}", "Format": "NiFTI",
                "Downloaded": "",
            }
        )  # fmt: skip
        self.mprage.append(
            {
                "Orig/Proc": "Original" if kind == "Original" else "Processed",
                "SubjectID": ptid, "Visit": visit, "MagStrength": tesla, "Sequence": description,
                "ScanDate": f"{day:%Y-%m-%d}", "StudyID": series, "SeriesID": series,
                "ImageUID": image,
            }
        )  # fmt: skip
        if grade is not None:
            self.mayo.append(
                {"RID": int(ptid[-4:]), "series_type": "T1", "loni_image": f"I{image}",
                 "series_selected": int(grade < 3), "series_quality": grade}
            )  # fmt: skip
        if passed is not None:
            self.rated.append({"RID": int(ptid[-4:]), "LONIUID": f"S{series}", "PASS": int(passed)})
        return image

    def _write(self, path: Path, label: str, number: int) -> None:
        head = self.head(self.cohort, label)
        if head is not None:
            suffix = ".nii.gz" if head.name.endswith(".gz") else ".nii"
            shutil.copyfile(head, path.with_name(path.name.removesuffix(".nii") + suffix))
            return
        voxels = np.random.default_rng(number).integers(0, 255, (4, 5, 6)).astype(np.uint8)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)


def day_of(start: pd.Timestamp, code: str, rng: np.random.Generator) -> pd.Timestamp:
    months = 0 if code == "bl" else int(code[1:])
    late = 0 if months == 0 else int(rng.integers(-20, 60))
    return start + pd.Timedelta(days=round(months * 30.4375) + late)
