"""uncloud-host, but it dies: dies.py FUNCTION... is `uncloud-host run`, killed by SIGKILL before or after one call.

FUNCTION is MODULE:NAME, as uncloud_host.store:Store.claim or os:link. The agent is the installed one; nothing in it is
replaced, but these functions look first whether this call is the last: whether there is a PLAN for it. It says

    call   the FUNCTION
    moment  before or after
    about  texts that are all in its arguments
    nth    which of those calls
    signal  SIGKILL, or SIGSTOP: then it is asleep there

The plan is used up by being renamed to DONE, so one plan is one death. Without a plan the agent is as it always is.
"""

import functools
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PLAN = Path("/run/uncloud-host/dies")
DONE = Path("/run/uncloud-host/died")

_calls: dict[str, int] = {}  # plan: how many of its calls there were


def wrap(name: str) -> None:
    """Put ourselves before and after a function, wherever a module of the agent has it."""
    module, _, path = name.partition(":")
    *outer, last = path.split(".")
    owner = functools.reduce(getattr, outer, importlib.import_module(module))
    original = getattr(owner, last)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        _die_if_planned(name, "before", [*args, *kwargs.values()])
        result = original(*args, **kwargs)
        _die_if_planned(name, "after", [*args, *kwargs.values()])
        return result

    setattr(owner, last, wrapped)
    for module_ in [found for key, found in sys.modules.items() if key.startswith("uncloud_host")]:
        for imported in [key for key, value in vars(module_).items() if value is original]:
            setattr(module_, imported, wrapped)


def _die_if_planned(name: str, moment: str, arguments: list[Any]) -> None:
    try:
        text = PLAN.read_text()
    except FileNotFoundError:
        return
    plan = json.loads(text)
    told = " ".join(map(str, arguments))
    if (plan["call"], plan["moment"]) != (name, moment) or not all(about in told for about in plan["about"]):
        return
    _calls[text] = _calls.get(text, 0) + 1
    if _calls[text] < plan["nth"]:
        return
    original_rename(PLAN, DONE)
    os.kill(os.getpid(), signal.Signals[plan["signal"]])


original_rename: Callable[[Path, Path], None] = os.rename  # Path.rename may be one of those that die


def main() -> int:
    program = importlib.import_module("uncloud_host.__main__")
    importlib.import_module("uncloud_host.agent")  # and with it all modules

    for name in sys.argv[1:]:
        wrap(name)
    sys.argv = ["uncloud-host", "run"]
    return int(program.main())


if __name__ == "__main__":
    sys.exit(main())
