"""From predictions to metrics to statistics; NumPy and SciPy, no files of a run."""
