"""Looks at files that may never end: whoever touches a file of a server that is away hangs in the kernel until it is
back, and no signal but SIGKILL helps. So a thread touches it, and is left hanging.
"""

import threading
from collections.abc import Callable, Collection

ENOUGH = 10.0  # seconds for a few files; a disk that is only busy takes less


class Silence(Exception):
    """No answer; the message names the directories that it was waited for."""


class Patience:
    """For the deciding thread, which waits once for each directory, and not again while that wait has not ended."""

    def __init__(self) -> None:
        self._hanging: dict[str, threading.Thread] = {}  # by directory

    def look(self, directories: Collection[str], look: Callable[[], None]) -> None:
        """Call `look`, which touches files below these directories. Raises Silence, and what `look` raises."""
        hanging = [where for where in directories if where in self._hanging and self._hanging[where].is_alive()]
        if hanging:
            raise Silence(" or ".join(hanging))
        raised: list[Exception] = []
        thread = threading.Thread(target=_look, args=[look, raised], name="files", daemon=True)
        thread.start()
        thread.join(ENOUGH)
        if thread.is_alive():
            self._hanging |= dict.fromkeys(directories, thread)
            raise Silence(" or ".join(directories))
        if raised:
            raise raised[0]


def _look(look: Callable[[], None], raised: list[Exception]) -> None:
    try:
        look()
    except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
        raised.append(error)
