"""A second package, to upgrade to."""

from pathlib import Path

import pytest
from package import debs


@pytest.fixture(scope="session")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The .deb of a higher version."""
    return debs.newer(tmp_path_factory.mktemp("newer"))
