"""A methods paragraph that can be pasted into a paper; it says only what this run did."""

from mri_jax.evaluation.baselines import VOXEL_SPACING
from mri_jax.evaluation.comparisons import PERMUTATIONS
from mri_jax.evaluation.families import is_baseline
from mri_jax.evaluation.intervals import RESAMPLES
from mri_jax.reporting.analysis import Analysis

REFERENCES = (
    (
        "Guan H, Wang L, Yao D, Bozoki A, Liu M. Learning transferable 3D-CNN for MRI-based brain "
        "disorder classification from scratch: an empirical study. MLMI 2021."
    ),
    (
        "DeLong ER, DeLong DM, Clarke-Pearson DL. Comparing the areas under two or more correlated "
        "receiver operating characteristic curves. Biometrics 1988. doi:10.2307/2531595"
    ),
    (
        "Sun X, Xu W. Fast implementation of DeLong's algorithm. IEEE Signal Processing Letters "
        "2014. doi:10.1109/LSP.2014.2337313"
    ),
    (
        "Nadeau C, Bengio Y. Inference for the generalization error. Machine Learning 2003. "
        "doi:10.1023/A:1024068626366"
    ),
    (
        "Hesterberg TC. What teachers should know about the bootstrap. The American Statistician "
        "2015. doi:10.1080/00031305.2015.1089789"
    ),
    (
        "Holm S. A simple sequentially rejective multiple test procedure. Scandinavian Journal of "
        "Statistics 1979."
    ),
    (
        "Guo C, Pleiss G, Sun Y, Weinberger KQ. On calibration of modern neural networks. ICML "
        "2017. arXiv:1706.04599"
    ),
)


def methods_paragraphs(analysis: Analysis) -> list[str]:
    """Paragraphs of plain text, with bracketed numbers into `REFERENCES`."""
    rows = analysis.predictions
    networks = rows[~rows["run"].map(is_baseline)]
    folds = networks["fold"].nunique()
    cohorts = ", ".join(dict.fromkeys(networks.loc[networks["split"].eq("test"), "cohort"]))
    source = ", ".join(dict.fromkeys(networks.loc[networks["split"].eq("validation"), "cohort"]))
    runs = ", ".join(dict.fromkeys(networks["run"]))
    kind = "simulated scans" if analysis.simulated else "T1-weighted scans"
    paragraphs = []
    first = f"3D convolutional networks ({runs}) were trained from scratch on {kind}"
    first += f" of {source}" if source else ""
    first += f" after Guan et al. [1], as {folds} networks by cross-validation over subjects, and"
    first += f" tested on {cohorts}." if cohorts else " evaluated on the held-out folds."
    stages = sorted(s for s in networks["stage"].unique() if s != "source")
    if stages:
        repeats = networks["repeat"].nunique()
        first += (
            f" Networks were fine-tuned ({', '.join(stages)}) on a stratified fifth of the target; "
            f"source and tuned networks are compared on the same remaining subjects"
            + (f", over {repeats} disjoint fifths." if repeats > 1 else ".")
        )
    paragraphs.append(first)
    paragraphs.append(
        "Scores are the mean and standard deviation (n - 1) over networks. Two intervals are given "
        "at the 95% level. Interval A (these networks, new subjects) uses DeLong's variance [2] in "
        "its fast form [3], with the covariance of the networks, on the logit scale for the AUC, "
        f"and a class-stratified bootstrap over subjects ({RESAMPLES} resamples, expanded "
        "percentiles [5]) for accuracy, balanced accuracy, sensitivity and specificity. Interval B "
        "(new subjects and retrained networks) adds the variance between networks, corrected for "
        "shared training subjects [4]."
    )
    paragraphs.append(
        "Methods were compared on the same subjects by a paired permutation test of the mean over "
        f"networks ({PERMUTATIONS} permutations), by DeLong's paired test for the AUC and by "
        "McNemar's exact test for the ensembles' decisions; held-out source folds by the corrected "
        "resampled t-test [4]. P-values were adjusted by Holm's method [6] within each table and "
        "metric. Decisions are at argmax unless a table says otherwise; temperatures [7] and other "
        "thresholds were fitted on held-out source folds, or on the fine-tuning subjects for "
        "networks that had not been trained on them, never on test subjects."
    )
    plain = sorted(set(rows.loc[rows["run"].map(is_baseline), "run"]))
    if plain:
        paragraphs.append(
            f"Baselines ({', '.join(plain)}) were fitted on the same training folds and tested on "
            "the same subjects; the voxel-wise model is a ridge-penalised logistic regression at "
            f"{VOXEL_SPACING:g} mm whose penalty was chosen by cross-validation inside the "
            "training fold."
        )
    return paragraphs
