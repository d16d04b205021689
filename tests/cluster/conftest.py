import pytest

from mri_jax.cluster.address import Cluster, connected


@pytest.fixture(scope="module")
def client():
    """A client of two workers of this machine."""
    with connected(Cluster("local", workers=2), lambda line: None) as client:
        yield client
