"""Which parameters train: ordered regular expressions over parameter paths, and named sets."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import optax
from absl import logging

from mri_jax.errors import UserError
from mri_jax.models import CNNSpec

# (pattern, whether it trains); the first pattern that matches a whole path decides.
Rules = tuple[tuple[str, bool], ...]
NAMED_SETS = ("all", "low", "high", "head")


def rules_for(layers: str | Sequence[Sequence[Any]], spec: CNNSpec) -> Rules:
    """The rules of a named set, or the user's own, checked for form.

    Args:
      layers: ``all``; ``low`` (first conv layer and its BatchNorm); ``high`` (last conv layer, its
        BatchNorm and all FC layers); ``head`` (FC layers); or pairs (pattern, trains).
      spec: The network, for its number of conv layers.

    Raises:
      UserError: No such set, or a rule is not (regular expression, bool).
    """
    last = len(spec.conv_filters)
    named: dict[str, Rules] = {
        "all": ((".*", True),),
        "low": (("(conv1|bn1)/.*", True), (".*", False)),
        "high": ((rf"(conv{last}|bn{last}|fc\d+)/.*", True), (".*", False)),
        "head": ((r"fc\d+/.*", True), (".*", False)),
    }
    if isinstance(layers, str):
        if layers not in named:
            raise UserError(f"layers: {layers!r} must be one of {NAMED_SETS} or a list of rules")
        return named[layers]
    rules = []
    for rule in layers:
        if len(rule) != 2 or not isinstance(rule[0], str) or not isinstance(rule[1], bool):
            raise UserError(f"layers: rule {rule!r} must be a pair (pattern, true or false)")
        try:
            re.compile(rule[0])
        except re.error as error:
            raise UserError(f"layers: {rule[0]!r} is no regular expression ({error})") from None
        rules.append((rule[0], rule[1]))
    return tuple(rules)


def path_of(keys: tuple[Any, ...]) -> str:
    """``conv1/kernel`` for the key path of a leaf."""
    return "/".join(str(key.key) for key in keys)


def trainable_mask(rules: Rules, params: Mapping[str, Any]) -> dict[str, Any]:
    """A tree like ``params`` of bools: whether the first matching rule trains the parameter.

    Raises:
      UserError: A parameter is matched by no rule, a rule decides nothing, or nothing trains.
    """
    decided = [0] * len(rules)

    def decide(keys: tuple[Any, ...], _: Any) -> bool:
        path = path_of(keys)
        for i, (pattern, trains) in enumerate(rules):
            if re.fullmatch(pattern, path):
                decided[i] += 1
                return trains
        raise UserError(f"layers: no rule of {[r[0] for r in rules]} matches parameter {path!r}")

    mask = jax.tree_util.tree_map_with_path(decide, params)
    for (pattern, _), count in zip(rules, decided, strict=True):
        if count == 0:
            paths = [path_of(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(params)]
            raise UserError(f"layers: rule {pattern!r} decides no parameter of {paths}")
    if not any(jax.tree.leaves(mask)):
        raise UserError(f"layers: the rules {rules} train nothing")
    return mask


def describe(rules: Rules, params: Mapping[str, Any]) -> str:
    """One line: how many parameters each rule decided, for the log."""
    mask = trainable_mask(rules, params)
    sizes = jax.tree.leaves(jax.tree.map(lambda p: int(p.size), params))
    flags = jax.tree.leaves(mask)
    trained = sum(size for size, flag in zip(sizes, flags, strict=True) if flag)
    names = [path_of(keys) for keys, flag in jax.tree_util.tree_leaves_with_path(mask) if flag]
    return f"training {trained} of {sum(sizes)} parameters: {', '.join(names)}"


def log_rules(rules: Rules, params: Mapping[str, Any]) -> None:
    """Log what trains."""
    logging.info("%s", describe(rules, params))


def select(tree: Any, mask: Any, keep: bool = True) -> Any:
    """``tree`` with `optax.MaskedNode` (an empty tree) where ``mask`` is not ``keep``.

    Gradients and optimizer state of such a tree exist for the kept leaves alone.
    """
    return jax.tree.map(lambda leaf, flag: leaf if flag == keep else optax.MaskedNode(), tree, mask)


def merge(selected: Any, rest: Any) -> Any:
    """Inverse of `select`: fill the masked places of one tree from the other."""

    def is_masked(node: Any) -> bool:
        return isinstance(node, optax.MaskedNode)

    return jax.tree.map(lambda a, b: b if is_masked(a) else a, selected, rest, is_leaf=is_masked)


def frozen_norms(mask: Mapping[str, Any]) -> frozenset[str]:
    """Names of the BatchNorm layers of which no parameter trains."""
    return frozenset(
        name
        for name, layer in mask.items()
        if name.startswith("bn") and not any(jax.tree.leaves(layer))
    )


def frozen_prefix(mask: Mapping[str, Any], spec: CNNSpec) -> int:
    """How many conv layers at the input do not train at all (conv and BatchNorm).

    With frozen statistics and no augmentation, the output of that prefix is a constant of each
    volume; `CNN.trunk` computes it with ``last=frozen_prefix(...)``.
    """
    for i in range(1, len(spec.conv_filters) + 1):
        if any(jax.tree.leaves((mask[f"conv{i}"], mask[f"bn{i}"]))):
            return i - 1
    return len(spec.conv_filters)
