"""The examples of docstrings (``>>>``), run as they stand beside a finished run."""

import doctest
from importlib import import_module
from pathlib import Path

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


def test_what_a_notebook_uses_has_an_example():
    used = {
        "mri_jax.cohort.table", "mri_jax.evaluation.metrics", "mri_jax.models.cnn",
        "mri_jax.runs.results", "mri_jax.training.checkpoints", "mri_jax.volumes.normalise",
        "mri_jax.volumes.store",
    }  # fmt: skip
    assert used <= set(MODULES)
