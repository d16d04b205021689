"""How many networks a device trains side by side: measured once, kept, on record."""

import jax
import numpy as np
import pandas as pd
import pytest

from mri_jax import files
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
from tests.small_run import make_run

FIVE = {"finetune": {"layers": ()}, "train": {"folds": 5, "min_epochs": 2, "max_epochs": 2}}


@pytest.fixture
def timed(monkeypatch):
    """Prescribes the milliseconds of a step by how many train; returns them, and who was asked."""
    seconds, asked = {1: 4.0, 2: 5.0, 4: 8.0, 5: 9.9}, []

    def of_step(fit, shape, wave, room):
        asked.append(wave.folds)
        if wave.folds not in seconds:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.")
        return StepCost(first=1.0, again=seconds[wave.folds] / 1e3, bytes=0)

    def form(prepared, device, tried):
        return Choice(prepared.layer, "xla", {"xla": 1.0})

    monkeypatch.setattr(cost, "of_step", of_step)
    monkeypatch.setattr(measuring, "prepared", lambda *about, device: uncompiled(*about))
    monkeypatch.setattr(measuring, "measured", form)
    return seconds, asked


def uncompiled(layer, forms):
    return Prepared(layer, forms, {}, RuntimeError(), None)


def study(folder, stop=False, forms="measure"):
    """Runs five source networks, as far as asked; returns what was said."""
    said = []
    wave = Wave(tuple(jax.local_devices()[:1]), forms=forms)
    how = Running(wave, interrupted=lambda: stop, say=said.append, report=False)
    if stop:
        with pytest.raises(Interrupted):
            make_run(folder, how=how, **FIVE)
    else:
        make_run(folder, how=how, **FIVE)
    return said


def recorded(folder):
    return provenance.read(folder / "run").beside


def test_the_choice_is_made_once_and_stays_when_the_study_is_resumed(tmp_path, timed):
    seconds, asked = timed
    said = study(tmp_path, stop=True)
    assert asked == [1, 2, 4, 5]
    line = (
        "source cnn2-w1 on each device: 5 side by side "
        "(a step of 1: 4 ms, 2: 5 ms, 4: 8 ms, 5: 9.9 ms)"
    )
    assert line in said
    (made,) = recorded(tmp_path)
    assert (made.networks, made.number, made.count) == ("source cnn2-w1", 5, 5)
    assert made.seconds == {"1": 4e-3, "2": 5e-3, "4": 8e-3, "5": 9.9e-3}
    (kept,) = (tmp_path / "stages" / "forms").glob("beside-*.json")
    assert files.read_json(kept)["value"]["count"] == 5
    # All five were begun together, and none has ended.
    assert len(list((tmp_path / "stages").glob("source-*/training"))) == 5

    # Another measurement would choose otherwise; it is not made.
    seconds[1], before = 0.1, len(asked)
    assert line in study(tmp_path)
    assert len(asked) == before
    assert recorded(tmp_path) == (made,)

    # Five together predict what five one by one do.
    study(tmp_path / "alone", forms="xla")
    assert recorded(tmp_path / "alone") == ()
    together, alone = (
        pd.read_csv(folder / "run" / "predictions.csv") for folder in (tmp_path, tmp_path / "alone")
    )
    assert alone["logit_1"].std() > 1e-3
    np.testing.assert_allclose(together["logit_1"], alone["logit_1"], atol=1e-5)
    damaged = kept.read_text().replace('"count": 5', '"count": 4')
    kept.write_text(damaged)
    line = f"{kept}: is not as it was written (its SHA-256 differs); how many networks train side "
    assert line + "by side is measured again" in study(tmp_path)
    assert recorded(tmp_path) == ()  # nothing is left to train


@pytest.mark.parametrize(
    ("milliseconds", "asked", "count", "refused"),
    [
        # Two take as long as one after another: no more are tried.
        ({1: 4.0, 2: 8.0}, [1, 2], 1, {}),
        # Four at a time leave one: 2 x 7 ms are more than 3 x 4.5 ms.
        ({1: 4.0, 2: 4.5, 4: 7.0, 5: 14.0}, [1, 2, 4, 5], 2, {}),
        ({1: 4.0, 2: 5.0}, [1, 2, 4], 2, {"4": "out of memory"}),
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
    # 5 networks of 2 epochs: some hundred steps of two layers, which "take" a second each.
    monkeypatch.setattr(beside, "LEAST_SECONDS", 1e4)
    study(tmp_path, stop=True)
    assert timed[1] == []
    assert recorded(tmp_path) == ()


def test_steps_of_several_networks_are_timed_where_there_is_room(tmp_path):
    from tests.training.small import SHAPE, settings

    wave = Wave(tuple(jax.local_devices()[:1]), forms="xla")
    one, two = (cost.of_step(settings(), SHAPE, wave.of(n), 1 << 30) for n in (1, 2))
    assert min(one.again, two.again) > 0
    assert 1.5 * one.bytes < two.bytes < 3 * one.bytes
    with pytest.raises(cost.UserError, match=r"takes .* of 0.00 GiB"):
        cost.of_step(settings(), SHAPE, wave, 1000)
