"""A study that was begun with one form of the conv layers and goes on with another."""

from itertools import count

import jax
import pytest

from mri_jax.runs import provenance
from mri_jax.study.running import Running
from mri_jax.training.loop import Interrupted
from mri_jax.training.wave import Wave
from tests.small_run import make_run


def begin(folder, forms):
    """Begin a study, stop in its first training, and return what it said."""
    calls, said = count(), []
    wave = Wave(tuple(jax.local_devices()[:1]), forms=forms)
    how = Running(wave, interrupted=lambda: next(calls) > 4, say=said.append, report=False)
    with pytest.raises(Interrupted):
        make_run(folder, how=how, finetune={"layers": ()}, train={"folds": 2})
    return said


def test_forms_are_on_record_and_a_training_goes_on_only_with_its_own(tmp_path):
    begin(tmp_path, "reference")
    made = provenance.read(tmp_path / "run")
    assert (made.forms, made.kernels) == ("reference", None)
    (saved,) = (tmp_path / "stages").glob("source-*/training")
    (told,) = (line for line in begin(tmp_path, "xla") if "--forms" in line)
    assert told == (
        f"{saved}: was begun with --forms=reference, and goes on only with these; with --forms=xla "
        "this network starts anew"
    )
    assert provenance.read(tmp_path / "run").forms == "xla"
