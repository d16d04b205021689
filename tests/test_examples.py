"""The examples of docstrings (``>>>``), run as they stand beside a finished run."""

import doctest
from importlib import import_module

import pytest

MODULES = (
    "mri_jax.models.cnn",
    "mri_jax.models.spec",
    "mri_jax.models.summary",
    "mri_jax.runs.results",
    "mri_jax.runs.trained",
    "mri_jax.training.checkpoints",
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name, small_run, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "finetune_high-smoke").symlink_to(small_run)
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(import_module(name))
    assert found.attempted > 0
    assert found.failed == 0
