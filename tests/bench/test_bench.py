"""The benchmark yields figures, and none is twice as bad as it was: ratios only, because machines differ."""

import json
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run")
# By what is measured: the ratio to what it is compared with that is too much. They were 0.9 and 1.2.
TOO_MUCH = {"etcdctl put acknowledged -> QEMU executing": 2.0, "put x 20 -> all executing": 2.5}


@pytest.fixture(scope="module")
def figures() -> dict[str, dict[str, float]]:
    words = [RUN, "--small", "--json", "systemd-run", "at-once"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return {one["what"]: one for one in json.loads(done.stdout)["figures"]}


@pytest.mark.parametrize("what", TOO_MUCH)
def test_nothing_became_twice_as_slow(figures: dict[str, dict[str, float]], what: str) -> None:
    assert 0 < figures[what]["ratio"] <= TOO_MUCH[what], figures


def test_a_wrong_row_is_refused() -> None:
    done = subprocess.run([RUN, "nonsense"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "expected one of" in done.stderr) == (2, True)
