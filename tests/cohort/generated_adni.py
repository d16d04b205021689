"""An ADNI-like download of made-up subjects; see `generated_download`."""

from pathlib import Path

import pandas as pd

from cohort.generated_archive import Archive, Head, Story, day_of
from mri_jax.seeding import generator

ADNIMERGE_COLUMNS = (
    "RID,COLPROT,ORIGPROT,PTID,SITE,VISCODE,EXAMDATE,DX_bl,AGE,PTGENDER,PTEDUCAT,PTETHCAT,PTRACCAT,"
    "PTMARRY,APOE4,FDG,PIB,AV45,FBB,ABETA,TAU,PTAU,CDRSB,ADAS11,ADAS13,ADASQ4,MMSE,"
    "RAVLT_immediate,FAQ,MOCA,FLDSTRENG,FSVERSION,IMAGEUID,Ventricles,Hippocampus,WholeBrain,ICV,"
    "DX,mPACCdigit,EXAMDATE_bl,CDRSB_bl,MMSE_bl,Years_bl,Month_bl,Month,M,update_stamp"
)
PHASES = {"ADNI1": 2006, "ADNIGO": 2010, "ADNI2": 2012, "ADNI3": 2018}


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


def write_adni(out: Path, subjects: int, seed: int, head: Head = lambda *_: None) -> pd.DataFrame:
    """Write an ADNI-like download; returns the truth, one row a (subject, cohort)."""
    rng = generator(seed, "generated ADNI")
    archive = Archive(out / "images", rng, head)
    rows: list[dict] = []
    truth: list[dict] = []
    for number in range(subjects):
        story = STORIES[number % len(STORIES)]
        phases = story.phases or tuple(PHASES)
        phase = phases[(number // len(STORIES)) % len(phases)]
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
    visits = [(code, dx, day_of(start, code, rng), phase) for code, dx in later]
    # Every third ADNI-1 subject continues in ADNI-2: the same person, five or more years later.
    continues = phase == "ADNI1" and number % 3 == 0 and story.scans == "usual"
    if continues:
        state = next((dx for _, dx in reversed(later) if dx != "-"), "CN")
        visits.append(("m72", state, day_of(start, "m72", rng), "ADNI2"))
        visits.append(("m108", state, day_of(start, "m108", rng), "ADNI2"))
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
    if phase == "ADNI3":
        # The same scan before the scanner corrected its distortion.
        archive.image(ptid, f"{name}_ND", near, tesla)
    best = archive.image(ptid, name, near, tesla, label=label)
    archive.image(ptid, steps, near, tesla, kind="Processed")
    if phase == "ADNI1":
        archive.image(ptid, name, near, 3.0)
    archive.image(ptid, name, start + pd.Timedelta(days=75), tesla)
    return best


def _frame(rows: list[dict], columns: str) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=columns.split())
