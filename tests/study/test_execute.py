"""What groups of trainings are called on the screen."""

from types import SimpleNamespace

from mri_jax.study.execute import label_of


def named(*labels: str, kind: str = "source") -> str:
    return label_of([SimpleNamespace(kind=kind, label=label) for label in labels])


def test_a_group_is_called_by_what_its_networks_have_in_common():
    assert named("cnn5-w1", "cnn5-w1") == "source cnn5-w1"
    assert named("cnn5-w1 tuned-high-labels5", "cnn5-w1 tuned-high-labels20") == (
        "source cnn5-w1 tuned-high"
    )
    assert named("cnn5-w1-without-A", "cnn5-w1-without-B+C") == (
        "source cnn5-w1 without each of 2 sites"
    )
    tuned = ("cnn5-w1-without-A tuned-high", "cnn5-w1-without-B tuned-high")
    assert named(*tuned, kind="tune") == "tune cnn5-w1 tuned-high without each of 2 sites"
    assert named("cnn5-w1-without-A", "cnn5-w1-without-A") == "source cnn5-w1-without-A"
