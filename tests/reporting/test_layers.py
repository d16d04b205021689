"""The first layer's filters, as pictures."""

import numpy as np
import synthetic_run

from mri_jax.reporting.analysis import analyse, load_runs
from mri_jax.reporting.figures_layers import layer_figures
from mri_jax.runs import results


def test_filters_are_drawn_the_right_way_up(tmp_path):
    folder = synthetic_run.write_run(tmp_path / "f", cohorts={"ADNI1": (9, 11), "AIBL": (8, 12)})
    kernel = np.zeros((3, 3, 3, 1, 8), np.float32)
    kernel[2, 0, 1, 0, 1] = 5.0  # right, posterior, middle; the second filter
    tuned = kernel + np.float32(0.25) * (kernel > 0)
    np.savez(
        folder / results.FILTERS,
        **{"cnn5-w1/source/fold0/conv1": kernel, "cnn5-w1/tuned-low/fold0/conv1": tuned},
        **{"cnn5-w1/tuned-high/fold0/conv1": kernel},  # frozen there: not drawn again
    )
    (picture,) = layer_figures(analyse(load_runs([str(folder)])), share=False)
    drawn = np.ma.filled(picture.figure.axes[0].images[0].get_array(), np.nan)
    assert drawn.shape == (6 * 4 - 1, 8 * 4 - 1)
    # Rows: sagittal (Y, Z), coronal (X, Z), axial (X, Y); columns of the second filter start at 4.
    lit = np.argwhere(np.nan_to_num(drawn[:11]) == 5.0).tolist()
    assert lit == [[10, 6]], "axial: right is at the right, posterior at the bottom"
    assert (
        "Largest change of a weight from the source: first conv layer fine-tuned 0.25."
        in picture.caption
    )
    assert "Those with last conv and FC layers fine-tuned are the source's." in picture.caption
