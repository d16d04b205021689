import resource
import sys
import time

import numpy as np
import pandas as pd
import pytest

from evaluation.test_metrics import table
from mri_jax.evaluation import differences, families, summary, thresholds
from mri_jax.evaluation.cells import entries


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads memory in Linux units")
def test_twenty_thousand_subjects_and_five_networks_in_a_minute_and_a_gigabyte(rng):
    """Two methods, so that the paired tests are counted: under 60 s of CPU time, 1 GB."""
    label = (rng.uniform(size=20_000) < 0.35).astype(int)
    latent = rng.normal(size=20_000) + label
    parts = []
    for run, noise in (("cnn5-w1", 1.0), ("cnn7-w1", 1.3)):
        for fold in range(5):
            score = latent + noise * rng.normal(size=20_000)
            parts.append(table(label, score, fold, run=run))
            parts.append(table(label[:400], score[:400], fold, run=run, split="validation"))
    predictions = pd.concat(parts, ignore_index=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    (family,) = families.declare(predictions)
    found = entries(predictions, family)
    scores = summary.summarise(predictions, family, 0, found)
    pairs = differences.compare(predictions, family, 0, found)
    differences.anova_table(scores, family)
    thresholds.operating_points(predictions, family, 0, found)
    thresholds.calibration_table(predictions, family, found)
    seconds = time.process_time() - started
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6
    print(f"\n20,000 subjects x 5 networks x 2 methods: {seconds:.1f} s CPU, {grown:.2f} GB more")
    tested = pairs.query("split == 'test'")
    assert tested["p"].notna().all()
    assert np.isfinite(scores.query("split == 'test'")["b_low"]).all()
    assert seconds < 60
    assert grown < 1.0
