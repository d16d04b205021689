import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.planning.fits import source_fit
from mri_jax.settings.fields import leaves
from mri_jax.settings.presets import PRESETS
from mri_jax.settings.study import Study, named
from tests.conftest import ROOT
from tests.studies import config, put
from tests.studies import study as study_of

CONFIGS = sorted(p.stem for p in (ROOT / "configs").glob("*.py"))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_is_a_study_in_every_preset(name, preset):
    study = study_of(name, preset)
    assert study.name == name
    assert study.preset == preset
    assert len({run.name for run in study.runs}) == len(study.runs)
    if name != "base":
        assert f"--config=configs/{name}.py" in (ROOT / "configs" / f"{name}.py").read_text(
            encoding="utf-8"
        )


def test_the_paper_config_holds_every_variant_of_the_paper():
    names = [run.name for run in study_of("paper", "paper").runs]
    depth = ["cnn5-w1", "cnn7-w1", "cnn10-w1", "cnn12-w1", "cnn5-w2", "cnn5-w4", "cnn5-w5"]
    tasks = [f"CNN-{s}-w{w}" for w in (1, 4) for s in ("AD1", "AD2", "AD2S", "MCI")]
    assert names == depth + tasks


def test_the_paper_preset_states_what_the_paper_states():
    run = study_of("baseline", "paper").runs[0]
    fit = source_fit(run, scans=400)
    assert fit.batch == 2
    assert fit.step.optimizer.learning_rate == 1e-4
    assert (fit.stopping.min_epochs, fit.stopping.max_epochs) == (30, 50)
    assert fit.stopping.patience == 10
    assert run.train.folds == 5
    assert run.spec.dropout[:2] == (0.5, 0.5)
    assert run.spec.fc == (128, 64)


def test_networks_are_named_by_what_they_have():
    names = [run.name for run in study_of("attention").runs]
    assert names == ["cnn5-w1", "cnn5-se-w1", "cnn5-spatial-w1", "cnn5-map-w1"]
    early = study_of("attention", model__attention_blocks=(1, 5)).runs
    assert [run.name for run in early][:2] == ["cnn5-w1", "cnn5-se-1-5-w1"]
    assert early[1].spec.gate_after == ("att1", "", "", "", "att5")
    # The last two blocks, said or not, are one network.
    same = study_of(model__attention="se", model__attention_blocks=(4, 5)).runs[0]
    assert (same.name, same.spec) == ("cnn5-se-w1", study_of("attention").runs[1].spec)
    other = study_of("norm", model__residual=True).runs
    assert [run.name for run in other] == [
        "cnn5-residual-w1", "cnn5-instance-residual-w1", "cnn5-group-residual-w1",
    ]  # fmt: skip
    named = study_of("task_transfer", model__attention="map").runs[0]
    assert named.name == "CNN-AD1-map-w1"


def test_adapting_statistics_is_left_out_where_nothing_is_frozen():
    study = study_of(finetune__layers=("all", "high"), finetune__statistics=("keep", "adapt"))
    stages = [tuning.stage for tuning in study.runs[0].tunings]
    assert stages == ["tuned-all", "tuned-high", "tuned-high-adapt"]
    without = study_of(
        finetune__layers=("high",), finetune__statistics=("keep", "adapt"), model__norm="group"
    )
    assert [tuning.stage for tuning in without.runs[0].tunings] == ["tuned-high"]


