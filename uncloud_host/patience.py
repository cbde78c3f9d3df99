"""Looks at files that may never end: whoever touches a file of a server that is away hangs in the kernel until it is
back, and no signal but SIGKILL helps. So a thread touches it, and is left hanging.
"""

import threading
from collections.abc import Callable

ENOUGH = 10.0  # seconds for a few files; a disk that is only busy takes less


class Silence(Exception):
    """No answer; the message is the directory that it was waited for."""


class Patience:
    """For the deciding thread, which waits once for each directory, and not again while that wait has not ended."""

    def __init__(self) -> None:
        self._hanging: dict[str, threading.Thread] = {}  # by directory

    def look(self, directory: str, look: Callable[[], None]) -> None:
        """Call `look`, which touches a file below this directory. Raises Silence, and what `look` raises."""
        raised: list[Exception] = []
        if not (directory in self._hanging and self._hanging[directory].is_alive()):
            thread = threading.Thread(target=_look, args=[look, raised], name="files", daemon=True)
            thread.start()
            thread.join(ENOUGH)
            self._hanging[directory] = thread
        if self._hanging[directory].is_alive():
            raise Silence(directory)
        if raised:
            raise raised[0]


def _look(look: Callable[[], None], raised: list[Exception]) -> None:
    try:
        look()
    except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
        raised.append(error)
