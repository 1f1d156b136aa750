"""How many examples a property gets: few before every commit, the usual hundred in `make test`.

Both begin with the same seed each time, so that a test hardly ever fails by luck. (Not never:
hypothesis also tries constants of the modules that a test process happens to have loaded.)
`POSTWEIR_PROPERTIES=explore` looks for new ones; what it finds becomes an example in the test.
"""

from hypothesis import settings
from tests.effort import EFFORT

settings.register_profile("quick", max_examples=30, deadline=None, derandomize=True)
settings.register_profile("thorough", max_examples=100, deadline=None, derandomize=True)
settings.register_profile("explore", max_examples=300, deadline=None)
settings.load_profile(EFFORT)