MISTAKES = [
    ({"train__batch": 0}, "train.batch: 0 must be a whole number from 1 to 4096"),
    ({"train__batch": True}, "train.batch: True must be a whole number"),
    ({"train__batch": 2.0}, "train.batch: 2.0 must be a whole number"),
    ({"train__batch": 10**9000}, "train.batch: a value of type int must be a whole number"),
    ({"train__min_epochs": 60}, "train.min_epochs: 60"),
    ({"train__min_delta": float("inf")}, "train.min_delta: inf must be a number from 0 to 100"),
    ({"train__min_delta": float("nan")}, "train.min_delta: nan must be a number from 0 to 100"),
    ({"train__learning_rate": 3}, "train.learning_rate: 3 must be a number from 0 to 1"),
    ({"train__class_weights": "maybe"}, "train.class_weights: 'maybe' must be one of 'none',"),
    ({"train": 3}, "train: 3 must be a section with folds, batch,"),
    ({"seed": -1}, "seed: -1 must be a whole number from 0 to 9223372036854775807"),
    ({"seed": 2**63}, "seed: 9223372036854775808 must be a whole number"),
    ({"model__width": -1.0}, "model.width: -1.0 must be a number above 0, at most 100"),
    ({"model__preset": "cnn9"}, "model.preset: 'cnn9' must be one of"),
    ({"model__filters": 8}, "model.filters: 8 must be a tuple of 1 to 10 values, each a whole"),
    ({"model__filters": (8, 16)}, "model.filters: (8, 16) must be one entry for each block"),
    ({"model__repetitions": (1, 1)}, "model.repetitions: (1, 1) must be () where preset"),
    ({"model__preset": ""}, "model.repetitions: () must have at least one block"),
    ({"model__dropout": (0.5, 1.0, 0.0)}, "model.dropout: (0.5, 1.0, 0.0) must be a tuple of"),
    ({"model__dtype": "float64"}, "model.dtype: 'float64' must be one of 'float32', 'bfloat16'"),
    ({"model__attention": "self"}, "model.attention: 'self' must be one of 'none', 'se',"),
    (
        {"model__attention_blocks": (5,)},
        "model.attention_blocks: (5,) must be () where attention is 'none'",
    ),
    (
        {"model__attention": "se", "model__attention_blocks": (6,)},
        "model.attention_blocks: (6,) must be rising numbers of blocks, 1 to 5",
    ),
    ({"task__negative": "AD"}, "task.positive: 'AD' must differ from config.task.negative"),
    ({"source__negative": "AD"}, "source.positive: 'AD' must differ from config.source.negative"),
    ({"source__name": "x" * 10**6}, "source.name: a text of 1000000 characters must be text"),
    ({"source__name": "a\nb"}, "source.name: 'a\\nb' must be text"),
    ({"finetune__layers": ("conv9",)}, "finetune.layers: 'conv9' must be one of all,"),
    ({"finetune__layers": ("fc1",)}, "conv5 (docs/config.md has the layers that each trains)"),
    ({"finetune__repeats": 6}, "finetune.repeats: 6 must be at most config.finetune.parts, 5"),
    ({"finetune__inner_folds": 1}, "finetune.inner_folds: 1 must be 0, or a whole number from 2"),
    ({"data__cohort": "a.csv"}, "data.store: is empty"),
    ({"data__placement": "disk"}, "data.placement: 'disk' must be one of"),
    ({"data__clip": ()}, "data.clip: () must be a tuple of 2 values in rising order"),
    ({"data__clip": (99.5, 0.5)}, "data.clip: (99.5, 0.5) must be a tuple of 2 values in rising"),
    ({"simulation__grid": "huge"}, "simulation.grid: 'huge' must be one of 'paper', 'dev'"),
    ({"targets": ()}, "targets: () must be a tuple of 1 to 100 distinct values"),
    ({"targets": "ADNI2"}, "targets: 'ADNI2' must be a tuple"),
    ({"targets": ("ADNI2", "ADNI2")}, "targets: ('ADNI2', 'ADNI2') must be a tuple of 1 to 100 di"),
    (
        {"targets": ("ADNI2", "ADNI1")},
        "targets: 'ADNI1' is also in config.source.cohorts, with the class AD: networks would be",
    ),
    (
        {"finetune__cohort": "ADNI1", "finetune__layers": ("high",)},
        "finetune.cohort: 'ADNI1' is also in config.source.cohorts, with the class AD",
    ),
    ({"targets": ({"a": 1},)}, "targets: ({'a': 1},) must be a tuple"),
    ({"augment__noise": 2.0}, "augment.noise: 2.0 must be a number from 0 to 1"),
    ({"augment__flip": 1}, "augment.flip: 1 must be True or False"),
    (
        {"adaptation__methods": ("adabn", "adaban")},
        "adaptation.methods: 'adaban' must be one of 'adabn', ",
    ),
    ({"adaptation__methods": ("adabn", "adaban")}, "(did you mean 'adabn'?)"),
    ({"variants": (3,)}, "variants: (3,) must be a tuple of 0 to 1000 values, each a dictionary"),
    ({"targets": ("ADNI2", "adni2")}, "'ADNI2' and 'adni2' differ by case alone"),
    (
        {"variants": ({"source": {"name": "a"}}, {"source": {"name": "A"}})},
        "config.variants: 'a-w1' and 'A-w1' differ by case alone",
    ),
    ({"variants": ({"model": {"widht": 2.0}},)}, "did you mean config.variants[0].model.width?"),
    ({"variants": ({"model": 3},)}, "variants[0].model: 3 must be a section with preset,"),
    ({"variants": ({"seed": 3},)}, "variants[0].seed: is one for all variants; they may change"),
    ({"variants": ({}, {"train": {"batch": 0}})}, "variants[1].train.batch: 0 must be a whole"),
    ({"variants": ({}, {})}, "variants: two variants are both called 'cnn5-w1'"),
]


@pytest.mark.parametrize(("overrides", "message"), MISTAKES)
def test_a_mistake_names_field_value_and_rule(overrides, message):
    given = config()
    for name, value in overrides.items():
        put(given, name.replace("__", "."), value)
    with pytest.raises(UserError) as caught:
        Study.parse(given)
    assert str(caught.value).startswith("config.")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_and_absent_fields_are_named():
    given = config()
    del given["train"]["batch"]
    with pytest.raises(UserError, match=r"config\.train\.batch: is missing"):
        Study.parse(given)
    given = config()
    given["train"]["epochs"] = 4
    both = "config.train.min_epochs or config.train.max_epochs"
    with pytest.raises(UserError, match=rf"train\.epochs: no such field; did you mean {both}\?"):
        Study.parse(given)
    given = config()
    given["train"]["btch"] = 4
    with pytest.raises(UserError, match=r"btch: no such field; did you mean config\.train\.batch"):
        Study.parse(given)


