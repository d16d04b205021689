"""Entry point of ``python -m mri_jax``."""

import sys

from mri_jax import allocator
from mri_jax.cli import main

# The commands that run networks.
if sys.argv[1:2] in (["predict"], ["explain"], ["export-model"]):
    allocator.tune()
sys.exit(main())
