"""How many examples a property gets: few before every commit, the usual hundred in `make test`.

Both take the same ones each time, so that a test fails for what was changed and never by luck.
`POSTWEIR_PROPERTIES=explore` looks for new ones; what it finds becomes an example in the test.
"""

from hypothesis import settings
from tests.effort import EFFORT

settings.register_profile("quick", max_examples=30, deadline=None, derandomize=True)
settings.register_profile("thorough", max_examples=100, deadline=None, derandomize=True)
settings.register_profile("explore", max_examples=300, deadline=None)
settings.load_profile(EFFORT)
