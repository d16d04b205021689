"""What a study does is tested here; the arithmetic of its networks is in `tests/training`."""

from collections.abc import Iterator

import pytest

from tests.compiling import quickly


@pytest.fixture(autouse=True)
def compiled_quickly() -> Iterator[None]:
    with quickly():
        yield
