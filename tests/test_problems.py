from mri_jax.problems import first_lines


def test_ten_lines_of_a_list_are_shown_and_the_rest_is_counted():
    lines = [f"scan {i}" for i in range(12)]
    shown = first_lines(lines, "failed.csv")
    assert shown[:10] == [f"  scan {i}" for i in range(10)]
    assert shown[10:] == ["  ... and 2 more in failed.csv"]
    assert first_lines(lines[:10], "failed.csv") == shown[:10]
    assert first_lines([], "failed.csv") == []
