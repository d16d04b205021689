"""The ``ConfigDict`` that ``configs/*.py`` override, made from the fields of a study."""

from ml_collections import ConfigDict

from mri_jax.settings.presets import PRESETS
from mri_jax.settings.study import Study


def config_dict(preset: str = "demo", fine_tuning: bool = False) -> ConfigDict:
    """Returns every field with its value in a preset.

    Args:
      preset: Its name.
      fine_tuning: Whether the experiment is about fine-tuning alone.

    Raises:
      ValueError: There is no such preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset {preset!r} is not one of {', '.join(PRESETS)}")
    config = ConfigDict(Study(preset=preset).to_json())
    config.update_from_flattened_dict(PRESETS[preset].fields)
    if fine_tuning:
        config.update_from_flattened_dict(PRESETS[preset].fine_tuning)
    return config
