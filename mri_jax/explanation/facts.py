"""What the page and ``explain.json`` say about the call itself."""

import resource
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from mri_jax import __version__
from mri_jax.explanation.collect import Collected
from mri_jax.explanation.request import Request
from mri_jax.explanation.selection import ExplainedScan
from mri_jax.explanation.setting import ExplanationSetting
from mri_jax.runs.trained import SOURCE, TrainedRun


def facts_of(
    run: TrainedRun,
    variant: str,
    request: Request,
    setting: ExplanationSetting,
    scans: Sequence[ExplainedScan],
    collected: Collected,
) -> dict[str, Any]:
    """Returns what the page and ``explain.json`` say about the call itself."""
    counts = pd.Series([setting.classes[scan.label] for scan in scans]).value_counts()
    rates = {
        name: {
            "volumes_per_second": len(seconds) / sum(seconds),
            "maps": len(seconds),
            "seconds_per_map": float(np.median(seconds)),
        }
        for name, seconds in collected.seconds.items()
    }
    return {
        "mri_jax": __version__,
        "run": run.results.name,
        "variant": variant,
        "stages": list(setting.stages),
        "cohort": request.cohort,
        "held_out": SOURCE in setting.stages
        and all(len(group) == 1 for scan in scans for group in scan.members.values()),
        "classes": {"negative": setting.classes[0], "positive": setting.classes[1]},
        "learned": {"negative": setting.learned[0], "positive": setting.learned[1]},
        "scans": {str(name): int(n) for name, n in counts.items()},
        "subjects": list(request.subjects),
        "score": "logit of the positive class minus logit of the negative class",
        "methods": {method.name: method.note for method in setting.methods},
        "settings": asdict(request.settings),
        "regions": setting.regions.source,
        "simulated": setting.simulated,
        "cost": rates,
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "seed": request.seed,
    }
