import pytest
from etils import epath

from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.runs import results
from mri_jax.study.begin import check_config
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