FIELDS = leaves(Study)
ODD = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, 10**400, 10**9000, 0.5, -0.0, 1e-320, 1e308,
    math.nan, math.inf, -math.inf, 1j, "", " ", "1", "None", "a/b", "..", "\0", "\ud800",
    "x" * 10**6, b"", (), (()), ((),), [], {}, {"a": 1}, ({"a": 1},), (1,), (1, 2), (0.5, 99.5),
    ("a", "a"), ("all", 3), set(), object(), np.int64(3), np.float32(0.5), np.zeros(3), range(3),
    lambda: 1, (2,) * 10**5, ("conv1", "conv1"), ({"model": {"width": math.nan}},), ({3: 4},),
)  # fmt: skip
_SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary()
)
_WRONG = st.sampled_from(ODD) | st.recursive(
    _SCALARS,
    lambda inside: (
        st.lists(inside, max_size=4)
        | st.lists(inside, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=6), inside, max_size=3)
    ),
    max_leaves=8,
)


def is_a_study_or_refused_in_one_line(given: dict) -> None:
    try:
        study = Study.parse(given)
    except UserError as error:
        told = str(error)
        assert told.startswith("config")
        assert len(told.splitlines()) == 1
        assert len(told) < 700
        return
    # What passes can be written down and has a fingerprint.
    files.fingerprint([dataclasses.asdict(source_fit(run, 40)) for run in study.runs])
    json.dumps(given, allow_nan=False)
    assert study.cohorts


@pytest.mark.parametrize("name", [name for name, _, _ in FIELDS])
def test_every_odd_value_of_every_field_is_refused_in_one_line_or_is_a_study(name):
    for value in ODD:
        given = config()
        put(given, name, value)
        is_a_study_or_refused_in_one_line(given)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_values_of_a_few_fields_are_refused_in_one_line_or_are_a_study(data):
    names = data.draw(st.lists(st.sampled_from(FIELDS), min_size=1, max_size=3))
    changed = config(variants=({"model": {"width": 2.0}},) if data.draw(st.booleans()) else ())
    for name, _, _ in names:
        put(changed, name, data.draw(_WRONG))
    is_a_study_or_refused_in_one_line(changed)


def test_the_declared_fields_are_those_of_the_base_config_and_each_is_documented():
    def named(values: dict, at: str) -> set[str]:
        nested = [(f"{at}.{name}", value) for name, value in values.items()]
        return {
            leaf
            for name, value in nested
            for leaf in (named(value, name) if isinstance(value, dict) else {name})
        }

    assert {name for name, _, _ in FIELDS} == named(config("base"), "config")
    assert all(about and "\n" not in about for _, _, about in FIELDS)


def test_home_folders_of_paths_are_found(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    study = study_of(data__cohort="~/cohort.csv", data__store="~/STORE")
    assert study.data.cohort == "/home/me/cohort.csv"
    assert study.data.store == "/home/me/STORE"


@pytest.mark.parametrize("name", ["paper", "finetune_high"])
def test_a_study_writes_itself_and_reads_itself_back(tmp_path, name):
    study = study_of(name, train__min_steps=77)
    study.write(tmp_path / "config.json")
    assert Study.read(tmp_path / "config.json") == study
    # The format is what it was: the config itself.
    assert files.read_json(tmp_path / "config.json") == json.loads(
        json.dumps(config(name, train__min_steps=77))
    )


def test_a_study_of_before_lacks_later_fields_and_no_others(tmp_path):
    values = json.loads(json.dumps(config("baseline")))
    del values["train"]["min_steps"], values["train"]["patience_steps"]
    files.write_json(tmp_path / "config.json", values)
    found = Study.read(tmp_path / "config.json").train
    # Not the preset's, nor a default: what results were like then.
    assert (found.min_steps, found.patience_steps) == (0, 0)
    del values["train"]["patience"]
    files.write_json(tmp_path / "config.json", values)
    with pytest.raises(UserError, match=r"config\.json: config\.train\.patience: is missing"):
        Study.read(tmp_path / "config.json")


def test_what_two_studies_differ_in_leaves_out_what_changes_no_result():
    first = study_of(variants=({"model": {"width": 1.0}}, {"model": {"width": 4.0}}))
    assert first.unlike(study_of(variants=list(first.variants), save_seconds=60.0)) == {}
    other = study_of(variants=first.variants[:1], train__batch=4, data__threads=1)
    assert first.unlike(other) == {
        "config.train.batch": (2, 4),
        "config.variants.1.model.width": (4.0, None),
    }


def test_messages_name_fields_that_there_are():
    assert named("train.batch") == "config.train.batch"
    assert named("source") == "config.source"
    with pytest.raises(KeyError):
        named("train.bacth")
