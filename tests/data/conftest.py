"""What the tests of synthetic defects share."""

import pytest

from labkit.core.records import GOOD
from labkit.data.procedural import products


@pytest.fixture(scope="session")
def pair():
    return [products.draw("gear", GOOD, k)[0] for k in range(2)]
