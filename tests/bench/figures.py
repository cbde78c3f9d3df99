"""Figures of a run: what was measured how often, beside what, and whether that is the goal."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to be reached: a limit for one of `ratio`, `median` and `p99`, in the figure's own unit."""

    limit: float
    of: str = "ratio"
    at_least: bool = False

    def __str__(self) -> str:
        return f"{self.of} {'>=' if self.at_least else '<='} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    what: str
    samples: tuple[float, ...]
    unit: str = "ms"
    beside: float | None = None  # the median of what it is compared with
    goal: Goal | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def p99(self) -> float:
        """Of fewer than 100 samples the largest."""
        return sorted(self.samples)[math.ceil(0.99 * len(self.samples)) - 1]

    @property
    def spread(self) -> tuple[float, float]:
        return min(self.samples), max(self.samples)

    @property
    def ratio(self) -> float | None:
        return self.median / self.beside if self.beside else None

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is reached; None if there is none."""
        if self.goal is None:
            return None
        found = float(getattr(self, self.goal.of))
        return found >= self.goal.limit if self.goal.at_least else found <= self.goal.limit


def seconds(what: str, samples: Sequence[float], beside: Sequence[float] = (), goal: Goal | None = None) -> Figure:
    """A figure of times, which are shown in ms."""
    return Figure(
        what, tuple(1000 * one for one in samples), "ms", 1000 * statistics.median(beside) if beside else None, goal
    )


def table(figures: Sequence[Figure]) -> str:
    """For people."""
    lines = [f"{'':58} {'n':>4} {'median':>11} {'p99':>11} {'ratio':>6}  goal"]
    for one in figures:
        numbers = f"{number(one.median, one.unit)} {number(one.p99, one.unit)}"
        ratio = f"{one.ratio:6.2f}" if one.ratio is not None else " " * 6
        verdict = "" if one.goal is None else f"  {one.goal}: {'met' if one.is_met else 'NOT MET'}"
        lines.append(f"{one.what:58} {len(one.samples):4} {numbers} {ratio}{verdict}".rstrip())
    return "\n".join(lines)


def number(value: float, unit: str) -> str:
    """Three digits or so."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:7.{digits}f} {unit:3}"


def told(one: Figure) -> dict[str, object]:
    """For programs."""
    low, high = one.spread
    return {
        "what": one.what, "unit": one.unit, "n": len(one.samples), "median": one.median, "p99": one.p99,
        "min": low, "max": high, "ratio": one.ratio, "goal": str(one.goal) if one.goal else None, "met": one.is_met,
    }  # fmt: skip
