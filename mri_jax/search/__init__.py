"""Searches over networks and their training: trials, their journal, the winner; needs Optuna."""
