import pytest

from mri_jax import cli
from mri_jax.models.summary import layers, step_bytes
from mri_jax.settings.study import Study
from mri_jax.study.networks import described
from tests import studies
from tests.conftest import ROOT
from tests.tiny import GRID, SMALL_MODEL, make_cohorts


def test_every_network_of_a_config_is_described_at_its_grid(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert cli.main(["summary", "--config=configs/depth.py:dev"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("volumes of 96 x 112 x 96 voxels (dev, 2 mm)")
    blocks = printed.split("\n\n")[1:]
    study = Study.parse(studies.config("depth", "dev"))
    assert [block.split()[0] for block in blocks] == [run.name for run in study.runs]
    for block, run in zip(blocks, study.runs, strict=True):
        parameters = sum(row.parameters for row in layers(run.spec, (96, 112, 96)))
        needed = step_bytes(run.spec, (96, 112, 96), run.train.batch) / 2**20
        assert f" {parameters:,} " in block
        assert f"of 2 volumes needs about {needed:,.0f} MiB" in block


def test_volumes_of_a_users_store_have_its_grid(tmp_path):
    table, store = make_cohorts(tmp_path, subjects=2)
    small = {f"model__{name}": value for name, value in SMALL_MODEL.items()}
    study = studies.study("baseline", data__cohort=str(table), data__store=str(store), **small)
    told = described(study)
    assert told.startswith(f"volumes of {' x '.join(map(str, GRID.shape))} voxels (tiny, 8 mm)")
    assert "2 x 3 x 2 x 8" in told


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ("configs/depht.py", "configs/depht.py: no such file"),
        ("configs/depth.py:big", "configs/depth.py: preset 'big' is not one of"),
        ("setup.py", "setup.py: KeyError: 'get_config'"),
    ],
)
def test_a_wrong_config_is_one_line(config, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    if config == "setup.py":
        config = str(tmp_path / "setup.py")
        (tmp_path / "setup.py").write_text("x = 1", encoding="utf-8")
    assert cli.main(["summary", f"--config={config}"]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert line in told
