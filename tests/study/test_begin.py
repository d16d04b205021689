import pytest
from etils import epath

from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.runs import results
from mri_jax.study.begin import check_config, settled
from tests import studies


def begin(workdir, **fields):
    """What a study does to its work directory before it trains."""
    study = studies.study("baseline", **fields)
    check_config(workdir, study)
    study.write(workdir / results.CONFIG)
    files.write_json(workdir / "plan.json", {"stages": []})


def test_a_work_directory_of_another_config_is_refused_with_the_fields_that_differ(tmp_path):
    workdir = epath.Path(tmp_path)
    variants = ({"model": {"width": 1.0}}, {"model": {"width": 4.0}})
    begin(workdir, seed=1, variants=variants, save_seconds=60.0)
    begin(workdir, seed=1, variants=variants, save_seconds=5.0)
    with pytest.raises(UserError) as refused:
        begin(workdir, seed=1, variants=variants[:1], save_seconds=60.0)
    assert "config.variants.1.model.width is 4.0, not absent" in str(refused.value)
    many = {f"augment__{name}": 0.5 for name in ("intensity", "bias_field", "noise")}
    many |= {"train__batch": 4, "targets": ("AIBL",), "seed": 2}
    told = r"config.augment.bias_field is 0.0, not 0.5; .*; and 2 more fields"
    with pytest.raises(UserError, match=told):
        begin(workdir, variants=variants, **many)


@pytest.mark.parametrize(
    ("name", "kind"), [("store.json", "a store of volumes"), ("model.json", "an exported model")]
)
def test_results_are_not_written_among_other_files(tmp_path, name, kind):
    (tmp_path / name).write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=f"--workdir: .* is {kind}"):
        check_config(epath.Path(tmp_path), studies.study())


def test_a_field_that_came_later_is_none_of_another_config_at_its_value(tmp_path):
    none = {"train__min_steps": 0, "train__patience_steps": 0}
    begin(epath.Path(tmp_path), **none)
    older = files.read_json(tmp_path / "config.json")
    del older["train"]["min_steps"], older["train"]["patience_steps"]
    files.write_json(tmp_path / "config.json", older)
    begin(epath.Path(tmp_path), **none)
    assert files.read_json(tmp_path / "config.json")["train"]["min_steps"] == 0
    with pytest.raises(UserError, match=r"config.train.min_steps is 0, not 576"):
        begin(epath.Path(tmp_path), **none | {"train__min_steps": 576})


def test_the_device_decides_the_type_of_activations_unless_the_study_has_begun(tmp_path):
    workdir = epath.Path(tmp_path)
    variants = ({"model": {"width": 1.0}}, {"model": {"width": 4.0, "dtype": "float32"}})
    asked = studies.study("baseline", model__dtype="auto", variants=variants)
    assert [run.spec.dtype for run in asked.runs] == ["float32", "float32"]
    on_gpu, on_cpu = (settled(workdir, asked, on_host) for on_host in (False, True))
    assert on_cpu == studies.study("baseline", variants=variants)
    assert [run.spec.dtype for run in on_gpu.runs] == ["bfloat16", "float32"]
    assert on_gpu == studies.study("baseline", model__dtype="bfloat16", variants=variants)
    on_gpu.write(workdir / results.CONFIG)
    assert settled(workdir, asked, True) == on_cpu
    files.write_json(workdir / "plan.json", {"stages": []})
    assert settled(workdir, asked, True) == on_gpu
    # What is asked for by name is no question.
    named = studies.study("baseline", model__dtype="float32", variants=variants)
    assert settled(workdir, named, False) == named
    files.write_json(workdir / "config.json", {"of": "another version"})
    assert settled(workdir, asked, False) == on_gpu


def test_a_variant_may_leave_its_type_to_the_device(tmp_path):
    variants = ({"model": {"width": 1.0, "dtype": "auto"}}, {"model": {"width": 4.0}})
    asked = studies.study("baseline", variants=variants)
    found = settled(epath.Path(tmp_path), asked, False)
    assert [run.spec.dtype for run in found.runs] == ["bfloat16", "float32"]
