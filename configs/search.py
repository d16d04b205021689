"""Does searching over networks and their training bring anything? TPE beside random trials.

    pip install -e '.[search]'
    python launch.py --config=configs/search.py --plan
    python launch.py --config=configs/search.py

Trials see inner folds of the source alone. A fifth of its subjects is set aside before the first
trial; the winner's held-out score is theirs, because choosing among trials makes its own too good.
The winner, and the best of as many random trials, are then trained as always and shown to the
targets once, beside CNN-5, -7, -10, -12 and wider ones, which `depth` and `width` share. Several
processes may run this command at once, also on machines that share the folders. Not in the paper,
which names search as future work; docs/architecture_search.md says how to write a space.
"""

from configs import base, depth, width

SPACE = (
    {"field": "model.blocks", "type": "int", "low": 3, "high": 5},
    {
        "field": "model.repetitions",
        "type": "choice",
        "options": ((1, 1, 1, 1, 1), (1, 1, 1, 2, 2), (1, 2, 2, 2, 2)),
    },
    {
        "field": "model.filters",
        "type": "choice",
        "options": ((8, 16, 32, 64, 128), (8, 8, 16, 16, 32)),
    },
    {"field": "model.width", "type": "choice", "options": (0.5, 1.0, 1.5)},
    {"field": "model.fc", "type": "choice", "options": ((128, 64), (64,), ())},
    {"field": "model.attention", "type": "choice", "options": ("none", "se", "spatial", "map")},
    {
        "field": "model.attention_blocks",
        "type": "choice",
        "options": ((3,), (2, 3)),
        "when": {"model.attention": ("se", "spatial", "map")},
    },
    {"field": "model.norm", "type": "choice", "options": ("batch", "instance", "group")},
    {"field": "model.dropout", "type": "float", "low": 0.0, "high": 0.7},
    {"field": "train.learning_rate", "type": "float", "low": 3e-5, "high": 3e-3, "log": True},
    {"field": "train.weight_decay", "type": "float", "low": 1e-5, "high": 1e-1, "log": True},
    {"field": "train.batch", "type": "choice", "options": (2, 4)},
    {"field": "augment.flip", "type": "choice", "options": (False, True)},
    {"field": "augment.shift", "type": "int", "low": 0, "high": 2},
)
# Four times the multiply-adds of CNN-5: with CNN-5 as the only member of the family, 22 min on two
# cores, killed twice on the way.
DEMO_BUDGET = 525_000_000
TRIALS = {"smoke": 3, "demo": 12, "dev": 40, "paper": 40}


def get_config(preset: str = "demo"):
    """See the module's docstring."""
    config = base.get_config(preset)
    config.name = "search"
    family = (*depth.VARIANTS, *width.VARIANTS[1:])
    config.variants = family[:2] if preset == "smoke" else family
    config.search.space = SPACE
    config.search.trials = TRIALS[preset]
    config.search.most_multiply_adds = DEMO_BUDGET if preset == "demo" else 0
    return config
