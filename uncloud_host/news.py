"""What the mirror tells: hints, that say where to look again."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Synced:
    """The mirror is in step. `relisted`: anything may have changed, look at everything."""

    revision: int
    relisted: bool
    regressed: bool  # etcd's history is not the one we knew: it went backwards or was replaced


@dataclass(frozen=True, slots=True)
class Changed:
    """These keys changed, at these revisions: kept ones, and interesting ones below the hints."""

    keys: Mapping[str, int]
    deleted: Mapping[str, int]  # those of the kept ones that were deleted, even if they are back by now


@dataclass(frozen=True, slots=True)
class Lost:
    """The mirror is out of step and keeps trying; told once until the next Synced."""

    reason: str


Told = Synced | Changed | Lost
