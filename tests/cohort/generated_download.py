"""ADNI- and AIBL-like downloads of made-up subjects, with the truth for each.

No real record is here: ids, dates and values are drawn at random; only the names of columns, files
and folders are those of the archives. Every subject follows a story whose outcome is written down
beside it, not computed by the code under test.

    python tests/cohort/generated_download.py OUT --subjects 200 --seed 1 [--heads cohort.csv]

writes OUT/adni and OUT/aibl, each with ``tables/``, ``images/`` and ``truth.csv``. ``--heads``
takes the images from a cohort table (for instance of simulated raw heads), by cohort and label;
subjects for whom none is left get a small file of noise, which preprocessing refuses.
"""

import argparse
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from mri_jax.seeding import generator

ADNIMERGE_COLUMNS = (
    "RID,COLPROT,ORIGPROT,PTID,SITE,VISCODE,EXAMDATE,DX_bl,AGE,PTGENDER,PTEDUCAT,PTETHCAT,PTRACCAT,"
    "PTMARRY,APOE4,FDG,PIB,AV45,FBB,ABETA,TAU,PTAU,CDRSB,ADAS11,ADAS13,ADASQ4,MMSE,"
    "RAVLT_immediate,FAQ,MOCA,FLDSTRENG,FSVERSION,IMAGEUID,Ventricles,Hippocampus,WholeBrain,ICV,"
    "DX,mPACCdigit,EXAMDATE_bl,CDRSB_bl,MMSE_bl,Years_bl,Month_bl,Month,M,update_stamp"
)
PHASES = {"ADNI1": 2006, "ADNIGO": 2010, "ADNI2": 2012, "ADNI3": 2018}


# From a cohort and a label to the image of a head, or None for a small file of noise.
Head = Callable[[str, str], Path | None]


@dataclass(frozen=True)
class Story:
    """What happens to a subject, and what must become of it.

    ``visits`` are code=DX (``-`` for a visit without a diagnosis); ``outcome`` is a label, or a
    reason for exclusion; ``scans`` names a way of `_scans`.
    """

    name: str
    dx_bl: str
    visits: str
    outcome: str
    scans: str = "usual"
    phases: tuple[str, ...] = tuple(PHASES)
    deciding: str = ""


STORIES = (
    Story("ad", "AD", "bl=Dementia m06=Dementia m12=Dementia", "AD", deciding="bl=AD"),
    Story("cn", "CN", "bl=CN m12=CN m24=CN", "CN", deciding="bl=CN"),
    Story("cn-once", "CN", "bl=CN", "CN"),
    Story("cn-repeat", "CN", "bl=CN m12=-", "CN", "repeat"),
    Story("ad-failed-first", "AD", "bl=Dementia", "AD", "failed-first"),
    Story("pmci", "LMCI", "bl=MCI m06=MCI m12=MCI m24=Dementia m36=Dementia", "pMCI",
          deciding="bl=MCI m24=AD"),
    Story("pmci-at-horizon", "EMCI", "bl=MCI m24=MCI m36=Dementia", "pMCI",
          deciding="bl=MCI m36=AD"),
    Story("pmci-unstable", "LMCI", "bl=MCI m12=Dementia m24=MCI m36=MCI", "pMCI"),
    Story("smci", "LMCI", "bl=MCI m06=MCI m12=MCI m24=MCI m36=MCI", "sMCI",
          deciding="bl=MCI m36=MCI"),
    Story("smci-late-visit", "EMCI", "bl=MCI m24=MCI m48=MCI", "sMCI"),
    Story("smci-converts-late", "LMCI", "bl=MCI m36=MCI m48=Dementia", "sMCI"),
    Story("smci-reverts", "EMCI", "bl=MCI m12=CN m36=CN", "sMCI"),
    Story("smci-screened-ad", "AD", "bl=MCI m36=MCI", "sMCI"),
    Story("gap", "LMCI", "bl=MCI m24=MCI m48=Dementia", "follow-up too short"),
    Story("short", "LMCI", "bl=MCI m06=MCI m24=MCI m36=-", "follow-up too short"),
    Story("mci-once", "EMCI", "bl=MCI", "follow-up too short"),
    Story("smc", "SMC", "bl=CN m12=CN", "group left out", phases=("ADNI2", "ADNI3")),
    Story("undiagnosed", "CN", "bl=- m06=CN", "no diagnosis"),
    Story("unscanned", "AD", "bl=Dementia", "no scan", "none"),
    Story("scanned-late", "CN", "bl=CN m12=CN", "no scan", "late"),
    Story("processed-only", "CN", "bl=CN", "no scan", "processed"),
    Story("other-field", "AD", "bl=Dementia", "no scan", "other-field"),
    Story("unusable", "AD", "bl=Dementia", "no scan", "unusable"),
    Story("listed-only", "CN", "bl=CN", "no scan", "listed"),
    Story("no-baseline", "CN", "m06=CN m12=CN", "no baseline"),
)  # fmt: skip


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


