from mri_jax.problems import Problem, counted, first_lines, quoted


def test_ten_lines_of_a_list_are_shown_and_the_rest_is_counted():
    lines = [f"scan {i}" for i in range(12)]
    shown = first_lines(lines, "failed.csv")
    assert shown[:10] == [f"  scan {i}" for i in range(10)]
    assert shown[10:] == ["  ... and 2 more in failed.csv"]
    assert first_lines(lines[:10], "failed.csv") == shown[:10]
    assert first_lines([], "failed.csv") == []


def test_one_is_said_in_the_singular():
    said = [counted(n, "diagnosis counts", "diagnoses count") for n in (0, 1, 2)]
    assert said == ["0 diagnoses count", "1 diagnosis counts", "2 diagnoses count"]
    assert [counted(n, "scan") for n in (1, 2)] == ["1 scan", "2 scans"]


def test_a_value_is_printed_as_it_is_written_without_what_a_terminal_obeys():
    said = str(Problem("t.csv", 2, "image", "scans\\a.nii", "does not exist"))
    assert said == "t.csv: row 2: column image: 'scans\\a.nii' does not exist"
    assert quoted("a\033[2J\n") == r"'a\x1b[2J\n'"
    assert quoted("it's") == '"it\'s"'
