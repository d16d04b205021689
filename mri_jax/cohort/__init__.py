"""Subjects, sessions, diagnoses, label rules, splits and demographics; no images, no JAX."""
