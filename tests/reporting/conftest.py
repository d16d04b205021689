import pytest

from tests.reporting.rendering import unrendered as within


@pytest.fixture
def unrendered():
    """See `tests.reporting.rendering`; for tests of tables and words."""
    with within():
        yield
