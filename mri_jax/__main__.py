"""Entry point of ``python -m mri_jax``."""

import sys

from mri_jax import allocator
from mri_jax.interruption import Interruption, hold_signals

# The commands that run networks.
TUNED = ("predict", "explain", "export-model")

if __name__ == "__main__":
    hold_signals()
    if sys.argv[1:2] and sys.argv[1] in TUNED and sys.orig_argv[1:3] == ["-m", "mri_jax"]:
        allocator.tune()
    interruption = Interruption().install()
    from mri_jax.cli import main

    sys.exit(main(interruption=interruption))
