"""How many examples a property gets: few before every commit, the usual hundred in `make test`."""

from hypothesis import settings
from tests.effort import EFFORT

settings.register_profile("quick", max_examples=30, deadline=None)
settings.register_profile("thorough", max_examples=100, deadline=None)
settings.load_profile(EFFORT)
