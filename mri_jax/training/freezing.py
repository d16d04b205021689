"""Which parameters train: named sets of layers, as patterns over the paths of parameters."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import optax
from absl import logging

from mri_jax.errors import UserError
from mri_jax.models import CNNSpec

# (pattern, whether it trains); the first pattern that matches a whole path decides.
Rules = tuple[tuple[str, bool], ...]


def rules_for(layers: str, spec: CNNSpec) -> Rules:
    """Returns the rules of a named set of layers.

    Args:
      layers: ``all``; ``low`` (first conv layer); ``high`` (last conv layer and all FC layers);
        ``head`` (FC layers); or a conv layer, ``conv3``. A conv layer comes with its BatchNorm and
        with the gate that follows it.
      spec: The network.

    Raises:
      UserError: The network has no such set.
    """
    convs = range(1, len(spec.conv_filters) + 1)
    each = {i: "|".join(spec.of_conv(i)) for i in convs}
    trained = {
        "all": ".*",
        "low": f"({each[1]})/.*",
        "high": rf"({each[convs[-1]]}|fc\d+)/.*",
        "head": r"fc\d+/.*",
        **{f"conv{i}": f"({names})/.*" for i, names in each.items()},
    }
    if layers not in trained:
        raise UserError(f"layers: {layers!r} must be one of {', '.join(trained)}")
    rest = () if layers == "all" else ((".*", False),)
    return ((trained[layers], True), *rest)


def path_of(keys: tuple[Any, ...]) -> str:
    """Returns ``conv1/kernel`` for the key path of a leaf."""
    return "/".join(str(key.key) for key in keys)


def trainable_mask(rules: Rules, params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a tree like ``params`` of bools: whether the first matching rule trains it."""

    def decide(keys: tuple[Any, ...], _: Any) -> bool:
        return next(trains for pattern, trains in rules if re.fullmatch(pattern, path_of(keys)))

    return jax.tree_util.tree_map_with_path(decide, params)


def describe(rules: Rules, params: Mapping[str, Any]) -> str:
    """Returns a line for the log: which parameters train, and how many numbers they have."""
    mask = trainable_mask(rules, params)
    sizes = jax.tree.leaves(jax.tree.map(lambda p: int(p.size), params))
    flags = jax.tree.leaves(mask)
    trained = sum(size for size, flag in zip(sizes, flags, strict=True) if flag)
    names = [path_of(keys) for keys, flag in jax.tree_util.tree_leaves_with_path(mask) if flag]
    return f"training {trained} of {sum(sizes)} parameters: {', '.join(names)}"


def log_rules(rules: Rules, params: Mapping[str, Any]) -> None:
    """Logs what trains."""
    logging.info("%s", describe(rules, params))


def select(tree: Any, mask: Any, keep: bool = True) -> Any:
    """Returns ``tree`` with `optax.MaskedNode` (an empty tree) where ``mask`` is not ``keep``.

    Gradients and optimizer state of such a tree exist for the kept leaves alone.
    """
    return jax.tree.map(lambda leaf, flag: leaf if flag == keep else optax.MaskedNode(), tree, mask)


def merge(selected: Any, rest: Any) -> Any:
    """Fills the masked places of one tree from the other; the inverse of `select`."""

    def is_masked(node: Any) -> bool:
        return isinstance(node, optax.MaskedNode)

    return jax.tree.map(lambda a, b: b if is_masked(a) else a, selected, rest, is_leaf=is_masked)


def frozen_norms(mask: Mapping[str, Any]) -> frozenset[str]:
    """Returns the names of the BatchNorm layers of which no parameter trains."""
    return frozenset(
        name
        for name, layer in mask.items()
        if name.startswith("bn") and not any(jax.tree.leaves(layer))
    )


def frozen_prefix(mask: Mapping[str, Any], spec: CNNSpec) -> int:
    """Returns how many conv layers at the input do not train at all, with what belongs to them.

    They end where others can begin (`CNNSpec.stretches`).

    With frozen statistics and no augmentation, the output of that prefix is a constant of each
    volume; `CNN.trunk` computes it with ``last=frozen_prefix(...)``.
    """
    for first, last in spec.stretches:
        names = [name for i in range(first, last + 1) for name in spec.of_conv(i)]
        if any(jax.tree.leaves([mask[name] for name in names])):
            return first - 1
    return len(spec.conv_filters)
