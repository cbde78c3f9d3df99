"""A package that builds today must build tomorrow: examples are random in tests/run, and the same in each build."""

import os

from hypothesis import settings

settings.register_profile("run", deadline=None)  # how long an example takes is the machine's, not ours
settings.register_profile("build", deadline=None, derandomize=True)
settings.load_profile("build" if "DEB_HOST_ARCH" in os.environ else "run")
