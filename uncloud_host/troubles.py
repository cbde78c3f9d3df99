"""What is wrong on this host and lasts: from the event that began it until somebody sees that it is over.

    open/CLASS.ABOUT  since when, why, and which event told it

Agent and audit share it: what one of them has told, the other does not tell again, and either may see its end. About
what: a VM's uuid, or whatever tells one trouble of a class from another (a host's name, a process); nothing if there is
only one.
"""

import json
import os
import urllib.parse
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from uncloud_host import spool
from uncloud_host.events import Name
from uncloud_host.spool import DIRECTORY


@dataclass(frozen=True, slots=True)
class Trouble:
    """One that is open. `since` in RFC 3339, as in the event."""

    kind: str  # a value of events.LASTING
    about: str
    since: str
    event: str  # the name of the event that began it
    reason: str
    id: str = ""  # of that event


class Troubles:
    """Those of this host. For several programs at once: whoever creates the file has begun it, whoever removes it ended
    it."""

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self._open = directory / "open"
        self._open.mkdir(mode=0o700, parents=True, exist_ok=True)

    def begin(self, trouble: Trouble) -> bool:
        """Remember it; False if it is known. That systemd gave up is news also of a VM that is known to be down."""
        path = self._path(trouble.kind, trouble.about)
        with suppress(FileNotFoundError):
            known = _read(path)
            if known and known.id and known.id == trouble.id:
                return True
            if known and (trouble.event != Name.GAVE_UP or known.event == Name.GAVE_UP):
                return False
            self._replace(path, replace(trouble, since=known.since) if known else trouble)
            return True
        new = path.with_name(f".{path.name}.{os.getpid()}")
        spool.write(new, json.dumps(asdict(trouble)))
        try:
            os.link(new, path)
        except FileExistsError:
            return False
        finally:
            new.unlink()
        return True

    def _replace(self, path: Path, trouble: Trouble) -> None:
        new = path.with_name(f".{path.name}.{os.getpid()}")
        spool.write(new, json.dumps(asdict(trouble)))
        new.rename(path)

    def is_open(self, kind: str, about: str) -> bool:
        """Tell whether it has been begun."""
        with suppress(FileNotFoundError):
            return _read(self._path(kind, about)) is not None
        return False

    def find(self, kind: str, about: str) -> Trouble | None:
        """Return it; None if it has not been begun, or is over."""
        try:
            return _read(self._path(kind, about)) or Trouble(kind, about, "", "", "")
        except FileNotFoundError:
            return None

    def end(self, kind: str, about: str) -> None:
        """Forget it, after its end has been told."""
        self._path(kind, about).unlink(missing_ok=True)

    def all(self) -> list[Trouble]:
        """List what is open, oldest first."""
        found = []
        for path in self._open.iterdir():
            with suppress(FileNotFoundError):  # somebody has just ended it
                found += [] if path.name.startswith(".") else [_read(path)]
        return sorted(filter(None, found), key=lambda trouble: (trouble.since, trouble.kind, trouble.about))

    def events(self) -> set[str]:
        """List the ids of the events that began what is open."""
        return {trouble.id for trouble in self.all()}

    def _path(self, kind: str, about: str) -> Path:
        return self._open / f"{kind}.{urllib.parse.quote(about, safe='')[:200]}"


def _read(path: Path) -> Trouble | None:
    """Read one; None if it was damaged by a crash of the host. Raises FileNotFoundError."""
    try:
        return Trouble(**json.loads(path.read_text()))
    except (ValueError, TypeError):
        return None
