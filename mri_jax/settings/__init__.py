"""The config of a study: its fields with types, defaults, bounds and documentation."""
