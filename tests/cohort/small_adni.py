"""A small download of ADNI: three people, tables that may name them, and what is made of them."""

from datetime import date
from pathlib import Path

import pandas as pd

from mri_jax.cohort import adni
from mri_jax.cohort.assemble import Assembled, SubjectSelection, assemble
from mri_jax.cohort.images import ImageChoice
from mri_jax.cohort.labels import LabelRules

TODAY = date(2026, 1, 1)
PEOPLE = {"901": ("AD", "3 3 3"), "902": ("CN", "1 1 1"), "903": ("LMCI", "2 3 3")}
STATE = {"1": "CN", "2": "MCI", "3": "Dementia"}
WHEN = {"bl": "2006-03-1{}", "m12": "2007-03-15", "m36": "2009-03-16"}
RIGHT = {"sub-ADNI001S0901": "AD", "sub-ADNI001S0902": "CN", "sub-ADNI001S0903": "pMCI"}


def visits() -> list[tuple[str, str, str, str, str]]:
    """RID, group, code, date, number of the diagnosis of every visit."""
    return [
        (rid, group, code, WHEN[code].format(rid[-1]), dx)
        for rid, (group, states) in PEOPLE.items()
        for code, dx in zip(WHEN, states.split(), strict=True)
    ]


def adnimerge() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "RID": rid, "COLPROT": "ADNI1", "ORIGPROT": "ADNI1", "PTID": f"001_S_0{rid}",
                "VISCODE": code, "EXAMDATE": day, "DX_bl": group, "AGE": "71.1",
                "PTGENDER": "Female", "PTEDUCAT": "16", "APOE4": "0", "CDRSB": "1", "MMSE": "28",
                "DX": STATE[dx], "EXAMDATE_bl": WHEN["bl"].format(rid[-1]),
            }
            for rid, group, code, day, dx in visits()
        ]
    )  # fmt: skip


def dxsum() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "PHASE": "ADNI1", "PTID": f"001_S_0{rid}", "RID": rid, "VISCODE": code,
                "VISCODE2": code, "EXAMDATE": day, "DIAGNOSIS": dx,
            }
            for rid, _, code, day, dx in visits()
        ]
    )  # fmt: skip


def ptdemog() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"PHASE": "ADNI1", "RID": rid, "PTGENDER": "2", "PTDOBYY": "1930", "PTEDUCAT": "16"}
            for rid in PEOPLE
        ]
    )


def download(folder: Path) -> Path:
    """Returns a folder with the images of all `PEOPLE`, and no table yet."""
    (folder / "tables").mkdir()
    for number, rid in enumerate(PEOPLE):
        scan(folder, f"001_S_0{rid}", WHEN["bl"].format(rid[-1]), 4000 + number)
    return folder


def scan(folder: Path, ptid: str, day: str, number: int) -> None:
    place = folder / "images" / ptid / "MP-RAGE" / f"{day}_08_00_00.0" / f"I{number}"
    place.mkdir(parents=True)
    (place / f"ADNI_{ptid}_MR_MP-RAGE__br_raw_S9_I{number}.nii").touch()


def write(folder: Path, name: str, frame: pd.DataFrame, **options) -> None:
    frame.to_csv(folder / "tables" / name, **{"index": False, **options})


def made(folder: Path, **options) -> Assembled:
    source = adni.read(folder / "tables", folder / "images", adni.AdniOptions(**options), TODAY)
    return assemble(source, LabelRules(), ImageChoice(), SubjectSelection())


def labels(result: Assembled) -> dict[str, str]:
    return dict(result.table[["subject_id", "diagnosis"]].values)
