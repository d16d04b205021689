"""Every field of a study, with its default; the other configs override a few.

    python launch.py --config=configs/baseline.py:dev --config.model.width=2

The word after the colon is the preset, by default ``demo``. ``docs/config.md`` lists the fields and
the presets; ``mri_jax/settings/sections.py`` and ``mri_jax/settings/presets.py`` hold them.
"""

from mri_jax.settings.generated import config_dict


def get_config(preset: str = "demo"):
    """The base study: CNN-5 trained on ADNI-1, AD against CN, tested on three targets."""
    return config_dict(preset)


def fine_tuning(preset: str = "demo"):
    """The base study of the experiments about fine-tuning, whose demo tests on ADNI-2 alone."""
    return config_dict(preset, fine_tuning=True)
