import pytest
from etils import epath

from mri_jax.errors import UserError
from mri_jax.study.outputs import write_config


def test_a_work_directory_of_another_config_is_refused_with_the_fields_that_differ(tmp_path):
    workdir = epath.Path(tmp_path)
    variants = [{"model": {"width": 1.0}}, {"model": {"width": 4.0}}]
    write_config(workdir, {"seed": 1, "variants": variants, "save_seconds": 60})
    write_config(workdir, {"seed": 1, "variants": variants, "save_seconds": 5})
    with pytest.raises(UserError) as refused:
        write_config(workdir, {"seed": 1, "variants": variants[:1], "save_seconds": 60})
    assert "config.variants.1.model.width is 4.0, not 'absent'" in str(refused.value)
    many = {f"field{i}": i for i in range(9)}
    with pytest.raises(UserError, match=r"field0 is 'absent', not 0; .*; and 5 more fields"):
        write_config(workdir, {"seed": 1, "variants": variants, **many})
