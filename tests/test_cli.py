import pytest

from mri_jax import cli


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["simulate", "--out", "x", "--seed", "x"], "argument --seed: invalid int value: 'x'"),
        (["predikt"], "argument COMMAND: invalid choice: 'predikt'"),
        (["explain"], "the following arguments are required: RUN, --out, --cohort"),
    ],
)
def test_a_wrong_argument_is_one_line_and_exit_code_2(arguments, line, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"error: {line}")
