"""Something that is done again and again beside the test, until it is ended."""

import random
import threading
from collections.abc import Callable


class Again(threading.Thread):
    """Calls `act` with a pause of seconds before each call; what it raises ends it and is kept for the test."""

    def __init__(
        self, name: str, act: Callable[[threading.Event], None], pauses: tuple[float, float], seed: int
    ) -> None:
        super().__init__(name=name)
        self._act, self._pauses, self._chance = act, pauses, random.Random(f"{name} {seed}")
        self._is_over = threading.Event()
        self.failed: Exception | None = None

    def run(self) -> None:
        try:
            while not self._is_over.wait(self._chance.uniform(*self._pauses)):
                self._act(self._is_over)
        except Exception as error:  # noqa: BLE001  # the test raises it
            self.failed = error
            self._is_over.set()

    @property
    def is_over(self) -> bool:
        return self._is_over.is_set()

    def end(self) -> None:
        """Ask it to come to its end."""
        self._is_over.set()
