"""The subcommands of ``python -m mri_jax``: arguments in, one call to a room, exit code out."""
