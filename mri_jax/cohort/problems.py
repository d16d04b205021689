"""`mri_jax.problems` under the name that the cohort room uses."""

from mri_jax.problems import Problem, TableError, add_rows, refuse

__all__ = ["Problem", "TableError", "add_rows", "refuse"]
