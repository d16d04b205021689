"""A row of ``predictions.csv``: what one ensemble says about one scan."""

from typing import Any

from mri_jax.prediction.model import PortableModel
from mri_jax.prediction.opinion import Opinion, Prediction
from mri_jax.showing import simulated
from mri_jax.volumes import quality


def row_of(model: PortableModel, prediction: Prediction, opinion: Opinion) -> dict[str, Any]:
    """Returns the cells of a row by the names of their columns."""
    scan, ensemble = prediction.scan, opinion.ensemble
    folds = {
        f"fold_{network.fold}": probability
        for network, probability in zip(ensemble.networks, opinion.probabilities, strict=True)
    }
    figures = {name: scan.figures.get(name) for name in quality.FIGURES}
    return {
        "subject_id": scan.subject_id,
        "session_id": scan.session_id,
        "source": scan.source,
        "network": model.name,
        "stage": ensemble.stage,
        "positive": model.positive,
        "probability": opinion.probability,
        "calibrated": opinion.calibrated,
        "score": opinion.score,
        "point": opinion.point.name,
        "threshold": opinion.point.threshold,
        "decision": model.positive if opinion.positive else model.negative,
        **{
            name: value
            for kind, distance in opinion.distances.items()
            for name, value in (
                (f"distance_{kind}", distance),
                (f"distance_{kind}_limit", ensemble.distance_limits[kind]),
            )
        },
        "unlike_training": bool(opinion.far or prediction.flags),
        "far_in": ", ".join(opinion.far),
        "quality_flags": ", ".join(prediction.flags),
        "networks_trained_on_it": opinion.trained_on,
        "trained_on": simulated.WORD if model.simulated else "real scans",
        **folds,
        **figures,
    }
