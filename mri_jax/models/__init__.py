"""The family of 3D-CNNs: spec and Flax modules; pure."""
