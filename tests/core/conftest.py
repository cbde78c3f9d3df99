"""A package that builds today must build tomorrow: examples are random in tests/run, and the same in each build."""

import os

from hypothesis import settings

settings.register_profile("build", derandomize=True)
if "DEB_HOST_ARCH" in os.environ:
    settings.load_profile("build")
