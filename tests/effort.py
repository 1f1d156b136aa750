"""How hard tests try: a little before every commit (`make check`), all of it in `make test`."""

import os

EFFORT = os.environ.get("POSTWEIR_PROPERTIES", "quick")
THOROUGH = EFFORT in ("thorough", "explore")
