"""What is damaged: small inputs of every door, made once and copied for every case."""

import functools
import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from configs.finetune_high import get_config
from mri_jax.volumes.descriptors import describe
from mri_jax.volumes.pipeline import PreprocessSettings, preprocess_scan
from mri_jax.volumes.resampling import Image, coarsen
from mri_jax.volumes.templates import load_template
from tests.small_run import make_run
from tests.tiny import SMALL_MODEL, make_cohorts


def make(folder: Path) -> None:
    """Make what `MAKERS` names, each in a folder of its own under ``folder``."""
    for name, make_one in MAKERS.items():
        if not (folder / name).exists():
            new = folder / f"{name}.new"
            shutil.rmtree(new, ignore_errors=True)
            make_one(new)
            new.rename(folder / name)


def study_config(folder: Path) -> dict[str, Any]:
    """The config of a study of the cohorts in a folder."""
    config = get_config("smoke").to_dict()
    config["data"] |= {"cohort": str(folder / "cohort.csv"), "store": str(folder / "store")}
    config["model"] |= SMALL_MODEL
    config["targets"] = ("ADNI2",)
    config["train"] |= {"folds": 3, "batch": 4}
    config["finetune"] |= {"inner_folds": 0, "parts": 3}
    return config


# What doors and commands import when they are first asked.
_NEEDED = (
    *("commands.cohort", "commands.preprocess", "commands.report", "commands.predict"),
    *("evaluation.linear", "prediction.folder", "reporting.page", "runs.trained", "study.run"),
)


@functools.cache
def warm(base: Path) -> None:
    """Import and preprocess a scan here, so that children inherit what all of them need."""
    for name in _NEEDED:
        importlib.import_module(f"mri_jax.{name}")
    settings = PreprocessSettings(grid="demo", n4=False, brain="mask")
    scan, mask = (base / "scans" / kind / "sub-01_T1w.nii" for kind in ("scans", "masks"))
    result = preprocess_scan(scan, settings, mask)
    describe(np.asarray(result.volume, np.float16), result.mask)


def _cohorts(folder: Path) -> None:
    make_cohorts(folder, subjects=6, cohorts=("ADNI1", "ADNI2"))
    table = pd.read_csv(folder / "cohort.csv", dtype=str, keep_default_na=False)
    table["site"] = [f"site {i % 3}" for i in range(len(table))]
    table.to_csv(folder / "cohort.csv", index=False, lineterminator="\n")


def _head() -> Image:
    template = load_template()
    return coarsen(Image(template.head, template.affine), 4.0)


def write_head(path: Path, seed: int) -> None:
    """A head of 4 mm with noise of its own, as plain NIfTI."""
    head, draw = _head(), np.random.default_rng(seed)
    data = head.data * (1 + 0.05 * draw.standard_normal(head.data.shape)) * (head.data > 20)
    made = nib.Nifti1Image(np.asarray(np.clip(data, 0, 3e4), np.int16), head.affine)
    made.set_qform(head.affine, code=1)
    made.set_sform(head.affine, code=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(made, path)


def _bids(folder: Path) -> None:
    people = []
    for i in range(6):
        name = f"sub-{i + 1:02d}"
        people.append((name, 60 + i, "FM"[i % 2], ("AD", "CN")[i // 3]))
        place = folder / name / "ses-M00"
        write_head(place / "anat" / f"{name}_ses-M00_T1w.nii", i)
        side = {"EchoTime": 0.003, "Manufacturer": "SIMULATED", "MagneticFieldStrength": 3}
        path = place / "anat" / f"{name}_ses-M00_T1w.json"
        path.write_text(json.dumps(side), encoding="utf-8")
        text = "session_id\tage\nses-M00\t70\n"
        (folder / name / f"{name}_sessions.tsv").write_text(text, encoding="utf-8")
    columns = ["participant_id", "age", "sex", "diagnosis"]
    text = pd.DataFrame(people, columns=columns).to_csv(sep="\t", index=False, lineterminator="\n")
    (folder / "participants.tsv").write_text(text, encoding="utf-8")
    about = {"Name": "made", "BIDSVersion": "1.8.0"}
    (folder / "dataset_description.json").write_text(json.dumps(about), encoding="utf-8")


def _scans(folder: Path) -> None:
    write_head(folder / "scans" / "sub-01_T1w.nii", 1)
    template = load_template()
    mask = coarsen(Image(template.mask.astype(np.float32), template.affine), 4.0)
    head = nib.load(folder / "scans" / "sub-01_T1w.nii")
    made = nib.Nifti1Image((mask.data > 0.5).astype(np.uint8), head.affine)
    (folder / "masks").mkdir()
    nib.save(made, folder / "masks" / "sub-01_T1w.nii")
    text = "subject_id,session_id,cohort,image,mask\n"
    text += "sub-01,ses-1,SITE,scans/sub-01_T1w.nii,masks/sub-01_T1w.nii\n"
    (folder / "scans.csv").write_text(text, encoding="utf-8")


def _many(folder: Path) -> None:
    """Some scans with masks, and a store of the same grid."""
    _scans(folder)
    lines = ["subject_id,session_id,cohort,image,mask"]
    for i in range(3):
        write_head(folder / "scans" / f"sub-{i}_T1w.nii", i)
        lines.append(f"sub-{i},ses-1,SITE,scans/sub-{i}_T1w.nii,masks/sub-01_T1w.nii")
    (folder / "scans.csv").write_text("\n".join([*lines, ""]), encoding="utf-8")
    from tests.prediction import made as model

    model.store(folder / "store", count=6)


def _results(folder: Path) -> None:
    keep_config(make_run(folder))


def keep_config(run: Path) -> None:
    """Copy a run's config to where nothing is damaged."""
    shutil.copy(run / "config.json", run.parent / "config.json.kept")


def _model(folder: Path) -> None:
    from mri_jax.prediction import folder as models
    from tests.prediction import made as model

    folder.mkdir()
    models.save(model.model(), folder / "model")


MAKERS = {
    "table": _cohorts,
    "bids": _bids,
    "scans": _scans,
    "store": _cohorts,
    "many": _many,
    "results": _results,
    "model": _model,
}
