import pytest

from mri_jax.settings.overrides import given, plainly, wrong

CONFIG = {
    "seed": 0,
    "voxels": False,
    "targets": ("A",),
    "sites": {"minimum": 10},
    "train": {"batch": 2, "learning_rate": 1e-4},
}


def test_fields_are_found_in_every_form():
    argv = [
        "launch.py",
        "--config=c.py:dev",
        "--config.seed=3",
        "-config.train.batch",
        "4",
        "--plan",
    ]
    assert given(argv) == [("config.seed", "3"), ("config.train.batch", "4")]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("--config.seed=3 --config.seed=4 --config.targets=('B',)", ""),
        ("--config.seed -1", ""),
        ("--config.voxels --plan", ""),
        (
            "--config.train.lr=1",
            "train.lr: no such field; did you mean config.train.learning_",
        ),
        ("--config.train.bacth=1", "train.bacth: no such field; did you mean config.train.batch?"),
        ("--config.batch=1", "batch: no such field; did you mean config.train.batch?"),
        (
            "--config.model.form=native",
            "model.form: is no field any more; --forms (launch.py --help) chooses how conv layers",
        ),
        ("--config.train.q=1", "train.q: no such field; config.train has batch, learning_rate"),
        ("--config.train=1", "train: is a section; give a field of it: config.train.batch, "),
        ("--config.seed --plan", "seed: has no value; write --config.seed=VALUE"),
        ("--config.sites.minimum=0", "sites.minimum: 0 leaves no site out, which is another"),
        ("--config.sites.minimum=1", ""),
        ("--config.targets=A --config.targets=B", "targets: is given 2 times (A, B); it must be "),
        (
            "--config.targets=(A,)",
            "targets: '(A,)' must be a tuple; texts in it stand in",
        ),
    ],
)
def test_what_is_wrong_is_one_line_with_the_field(arguments, line):
    found = wrong(arguments.split(), CONFIG)
    assert found.startswith(line and f"config.{line}")
    assert bool(found) == bool(line)


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("flag --config.train.max_epochs=five: invalid literal for int() with base 10: 'five'",
         "config.train.max_epochs: 'five' must be a whole number from 1 to 100000"),
        ("flag --config.baselines.voxels=maybe: ('Non-boolean argument to boolean flag', 'maybe')",
         "config.baselines.voxels: 'maybe' must be True or False"),
        ("flag --cpu_folds=x: invalid literal for int() with base 10: 'x'",
         "--cpu_folds: 'x' must be a whole number"),
        ("flag --allocator=x: value should be one of <tuned|stock>",
         "--allocator: 'x': value should be one of <tuned|stock>"),
        ("Unknown command line flag 'confg.seed'",
         "--confg.seed: no such flag; did you mean --config?"),
        ("Unknown command line flag 'zzz'", "--zzz: no such flag; --help lists those there are"),
        ("something else", ""),
    ],
)  # fmt: skip
def test_absl_s_messages_are_told_in_plain_words(message, line):
    assert plainly(message, ["cpu_folds", "allocator"]) == line
