"""Makes ``docs/config.md``: ``python -m mri_jax.settings.page > docs/config.md``."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from mri_jax.models.spec import CNNSpec
from mri_jax.settings.presets import PRESETS
from mri_jax.settings.sections import LAYER_SETS
from mri_jax.settings.study import VARIED, Study

_HEAD = f"""# Every field of a study

This page is made from `study.py`, `sections.py`, `adapting.py` and `presets.py` in
`mri_jax/settings/` by `python -m mri_jax.settings.page > docs/config.md`; a test compares them. It
gives, of each field, the default, what it is, and what its value must be.

## How a field is set

On the command line by its whole name, after the config:

```
python launch.py --config=configs/finetune_high.py:dev --config.model.width=2 \\
    --config.baselines.voxels=False --config.data.cohort=cohort.csv --config.data.store=STORE \\
    --config.targets="('SITE_B','SITE_C')" --config.finetune.layers="('high',)"
```

- Numbers and texts are written as they are, `True` and `False` with a capital.
- A tuple is written as in Python, with its comma also where it holds one value, and all of it in
  quotation marks for the shell. It is given once; of any other field the last value counts.
- A mistake is one line with the field, the value and the rule, and exit code 2.

In a file of `configs/` it is set in Python: `config.model.width = 2.0`. The value of a field is the
default of this page, unless the preset (the word after the colon) sets it; the config's file goes
before both, the command line before all.

A study of several networks has `variants`, each a dictionary of the fields in which it differs.
These may differ, the others are one for all variants:
{", ".join(f"`{name}`" for name in VARIED)}.

```python
config.variants = ({{"model": {{"preset": "cnn10"}}}}, {{"train": {{"batch": 4}}}})
```

`config.json` in a results folder holds the value of every field. A study that goes on in that
folder must have the same ones, but for those marked "not compared", which change how it runs and
not what it finds.
"""


def page() -> str:
    """Returns the text of ``docs/config.md``."""
    study = Study()
    parts = [_HEAD, "## Presets\n", *_presets(), "## Fields of the study\n", _list(study, "")]
    for name, section in vars(study).items():
        if dataclasses.is_dataclass(section):
            about = (type(section).__doc__ or "").split(";")[0].rstrip(".")
            parts += [f"## `{name}`: {about[0].lower()}{about[1:]}\n", _list(section, f"{name}.")]
            parts += [_layer_sets(study.model.spec)] if name == "finetune" else []
    return "\n".join(parts)


def _layer_sets(spec: CNNSpec) -> str:
    """Returns what the values of ``finetune.layers`` train, with the layers of a network."""
    conv, fc = ([n for n in spec.layer_names if n.startswith(kind)] for kind in ("conv", "fc"))
    inside = {"all": [*conv, *fc], "low": conv[:1], "high": [*conv[-1:], *fc], "head": fc}
    rows = [(f"`{name}`", what, inside[name]) for name, what in LAYER_SETS.items()]
    rows.append(("`conv2` (any)", "that conv layer", conv[1:2]))
    lines = [f"| {name} | {what} | {', '.join(layers)} |\n" for name, what, layers in rows]
    return (
        "Values of `finetune.layers`; a conv layer trains with its BatchNorm and the gate that "
        "follows it, and the others keep their weights. `python -m mri_jax summary` prints the "
        "layers of a network.\n\n"
        f"| set | what is trained | in CNN-{len(conv)} |\n|---|---|---|\n"
        f"{''.join(lines)}"
    )


def _presets() -> Iterator[str]:
    for name, preset in PRESETS.items():
        yield f"`{name}`: {preset.about}.\n\n{_values(preset.fields)}"
        if preset.fine_tuning:
            yield f"Experiments about fine-tuning alone:\n\n{_values(preset.fine_tuning)}"


def _values(values: Mapping[str, Any]) -> str:
    return "".join(f"- `{name}` = `{value!r}`\n" for name, value in values.items())


def _list(section: Any, at: str) -> str:
    lines = []
    for each in dataclasses.fields(section):
        if "rule" in each.metadata:
            name, value = f"{at}{each.name}", getattr(section, each.name)
            about, rule = each.metadata["about"], each.metadata["rule"]
            free = " Not compared." if each.metadata["free"] else ""
            lines.append(f"- `{name}` = `{value!r}`: {about}. Must be {rule}.{free}\n")
    return "".join(lines)


if __name__ == "__main__":
    print(page(), end="")
