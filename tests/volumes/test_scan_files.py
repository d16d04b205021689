import gzip
import zlib

import pytest

from mri_jax.errors import UserError
from mri_jax.volumes.scan_files import check_regular, is_label_name, is_scan_name, why_unreadable


def test_names_of_scans_and_of_segmentations():
    assert [is_scan_name(n) for n in ("a.NII", "b.nii.gz", "._b.nii.gz", "c.nii.gz.part")] == [
        True,
        True,
        False,
        False,
    ]
    labels = ("aseg.mgz", "aparc+aseg.mgz", "aparc.a2009s+aseg.mgz", "wm.mgz", "lh.ribbon.mgz")
    assert all(map(is_label_name, labels))
    assert not any(map(is_label_name, ("orig.mgz", "T1.mgz", "asegment_T1w.mgz", "aseg.nii.gz")))


def test_a_library_s_words_on_a_damaged_file_become_what_to_do():
    cut = "Compressed file ended before the end-of-stream marker was reached"
    assert why_unreadable(EOFError(cut)) == "the file is cut off; copy or download it again"
    for error in (zlib.error("Error -3"), gzip.BadGzipFile("CRC check failed")):
        assert why_unreadable(error) == "the file is damaged; copy or download it again"
    assert why_unreadable(ValueError("two\nlines")) == "two"
    assert why_unreadable(OSError()) == "OSError"


def test_a_path_of_windows_is_told_from_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"no such file \(folders are separated by / here, not by"):
        check_regular(tmp_path / "scans\\a.nii")
    with pytest.raises(UserError, match=r"no such file$"):
        check_regular(tmp_path / "a.nii")
