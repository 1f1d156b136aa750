"""An office for each test of the desk."""

import pytest
from tests.desk.office import office as open_office


@pytest.fixture
def office(tmp_path):
    made = open_office(tmp_path)
    yield made
    made.shards.close()
