import importlib

import pytest

from mri_jax.errors import UserError
from mri_jax.study.settings import Study
from tests.conftest import ROOT

CONFIGS = sorted(p.stem for p in (ROOT / "configs").glob("*.py"))
PRESETS = ("demo", "dev", "paper", "smoke")


def config(name: str = "finetune_high", preset: str = "demo", **overrides: object) -> dict:
    found = importlib.import_module(f"configs.{name}").get_config(preset)
    with found.unlocked():
        for path, value in overrides.items():
            section, _, field = path.partition("__")
            if field:
                found[section][field] = value
            else:
                found[section] = value
    return found.to_dict()


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_is_a_study_in_every_preset(name, preset):
    study = Study.from_config(config(name, preset))
    assert study.name == name
    assert study.preset == preset
    assert len({run.name for run in study.runs}) == len(study.runs)
    if name != "base":
        assert f"--config=configs/{name}.py" in (ROOT / "configs" / f"{name}.py").read_text(
            encoding="utf-8"
        )


def test_the_paper_config_holds_every_variant_of_the_paper():
    names = [run.name for run in Study.from_config(config("paper", "paper")).runs]
    depth = ["cnn5-w1", "cnn7-w1", "cnn10-w1", "cnn12-w1", "cnn5-w2", "cnn5-w4", "cnn5-w5"]
    tasks = [f"CNN-{s}-w{w}" for w in (1, 4) for s in ("AD1", "AD2", "AD2S", "MCI")]
    assert names == depth + tasks


def test_the_paper_preset_states_what_the_paper_states():
    run = Study.from_config(config("baseline", "paper")).runs[0]
    assert run.train.batch == 2
    assert run.train.step.optimizer.learning_rate == 1e-4
    assert (run.train.stopping.min_epochs, run.train.stopping.max_epochs) == (30, 50)
    assert run.train.stopping.patience == 10
    assert run.folds == 5
    assert run.spec.dropout[:2] == (0.5, 0.5)
    assert run.spec.fc == (128, 64)


def test_adapting_statistics_is_left_out_where_nothing_is_frozen():
    study = Study.from_config(
        config(finetune__layers=("all", "high"), finetune__statistics=("keep", "adapt"))
    )
    stages = [tuning.stage for tuning in study.runs[0].finetuning.tunings]
    assert stages == ["tuned-all", "tuned-high", "tuned-high-adapt"]


def test_what_divides_the_batches_of_all_variants():
    batches = ({"train": {"batch": 4}}, {"train": {"batch": 6}, "model": {"width": 2.0}})
    assert Study.from_config(config("baseline", variants=batches)).divisible == 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"train__batch": 0}, "config.train.batch: 0 must be a whole number, 1 or more"),
        ({"train__min_epochs": 60}, "config.train.min_epochs: 60"),
        ({"train__class_weights": "maybe"}, "config.train.class_weights: 'maybe' is not one of"),
        ({"model__width": -1.0}, "config.model.width: -1.0 must be a positive number"),
        ({"model__preset": "cnn9"}, "config.model.preset: 'cnn9' must be one of"),
        ({"finetune__layers": ("conv9",)}, "config.finetune.layers: 'conv9' is not one of all,"),
        ({"finetune__repeats": 6}, "config.finetune.repeats: 6 is more than finetune.parts, 5"),
        ({"finetune__inner_folds": 1}, "config.finetune.inner_folds: 1"),
        ({"data__cohort": "a.csv"}, "config.data.store: is empty"),
        ({"data__placement": "disk"}, "config.data.placement: 'disk' is not one of"),
        ({"simulation__grid": "huge"}, "grid: 'huge' is unknown"),
        ({"targets": ()}, "config.targets: () must be a non-empty sequence"),
        ({"targets": ("ADNI2", "ADNI2")}, "has a name twice"),
        ({"augment__noise": 2.0}, "config.augment.noise: 2.0 must be from 0 to 1"),
        ({"variants": ({"model": {"widht": 2.0}},)}, "did you mean config.model.width?"),
        ({"variants": ({}, {})}, "two variants are both called 'cnn5-w1'"),
    ],
)
def test_a_mistake_names_field_value_and_rule(overrides, message):
    with pytest.raises(UserError) as caught:
        Study.from_config(config(**overrides))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
