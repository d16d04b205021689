"""ABIDE I and II: the phenotype tables, and scans in the layouts in which they are given out.

``docs/abide.md`` names the tables and the documents that columns and codes are from.
"""

import re
from pathlib import Path

import pandas as pd

from mri_jax.cohort.assemble import CohortSource, visits_of
from mri_jax.cohort.exports import not_used, nothing_found, tables_of, whose
from mri_jax.cohort.reading import header_of
from mri_jax.cohort.scan_folders import Layout, find_scans
from mri_jax.cohort.sheets import Reading
from mri_jax.problems import listed, refuse
from mri_jax.trees import NO_SESSION

DIAGNOSES = {"1": "ASD", "2": "TC"}
SEX = {"1": "M", "2": "F"}
# By the numbers of DSM-IV-TR, which the two releases call otherwise.
GROUPS = {"0": "", "1": "autism", "2": "Asperger", "3": "PDD-NOS", "4": "Asperger or PDD-NOS"}
ABSENT = ("-9999",)
COVARIATES = ("fiq",)
KEYS = ("SUB_ID", "DX_GROUP")
COLUMNS = (*KEYS, "SITE_ID", "AGE_AT_SCAN", "SEX")
# Release I has 50002 to 51607, in folders 0050002; release II 28675 to 30167.
_SUBJECT = re.compile(r"(?<!\d)(?:00)?(5[01]\d{3}|2[89]\d{3}|30\d{3})(?!\d)", re.ASCII)
_SESSION = re.compile(r"(?:ses-|session_)([A-Za-z0-9]+)")
RELEASE_1 = ("Phenotypic_V1_0b_preprocessed1", "Phenotypic_V1_0b")
RELEASE_2 = "ABIDEII_Composite_Phenotypic"
LONGITUDINAL = "ABIDEII_Long_Composite_Phenotypic"


def subject_of(text: str) -> str | None:
    """Returns the subject id in a name or cell (``50002``, ``Pitt_0050002``), or None."""
    found = _SUBJECT.search(text)
    return f"sub-ABIDE{found[1]}" if found else None


def _session_of(path: str) -> str:
    found = _SESSION.search(path)
    return f"ses-{found[1]}" if found else NO_SESSION


LAYOUT = Layout(
    re.compile(
        r"_T1w\.nii(?:\.gz)?$|(?:^|/)anat_\d+/(?:mprage|anat)\.nii(?:\.gz)?$|(?:^|/)mri/orig\.mgz$",
        re.IGNORECASE,
    ),
    subject_of,
    _session_of,
    "sub-*/anat/*_T1w.nii.gz, 0050002/session_1/anat_1/mprage.nii.gz or *_0050002/mri/orig.mgz",
)


def read(tables: Path, images: Path, reading: Reading) -> CohortSource:
    """Reads ABIDE's phenotype tables and a folder of scans; each site is a cohort.

    Args:
      tables: The folder with ``Phenotypic_V1_0b*.csv``, ``ABIDEII_Composite_Phenotypic.csv`` or the
        tables of single sites.
      images: The folder of scans.
      reading: How.

    Raises:
      UserError: A file, column or scan is missing.
      TableError: Rows are wrong; all of them, of all files.
    """
    found, notes = find_scans(images, LAYOUT, reading)
    used = _tables(tables)
    visits = pd.concat([_people(path, reading) for path in used], ignore_index=True)
    twice = visits.loc[visits.duplicated("subject_id"), "subject_id"]
    if len(twice):
        notes.append(f"in several tables, the first counts: {listed(twice)}")
    visits = visits.drop_duplicates("subject_id")
    sessions = found.groupby("subject_id")["visit"].min()
    first = visits["subject_id"].map(sessions).fillna(NO_SESSION)
    refuse(reading.problems)
    visits = visits.assign(code=first, session=first)
    return CohortSource(visits_of(visits), found, COVARIATES, (*notes, *not_used(tables, used)))


def _tables(folder: Path) -> list[Path]:
    """Returns the composite tables of a folder, or else all of its tables of ABIDE."""
    # A table by one of the names is read whatever its columns are, to be told what they lack.
    by_name = {path.stem.casefold(): path for path in tables_of(folder)}
    longitudinal = by_name.pop(LONGITUDINAL.casefold(), None)
    first = [by_name[name.casefold()] for name in RELEASE_1 if name.casefold() in by_name]
    second = [by_name[RELEASE_2.casefold()]] if RELEASE_2.casefold() in by_name else []
    found = [*first[:1], *second] or [
        path for path in by_name.values() if whose(header_of(path)) == "abide"
    ]
    if found:
        return found
    names = " or ".join(f"{name}.csv" for name in (*RELEASE_1, RELEASE_2))
    without = " (the longitudinal sample is not read)" if longitudinal else ""
    wanted = f"{names}, nor a table with {' and '.join(KEYS)}{without}"
    raise nothing_found(folder, wanted, ("pheno",), "abide")


def _people(path: Path, reading: Reading) -> pd.DataFrame:
    """Returns one row a subject of a phenotype table."""
    dsm = "DSM_IV_TR|PDD_DSM_IV_TR"
    sheet = reading.sheet(path, COLUMNS, ("AGE_AT_MPRAGE", "FIQ", dsm)).filled()
    sheet = sheet.of_subjects("SUB_ID", subject_of, "50002 or 29006")
    sites = sheet.sites("SITE_ID", "SUB_ID")
    sheet = sheet.once("SUB_ID", apart=["SITE_ID"])
    age = sheet.numbers("AGE_AT_MPRAGE", 0, 120, ABSENT)
    return pd.DataFrame(
        {
            "subject_id": sheet.rows["SUB_ID"],
            "cohort": sites.reindex(sheet.rows.index),
            "diagnosis": sheet.codes("DX_GROUP", DIAGNOSES, ABSENT, user=True),
            "age": age.fillna(sheet.numbers("AGE_AT_SCAN", 0, 120, ABSENT)),
            "sex": sheet.codes("SEX", SEX, ABSENT),
            "group": sheet.codes(dsm, GROUPS, ABSENT),
            "fiq": sheet.numbers("FIQ", 0, 200, ABSENT),
        }
    )
