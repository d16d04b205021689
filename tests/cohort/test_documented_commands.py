"""The six commands of docs/adni.md and docs/aibl.md, run as they are written there."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from cohort.generated_adni import write_adni
from cohort.generated_aibl import write_aibl
from mri_jax.cli import main
from mri_jax.cohort.table import read_table
from mri_jax.volumes.resampling import coarsen
from mri_jax.volumes.store import VolumeStore
from mri_jax.volumes.templates import load_template

DOCS = Path(__file__).resolve().parents[2] / "docs"


def commands_of(page: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    block = re.search(r"## Six commands\n\n```\n(.*?)```", text, re.S)
    lines = block[1].splitlines()
    assert len(lines) == 6
    return lines


def run(line: str) -> int:
    """One line of a shell; our own command in this process, which is faster."""
    words = shlex.split(line)
    if words[:3] == ["python", "-m", "mri_jax"]:
        return main(words[3:])
    return subprocess.run(words, check=False, capture_output=True).returncode


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """The template's head at 4 mm, whole, as a file."""
    template = load_template()
    small = coarsen(template.coarse[0], 4.0)
    made = nib.Nifti1Image(np.round(small.data).astype(np.int16), None)
    made.set_sform(small.affine, code=1)
    path = tmp_path_factory.mktemp("head") / "head.nii"
    nib.save(made, path)
    return path


def zipped(made: Path, into: Path, tables: str, images: str) -> None:
    into.mkdir()
    shutil.make_archive(str(into / tables), "zip", made / "tables")
    shutil.make_archive(str(into / images), "zip", made / "images")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unzip") is None, reason="needs unzip")
def test_the_commands_for_adni_and_aibl(head, tmp_path, monkeypatch, capsys):
    # One subject with a head, the others with noise, which preprocessing refuses.
    first = iter([head])
    write_adni(tmp_path / "adni", 25, 1, lambda _, label: next(first, None) if label else None)
    write_aibl(tmp_path / "aibl", 10, 1)
    zipped(tmp_path / "adni", tmp_path / "one", "Study_Data", "ADNI_T1_1")
    monkeypatch.chdir(tmp_path / "one")
    *before, preprocess = commands_of("adni.md")
    assert [run(line) for line in before] == [0] * 5
    assert run(preprocess) == 1
    table, failed = read_table(Path("cohort.csv")), pd.read_csv("STORE/failed.csv")
    assert len(VolumeStore("STORE")) == 1
    assert len(failed) == len(table) - 1
    assert failed["reason"].str.contains("a localiser or a slab").all()

    zipped(tmp_path / "aibl", tmp_path / "two", "Data_AIBL", "AIBL_T1_1")
    monkeypatch.chdir(tmp_path / "two")
    shutil.copytree(tmp_path / "one", tmp_path / "two" / "adni")
    adni = "python -m mri_jax cohort adni --tables adni/tables --images adni/images --out adni.csv"
    assert run(adni) == 0
    *before, preprocess = commands_of("aibl.md")
    assert [run(line) for line in before] == [0] * 5
    assert set(read_table(Path("cohort.csv"))["cohort"]) >= {"ADNI1", "AIBL"}
    assert run(preprocess) == 1
    assert len(VolumeStore("STORE")) == 1
    assert "no problem found" in capsys.readouterr().out
