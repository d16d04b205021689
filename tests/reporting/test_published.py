import numpy as np
import pytest
import synthetic_run
from scipy import stats

from mri_jax.cli import main
from mri_jax.errors import UserError
from mri_jax.reporting.published import published_p, read_published
from mri_jax.runs import results


@pytest.mark.parametrize("printed", [0.5278, 0.5431, 0.2348])
def test_published_values_stand_beside_ours_and_give_back_their_p(tmp_path, printed):
    # Four depths of five networks whose ANOVA has exactly the p that the paper prints, then
    # rounded to two decimals as a paper prints them. (Its own means and SDs are not to hand.)
    f = stats.f.isf(printed, 3, 16)
    offsets = np.array([-1.0, -0.2, 0.4, 0.8])
    within = 5 * (offsets**2).sum() / 3 / f
    rows = [
        f"depth,AIBL,cnn{depth}-w1,acc,{85 + offset:.2f},{np.sqrt(within):.2f},Table 1"
        for depth, offset in zip((5, 7, 10, 12), offsets, strict=True)
    ]
    values = tmp_path / "published.csv"
    text = [
        "family,cohort,run,metric,mean,sd,source",
        "# of nobody's paper",
        *rows,
        f"depth,AIBL,,acc_anova_p,{printed},,Table 1",
    ]
    values.write_text("\n".join(text) + "\n", encoding="utf-8")
    found = published_p(read_published(values), "depth", "AIBL", "acc")
    assert found.printed == printed
    assert found.recomputed == pytest.approx(printed, abs=0.01)
    assert found.words == (
        f"{printed:.4f} printed, {found.recomputed:.2f} from the printed means and SDs (real data)"
    )
    assert published_p(read_published(values), "depth", "ADNI2", "acc").words == ""


def test_published_values_are_marked_as_real(tmp_path):
    cohorts = {"ADNI1": (9, 11), "AIBL": (8, 12)}
    folder = synthetic_run.write_run(
        tmp_path / "d", runs=("cnn5-w1", "cnn7-w1"), cohorts=cohorts, baselines=()
    )
    values = tmp_path / "published.csv"
    values.write_text(
        "family,cohort,run,metric,mean,sd,source\n"
        "depth,AIBL,cnn7-w1,auc,91.25,0.75,Table 1\n"
        "depth,AIBL,cnn7-w1,sen,88.5,,Fig. 2\n"
        "depth,AIBL,,acc_anova_p,0.1234,,Table 1\n",
        encoding="utf-8",
    )
    assert main(["report", str(folder), "--published", str(values)]) == 0
    page = (folder / results.REPORT).read_text(encoding="utf-8")
    assert "CNN-7, source, as published (real data)" in page
    assert "91.25 ± 0.75" in page
    assert ">88.50<" in page
    assert "0.1234 printed (real data)" in page


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("family,cohort\n", "columns 'run', 'metric', 'mean', 'sd', 'source' are missing"),
        ("family,cohort,run,metric,mean,sd,source\nd,A,c,auc,high,1,T\n", "mean must be a number"),
        ("family,cohort,run,metric,mean,sd,source\nd,A,c,auc,1,1,T\nd,A,c,auc,2,1,T\n", "twice"),
    ],
)
def test_bad_published_values_are_named(tmp_path, content, word):
    path = tmp_path / "p.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=word):
        read_published(path)
