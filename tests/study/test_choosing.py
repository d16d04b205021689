"""Forms of conv layers chosen by measurement: kept, reused, on record, the same when resumed."""

from dataclasses import asdict
from itertools import count

import jax
import pytest

from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.models import measuring
from mri_jax.models.chosen import Choice
from mri_jax.models.measuring import Prepared
from mri_jax.runs import provenance
from mri_jax.study.running import Running
from mri_jax.training.loop import Interrupted
from mri_jax.training.wave import Wave
from tests.launching import launch
from tests.small_run import make_run
from tests.tiny import make_cohorts

SMALL = {"finetune": {"layers": ()}, "train": {"folds": 2}}


def uncompiled(layer, forms, device):
    return Prepared(layer, forms, {}, RuntimeError(), None)


@pytest.fixture
def prescribed(monkeypatch):
    """Let nothing be measured; returns the forms to take, first layer first, and who asked."""
    forms, asked = ["reference", "xla"], []

    def found(prepared, device, tried):
        layer = prepared.layer
        form = forms[min(layer.channels, 2) - 1]
        asked.append(layer)
        tried(form)
        refused = {} if layer.channels == 1 else {"lanes": "out of memory"}
        return Choice(layer, form, {"xla": 2e-3, form: 1e-3}, refused)

    monkeypatch.setattr(measuring, "prepared", uncompiled)
    monkeypatch.setattr(measuring, "measured", found)
    return forms, asked


def study(folder, stop=None, **more):
    """Run a study with measured forms, as far as ``stop`` questions; returns what it said."""
    calls, said = count(), []
    wave = Wave(tuple(jax.local_devices()[:1]), forms=more.pop("forms", "measure"))
    interrupted = (lambda: next(calls) > stop) if stop else (lambda: False)
    how = Running(wave, interrupted=interrupted, say=said.append, report=False)
    if stop:
        with pytest.raises(Interrupted):
            make_run(folder, how=how, **SMALL, **more)
    else:
        make_run(folder, how=how, **SMALL, **more)
    return said


def test_a_choice_is_made_once_and_stays_when_the_study_is_resumed(tmp_path, prescribed):
    forms, asked = prescribed
    said = study(tmp_path, stop=4)
    assert [(x.channels, x.filters, x.size, x.batch) for x in asked] == [
        (1, 4, (9, 12, 10), 2),
        (4, 8, (4, 6, 5), 2),
    ]
    assert "conv layer of 4 to 8 channels at 4 x 6 x 5: without form lanes: out of memory" in said
    line = (
        "conv layers of cnn2-w1, measured on cpu: conv1 reference, conv2 xla; 2 ms a step (xla 3)"
    )
    assert said.count(line) == 1
    (saved,) = (tmp_path / "stages").glob("source-*/training")
    notes = [files.read_json(note)["forms"] for note in saved.glob("*/state.json")]
    assert set(notes) == {"reference,xla"}
    made = provenance.read(tmp_path / "run")
    assert (made.forms, made.kernels) == ("measure", None)
    assert [each.form for each in made.choices] == ["reference", "xla"]
    assert made.choices[1].refused == {"lanes": "out of memory"}
    assert made.choices[0].seconds == {"xla": 2e-3, "reference": 1e-3}
    kept = sorted((tmp_path / "stages" / "forms").glob("*.json"))
    assert [files.read_json(path)["value"] for path in kept] == [
        files.read_json(tmp_path / "run" / "provenance.json")["choices"][i] for i in (0, 1)
    ]

    # Another measurement would choose otherwise; it is not made, and the training goes on.
    forms[:], before = ["xla", "reference"], len(asked)
    said = study(tmp_path)
    assert len(asked) == before
    assert line in said
    assert not any("starts anew" in told for told in said)
    assert provenance.read(tmp_path / "run").choices == made.choices
    # Of a finished study what was chosen stays on record, though nothing is left to compute.
    study(tmp_path)
    assert provenance.read(tmp_path / "run").choices == made.choices


def test_a_damaged_choice_is_made_again_and_a_training_of_other_forms_anew(tmp_path, prescribed):
    forms, asked = prescribed
    study(tmp_path, stop=4)
    first, second = sorted((tmp_path / "stages" / "forms").glob("*.json"))
    second.write_text(second.read_text().replace('"xla"', '"lanes"'))
    forms[1] = "native"
    said = study(tmp_path, stop=4)
    assert [x.channels for x in asked] == [1, 4, 4]
    line = f"{second}: is not as it was written (its SHA-256 differs); the forms of this layer are "
    assert said.count(line + "measured again") == 1
    (saved,) = (tmp_path / "stages").glob("source-*/training")
    assert (
        f"{saved}: was begun with measured forms (reference,xla), and goes on only with these; "
        "with measured forms (reference,native) this network starts anew"
    ) in said
    assert files.read_json(first)["value"]["form"] == "reference"


def test_a_study_that_no_form_can_compute_leaves_nothing(tmp_path, monkeypatch):
    def none(prepared, device, tried):
        raise UserError("--forms=measure: a conv layer cannot be computed")

    monkeypatch.setattr(measuring, "prepared", uncompiled)
    monkeypatch.setattr(measuring, "measured", none)
    wave = Wave(tuple(jax.local_devices()[:1]), forms="measure")
    with pytest.raises(UserError, match="cannot be computed"):
        make_run(tmp_path, how=Running(wave, report=False), **SMALL)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "stages").exists()


def test_one_form_in_all_layers_is_that_form(tmp_path, prescribed):
    forms, _ = prescribed
    forms[:] = ["xla", "xla"]
    study(tmp_path, stop=4)
    # A training that was begun with what all layers have goes on with it.
    said = study(tmp_path, stop=4, forms="xla")
    assert not any("starts anew" in told for told in said)


def test_the_command_measures_where_it_is_asked_to(tmp_path):
    cohorts = make_cohorts(tmp_path, 6, ("ADNI1", "ADNI2"))
    few = {"train.folds": 2, "train.min_epochs": 1, "train.max_epochs": 1, "finetune.layers": "()"}
    fields = [f"--config.{name}={value}" for name, value in few.items()]
    done = launch(
        cohorts, tmp_path / "run", "--config.targets=('ADNI2',)", "--forms=measure", *fields
    )
    assert done.returncode == 0, done.stderr
    assert "in the forms that are the fastest here" in done.stdout
    assert "conv layers of cnn2-w1, measured on cpu: conv1" in done.stdout
    assert "measuring conv layers of cnn2-w1: " in done.stderr
    made = provenance.read(tmp_path / "run")
    assert made.forms == "measure"
    kept = sorted((tmp_path / "stages" / "forms").glob("*.json"))
    assert len(kept) == 2
    for choice in made.choices:
        assert choice.form == min(choice.seconds, key=choice.seconds.get)
        assert choice.refused == {}
        assert asdict(choice)["layer"]["device"] == "cpu"
