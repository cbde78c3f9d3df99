"""The benchmark yields figures. What they are is nobody's failure here: machines differ, and others use them."""

import json
import subprocess
from pathlib import Path

RUN = Path(__file__).with_name("run")


def test_it_yields_figures() -> None:
    done = subprocess.run([RUN, "--starts", "3", "--json"], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["figures"]
    assert [one["starts"] for one in figures] == [3, 3, 3]
    assert all(0 < one["median"] <= one["p99"] < 60_000 for one in figures)
    assert figures[0]["ratio"] == 1


def test_a_wrong_number_is_refused() -> None:
    done = subprocess.run([RUN, "--starts", "0"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "expected an integer from 1 up" in done.stderr) == (2, True)