def write_adni(out: Path, subjects: int, seed: int, head: Head = lambda *_: None) -> pd.DataFrame:
    """Write an ADNI-like download; returns the truth, one row a (subject, cohort)."""
    rng = generator(seed, "generated ADNI")
    archive = Archive(out / "images", rng, head)
    rows: list[dict] = []
    truth: list[dict] = []
    for number in range(subjects):
        story = STORIES[number % len(STORIES)]
        phase = story.phases[(number // len(STORIES)) % len(story.phases)]
        _adni_subject(archive, rows, truth, number, story, phase)
    merged = pd.DataFrame(rows).reindex(columns=ADNIMERGE_COLUMNS.split(","))
    # Some rows stand twice, alike, as in real exports.
    merged = pd.concat([merged, merged.iloc[:: max(1, len(merged) // 7)]])
    order = rng.permutation(len(merged))
    tables = out / "tables"
    tables.mkdir(parents=True)
    merged.iloc[order].to_csv(tables / "ADNIMERGE_01Jan2025.csv", index=False)
    old = merged.iloc[:3].assign(DX="CN")
    old.to_csv(tables / "ADNIMERGE_05Mar2024.csv", index=False)
    pd.DataFrame(archive.mprage).to_csv(tables / "MPRAGEMETA.csv", index=False)
    _frame(archive.mayo, "RID series_type loni_image series_selected series_quality").to_csv(
        tables / "MAYOADIRL_MRI_IMAGEQC_12_08_15.csv", index=False
    )
    _frame(archive.rated, "RID LONIUID PASS").to_csv(tables / "MRIQUALITY.csv", index=False)
    pd.DataFrame(archive.searched).to_csv(out / "images" / "search_1_01_2025.csv", index=False)
    frame = pd.DataFrame(truth)
    frame.to_csv(out / "truth.csv", index=False)
    return frame


def _adni_subject(
    archive: Archive, rows: list[dict], truth: list[dict], number: int, story: Story, phase: str
) -> None:
    rng, rid = archive.rng, 100 + number
    ptid = f"{int(rng.integers(2, 140)):03d}_S_{rid:04d}"
    start = pd.Timestamp(PHASES[phase], 1, 1) + pd.Timedelta(days=int(rng.integers(0, 500)))
    person = {
        "RID": rid, "PTID": ptid, "ORIGPROT": phase, "SITE": int(ptid[:3]), "DX_bl": story.dx_bl,
        "AGE": round(float(rng.uniform(56, 89)), 1),
        "PTGENDER": str(rng.choice(["Male", "Female"])), "PTEDUCAT": int(rng.integers(8, 20)),
        "APOE4": int(rng.integers(0, 3)), "EXAMDATE_bl": f"{start:%Y-%m-%d}",
    }  # fmt: skip
    later = [v.split("=") for v in story.visits.split()]
    visits = [(code, dx, _day(start, code, rng), phase) for code, dx in later]
    # Every third ADNI-1 subject continues in ADNI-2: the same person, five or more years later.
    continues = phase == "ADNI1" and number % 3 == 0 and story.scans == "usual"
    if continues:
        state = next((dx for _, dx in reversed(later) if dx != "-"), "CN")
        visits.append(("m72", state, _day(start, "m72", rng), "ADNI2"))
        visits.append(("m108", state, _day(start, "m108", rng), "ADNI2"))
    for code, dx, day, held in visits:
        scores = {"MMSE": int(rng.integers(18, 31)), "CDRSB": float(rng.integers(0, 12)) / 2}
        rows.append(
            {
                **person, **scores, "COLPROT": held, "VISCODE": code, "EXAMDATE": f"{day:%Y-%m-%d}",
                "DX": "" if dx == "-" else dx,
            }
        )  # fmt: skip
    rows.append({**person, "COLPROT": phase, "VISCODE": "nv"})
    # Followed on in ADNI-2 as MCI, these are stable after all.
    outcome = "sMCI" if continues and story.name in ("mci-once", "short") else story.outcome
    label = outcome if outcome in ("AD", "CN", "pMCI", "sMCI") else ""
    archive.cohort = phase
    image = _scans(archive, ptid, start, phase, story.scans, label)
    subject = "sub-ADNI" + ptid.replace("_", "")
    truth.append(
        {
            "subject_id": subject, "cohort": phase, "story": story.name, "label": label,
            "reason": "" if label else outcome, "image_id": image if label else "",
            "deciding": story.deciding,
        }
    )  # fmt: skip
    if continues:
        day = next(d for code, _, d, _ in visits if code == "m72")
        archive.image(ptid, "MPRAGE", day, 3.0)
        state = next(dx for code, dx, _, _ in visits if code == "m72")
        # An MCI of ADNI-2 is seen 36 months later (m108), so that only "duplicate" is left.
        truth.append(
            {
                "subject_id": subject, "cohort": "ADNI2", "story": "continues",
                "label": "", "image_id": "", "deciding": "",
                "reason": "group left out" if story.dx_bl == "SMC" else "duplicate",
                "state": state,
            }
        )  # fmt: skip


def _day(start: pd.Timestamp, code: str, rng: np.random.Generator) -> pd.Timestamp:
    months = 0 if code == "bl" else int(code[1:])
    late = 0 if months == 0 else int(rng.integers(-20, 60))
    return start + pd.Timedelta(days=round(months * 30.4375) + late)


def _scans(
    archive: Archive, ptid: str, start: pd.Timestamp, phase: str, way: str, label: str
) -> str:
    """Scans of one subject; returns the id of the one that must be chosen ("" if none)."""
    tesla = 1.5 if phase == "ADNI1" else 3.0
    name = {"ADNI1": "MP-RAGE", "ADNI3": "Accelerated Sagittal MPRAGE"}.get(phase, "MPRAGE")
    near = start + pd.Timedelta(days=int(archive.rng.integers(-40, 20)))
    if way == "none":
        return ""
    archive.image(ptid, "3-plane localizer", near, tesla)
    if way == "late":
        archive.image(ptid, name, start + pd.Timedelta(days=200), tesla)
        return ""
    if way == "other-field":
        archive.image(ptid, name, near, 4.5 - tesla)
        return ""
    if way == "unusable":
        archive.image(ptid, name, near, tesla, grade=4)
        return ""
    if way == "listed":
        archive.image(ptid, name, near, tesla, file=False)
        return ""
    steps = "MPR; GradWarp; B1 Correction; N3; Scaled"
    if way == "processed":
        archive.image(ptid, steps, near, tesla, kind="Processed")
        return ""
    if way == "failed-first":
        archive.image(ptid, name, near, tesla, passed=False)
        return archive.image(ptid, f"{name} REPEAT", near, tesla, passed=True, label=label)
    if way == "repeat":
        archive.image(ptid, f"{name} REPEAT", near, tesla)
    if phase in ("ADNIGO", "ADNI2"):
        archive.image(ptid, "Accelerated SAG IR-SPGR", near, tesla)
    best = archive.image(ptid, name, near, tesla, label=label)
    archive.image(ptid, steps, near, tesla, kind="Processed")
    if phase == "ADNI1":
        archive.image(ptid, name, near, 3.0)
    archive.image(ptid, name, start + pd.Timedelta(days=75), tesla)
    return best


AIBL_STORIES = (
    Story("ad", "", "bl=3 m18=3", "AD"),
    Story("cn", "", "bl=1 m18=1 m36=1", "CN"),
    Story("cn-3t", "", "bl=1", "CN", "both-fields"),
    Story("cn-undated", "", "bl=1", "CN", "undated"),
    Story("pmci", "", "bl=2 m18=3", "pMCI", deciding="bl=MCI m18=AD"),
    Story("smci", "", "bl=2 m18=2 m36=2", "sMCI", deciding="bl=MCI m36=MCI"),
    Story("short", "", "bl=2 m18=2 m36=-4", "follow-up too short"),
    Story("undiagnosed", "", "bl=-4 m18=1", "no diagnosis"),
    Story("unscanned", "", "bl=3", "no scan", "none"),
    Story("no-baseline", "", "m18=1", "no baseline"),
)


def write_aibl(out: Path, subjects: int, seed: int, head: Head = lambda *_: None) -> pd.DataFrame:
    """Write an AIBL-like download; returns the truth, one row a subject."""
    rng = generator(seed, "generated AIBL")
    archive = Archive(out / "images", rng, head, number=300000)
    names = ("pdxconv", "neurobat", "ptdemog", "mrimeta", "mri3meta", "mmse", "cdr", "apoeres")
    rows: dict[str, list[dict]] = {name: [] for name in names}
    truth = []
    for number in range(subjects):
        story = AIBL_STORIES[number % len(AIBL_STORIES)]
        rid = 3 + 2 * number
        start = pd.Timestamp(2007, 1, 1) + pd.Timedelta(days=int(rng.integers(0, 700)))
        rows["ptdemog"].append(
            {"RID": rid, "VISCODE": "bl", "PTDOB": f"/{int(rng.integers(1922, 1948))}",
             "PTGENDER": int(rng.integers(1, 3)), "SITEID": 1}
        )  # fmt: skip
        rows["apoeres"].append(
            {"RID": rid, "VISCODE": "bl", "APGEN1": int(rng.integers(2, 5)), "APGEN2": -4}
        )
        for code, dx in (v.split("=") for v in story.visits.split()):
            day = _day(start, code, rng)
            key = {"RID": rid, "VISCODE": code}
            # Without its own date the baseline has that of the scan, or none at all.
            dated = story.name not in ("cn-3t", "cn-undated") or code != "bl"
            rows["pdxconv"].append({**key, "DXCURREN": dx})
            rows["neurobat"].append({**key, "EXAMDATE": f"{day:%m/%d/%Y}" if dated else "-4"})
            rows["mmse"].append({**key, "MMSCORE": int(rng.integers(15, 31))})
            rows["cdr"].append({**key, "CDGLOBAL": float(rng.choice([0, 0.5, 1, -4]))})
        label = story.outcome if story.outcome in ("AD", "CN", "pMCI", "sMCI") else ""
        archive.cohort = "AIBL"
        image = _aibl_scans(archive, rows, rid, start, story.scans, label)
        truth.append(
            {
                "subject_id": f"sub-AIBL{rid}", "cohort": "AIBL", "story": story.name,
                "label": label, "reason": "" if label else story.outcome,
                "image_id": image if label else "", "deciding": story.deciding,
            }
        )  # fmt: skip
    tables = out / "tables"
    tables.mkdir(parents=True)
    for name, content in rows.items():
        frame = pd.DataFrame(content)
        if not content:
            frame = pd.DataFrame(columns=["RID", "VISCODE", "EXAMDATE"])
        frame.sample(frac=1, random_state=seed).to_csv(
            tables / f"aibl_{name}_01-Jun-2018.csv", index=False
        )
    frame = pd.DataFrame(truth)
    frame.to_csv(out / "truth.csv", index=False)
    return frame


def _aibl_scans(
    archive: Archive, rows: dict, rid: int, start: pd.Timestamp, way: str, label: str
) -> str:
    if way == "none":
        return ""
    table, tesla = ("mri3meta", 3.0) if rid % 4 == 1 else ("mrimeta", 1.5)
    near = start + pd.Timedelta(days=int(archive.rng.integers(0, 50)))
    if way == "both-fields":
        rows["mrimeta"].append(
            {"RID": rid, "VISCODE": "bl", "EXAMDATE": f"{near + pd.Timedelta(days=20):%m/%d/%Y}"}
        )
        archive.image(
            str(rid), "MPRAGE ADNI confirmed", near + pd.Timedelta(days=20), 1.5, label=label
        )
        table = "mri3meta"
    scanned = "-4" if way == "undated" else f"{near:%m/%d/%Y}"
    rows[table].append({"RID": rid, "VISCODE": "bl", "EXAMDATE": scanned})
    archive.image(str(rid), "MPRAGE ADNI confirmed RPT", near, tesla, visit="Base")
    best = archive.image(str(rid), "MPRAGE ADNI confirmed", near, tesla, visit="1", label=label)
    if way == "undated":
        # Its date is known from the folder alone, its visit from the search table.
        pd.DataFrame(archive.searched).to_csv(archive.folder / "idaSearch.csv", index=False)
    return best


def _frame(rows: list[dict], columns: str) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=columns.split())


def heads_of(table: Path) -> Head:
    """Images of a cohort table by cohort and label, each used once; None when there is no more."""
    frame = pd.read_csv(table, dtype=str)
    waiting = {
        key: [table.parent / image for image in rows["image"]]
        for key, rows in frame.groupby(["cohort", "diagnosis"])
    }

    def head(cohort: str, label: str) -> Path | None:
        return waiting[cohort, label].pop(0) if waiting.get((cohort, label)) else None

    return head


def main() -> None:
    """Write both downloads."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--subjects", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--heads", type=Path)
    args = parser.parse_args()
    head = heads_of(args.heads) if args.heads else (lambda *_: None)
    for name, write in (("adni", write_adni), ("aibl", write_aibl)):
        truth = write(args.out / name, args.subjects, args.seed, head)
        print(f"{args.out / name}: {len(truth)} subjects in cohorts")


if __name__ == "__main__":
    main()
