import pytest
from etils import epath

from mri_jax import files
from mri_jax.errors import UserError
from mri_jax.study.outputs import check_config, write_config


def begin(workdir, config):
    """What a study does to its work directory before it trains."""
    check_config(workdir, config)
    write_config(workdir, config)
    files.write_json(workdir / "plan.json", {"stages": []})


def test_a_work_directory_of_another_config_is_refused_with_the_fields_that_differ(tmp_path):
    workdir = epath.Path(tmp_path)
    variants = [{"model": {"width": 1.0}}, {"model": {"width": 4.0}}]
    begin(workdir, {"seed": 1, "variants": variants, "save_seconds": 60})
    begin(workdir, {"seed": 1, "variants": variants, "save_seconds": 5})
    with pytest.raises(UserError) as refused:
        begin(workdir, {"seed": 1, "variants": variants[:1], "save_seconds": 60})
    assert "config.variants.1.model.width is 4.0, not 'absent'" in str(refused.value)
    many = {f"field{i}": i for i in range(9)}
    with pytest.raises(UserError, match=r"field0 is 'absent', not 0; .*; and 5 more fields"):
        begin(workdir, {"seed": 1, "variants": variants, **many})


@pytest.mark.parametrize(
    ("name", "kind"), [("store.json", "a store of volumes"), ("model.json", "an exported model")]
)
def test_results_are_not_written_among_other_files(tmp_path, name, kind):
    (tmp_path / name).write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=f"--workdir: .* is {kind}"):
        check_config(epath.Path(tmp_path), {})


def test_a_field_that_came_later_is_none_of_another_config_at_its_value(tmp_path):
    older = {"name": "old", "train": {"patience": 5}}
    begin(epath.Path(tmp_path), older)
    now = {"name": "old", "train": {"patience": 5, "min_steps": 0, "patience_steps": 0}}
    begin(epath.Path(tmp_path), now)
    assert files.read_json(tmp_path / "config.json") == now
    now["train"]["min_steps"] = 576
    with pytest.raises(UserError, match=r"config.train.min_steps is 0, not 576"):
        begin(epath.Path(tmp_path), now)
