"""A start with much queued: soon at work, cold and after kill -9 of everything."""

import pytest
from tests.crash.backlog import start_with

pytestmark = pytest.mark.real
MESSAGES = 100_000  # `python -m tests.crash.backlog` has the million, and the figures


def test_a_start_with_much_queued():
    """The first 250 within 4 s and the first delivery within 10 s; twice what it takes alone."""
    found = start_with(MESSAGES)

    for start in (found, found["after_kill_9"]):
        assert start["first_accept_s"] < 4, found
        assert start["first_delivery_s"] < 10, found
