"""Entry point of ``python -m mri_jax``."""

import sys

from mri_jax.cli import main

sys.exit(main())
