"""Runs a study: the stages of its plan are run, skipped or resumed, and the results written."""
