"""The examples of docstrings (``>>>``), run as they stand beside a finished run."""

import doctest
import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import mri_jax

PACKAGE = Path(mri_jax.__file__).parent
MODULES = tuple(
    ".".join(("mri_jax", *path.relative_to(PACKAGE).with_suffix("").parts))
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name, small_run, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "finetune_high-smoke").symlink_to(small_run)
    (tmp_path / "cohort.csv").symlink_to(small_run.parent / "data" / "cohort.csv")
    (tmp_path / "STORE").symlink_to(small_run.parent / "data" / "store")
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(import_module(name))
    assert found.attempted > 0
    assert found.failed == 0


def test_the_lines_of_python_in_the_docs_run(small_run, tmp_path, monkeypatch, capsys):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "finetune_high-demo").symlink_to(small_run)
    monkeypatch.chdir(tmp_path)
    page = (PACKAGE.parent / "docs" / "results.md").read_text(encoding="utf-8")
    lines = re.search(r"## Networks in Python\n\n```python\n(.*?)```", page, re.S)[1]
    exec(lines.replace("cnn5-w1", "cnn2-w1"), {})
    said = capsys.readouterr().out
    assert "conv1 " in said
    every, one = (text.splitlines() for text in said[said.index("[[") :].split("]]", 1))
    first = np.array(every[0].strip("[ ]").split(), float)
    assert first.sum() == pytest.approx(1.0, abs=1e-4)
    # The volume that was read and normalised by hand is the first of those held out.
    np.testing.assert_allclose(np.array(one[1].strip("[ ]").split(), float), first, atol=1e-4)


def test_what_a_notebook_uses_has_an_example():
    used = {
        "mri_jax.cohort.table", "mri_jax.evaluation.metrics", "mri_jax.models.cnn",
        "mri_jax.runs.results", "mri_jax.training.checkpoints", "mri_jax.volumes.normalise",
        "mri_jax.volumes.store",
    }  # fmt: skip
    assert used <= set(MODULES)
