"""The family of 3D-CNNs: spec and Flax modules; pure."""

from mri_jax.models.cnn import CNN
from mri_jax.models.spec import CNNSpec
from mri_jax.models.summary import summary

__all__ = ["CNN", "CNNSpec", "summary"]
