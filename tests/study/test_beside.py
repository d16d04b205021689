"""How many networks a device trains side by side: measured once, kept, on record."""

import jax
import numpy as np
import pandas as pd
import pytest

from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.models import measuring
from mri_jax.models.chosen import Choice
from mri_jax.models.measuring import Prepared
from mri_jax.runs import provenance
from mri_jax.study import beside
from mri_jax.study.running import Running
from mri_jax.training import cost
from mri_jax.training.cost import StepCost
from mri_jax.training.loop import Interrupted
from mri_jax.training.wave import Wave
from tests.compiling import quickly
from tests.small_run import make_run
from tests.training.small import SHAPE, settings

THREE = {"finetune": {"layers": ()}, "train": {"folds": 3, "min_epochs": 2, "max_epochs": 2}}


@pytest.fixture
def timed(monkeypatch):
    """Prescribes the milliseconds of a step by how many train; returns them, and who was asked."""
    seconds, asked = {1: 4.0, 2: 5.0, 3: 6.0}, []

    def of_step(fit, shape, wave, room):
        asked.append(wave.folds)
        if wave.folds not in seconds:
            if wave.folds == 2:
                raise UserError("takes 9 GiB of 8 GiB")
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.")
        return StepCost(first=1.0, again=seconds[wave.folds] / 1e3, bytes=0)

    def form(prepared, device, tried):
        return Choice(prepared.layer, "xla", {"xla": 10.0})

    monkeypatch.setattr(cost, "of_step", of_step)
    monkeypatch.setattr(measuring, "prepared", lambda *about, device: uncompiled(*about))
    monkeypatch.setattr(measuring, "measured", form)
    return seconds, asked


def uncompiled(layer, forms):
    return Prepared(layer, forms, {}, RuntimeError(), None)


def study(folder, stop=False, forms="measure"):
    """Runs three source networks, as far as asked; returns what was said."""
    said = []
    wave = Wave(tuple(jax.local_devices()[:1]), forms=forms)
    how = Running(wave, interrupted=lambda: stop, say=said.append, report=False)
    if stop:
        with pytest.raises(Interrupted):
            make_run(folder, how=how, **THREE)
    else:
        make_run(folder, how=how, **THREE)
    return said


def recorded(folder):
    return provenance.read(folder / "run").beside


def test_the_choice_is_made_once_and_stays_when_the_study_is_resumed(tmp_path, timed):
    seconds, asked = timed
    said = study(tmp_path, stop=True)
    assert asked == [1, 2, 3]
    line = "source cnn2-w1 on each device: 3 side by side (a step of 1: 4 ms, 2: 5 ms, 3: 6 ms)"
    assert line in said
    (made,) = recorded(tmp_path)
    assert (made.networks, made.number, made.count) == ("source cnn2-w1", 3, 3)
    assert made.seconds == {"1": 4e-3, "2": 5e-3, "3": 6e-3}
    (kept,) = (tmp_path / "stages" / "forms").glob("beside-*.json")
    assert files.read_json(kept)["value"]["count"] == 3
    # All three were begun together, and none has ended.
    assert len(list((tmp_path / "stages").glob("source-*/training"))) == 3

    # Another measurement would choose otherwise; it is not made.
    seconds[1], before = 0.1, len(asked)
    assert line in study(tmp_path)
    assert len(asked) == before
    assert recorded(tmp_path) == (made,)

    # Three together predict what three one by one do.
    study(tmp_path / "alone", forms="xla")
    assert recorded(tmp_path / "alone") == ()
    together, alone = (
        pd.read_csv(folder / "run" / "predictions.csv") for folder in (tmp_path, tmp_path / "alone")
    )
    assert alone["logit_1"].std() > 1e-3
    np.testing.assert_allclose(together["logit_1"], alone["logit_1"], atol=1e-5)
    damaged = kept.read_text().replace('"count": 3', '"count": 2')
    kept.write_text(damaged)
    line = f"{kept}: is not as it was written (its SHA-256 differs); how many networks train side "
    assert line + "by side is measured again" in study(tmp_path)
    assert recorded(tmp_path) == ()  # nothing is left to train


@pytest.mark.parametrize(
    ("milliseconds", "asked", "count", "refused"),
    [
        # Two take as long as one after another: no more are tried.
        ({1: 4.0, 2: 8.0}, [1, 2], 1, {}),
        # Two and then one take 2 x 4.5 ms, three at a time more.
        ({1: 4.0, 2: 4.5, 3: 9.5}, [1, 2, 3], 2, {}),
        ({1: 4.0, 2: 5.0}, [1, 2, 3], 2, {"3": "out of memory"}),
        ({1: 4.0}, [1, 2], 1, {"2": "takes 9 GiB of 8 GiB"}),
        ({}, [1], 1, {"1": "out of memory"}),
    ],
)
def test_the_number_that_takes_least_in_all_is_taken(
    tmp_path, timed, milliseconds, asked, count, refused
):
    seconds, told = timed
    seconds.clear()
    seconds.update(milliseconds)
    study(tmp_path, stop=True)
    assert told == asked
    (made,) = recorded(tmp_path)
    assert (made.count, made.refused) == (count, refused)


def test_what_takes_less_than_a_measurement_is_not_measured(tmp_path, timed, monkeypatch):
    # 3 networks of 2 epochs: some tens of steps of two layers, which "take" ten seconds each.
    monkeypatch.setattr(beside, "LEAST_SECONDS", 1e4)
    study(tmp_path, stop=True)
    assert timed[1] == []
    assert recorded(tmp_path) == ()


def test_steps_of_several_networks_are_timed_where_there_is_room(tmp_path):
    wave = Wave(tuple(jax.local_devices()[:1]), forms="xla")
    with quickly():
        one, two = (cost.of_step(settings(), SHAPE, wave.of(n), 1 << 30) for n in (1, 2))
        assert min(one.again, two.again) > 0
        assert 1.5 * one.bytes < two.bytes < 3 * one.bytes
        # Room for the steps is none for validation, which sees more volumes at a time.
        with pytest.raises(UserError, match=r"takes .* of 0.00 GiB"):
            cost.of_step(settings(), SHAPE, wave, one.bytes)
