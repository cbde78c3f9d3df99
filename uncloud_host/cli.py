"""The commands for people: their words, their exit statuses, their errors in one line."""

import argparse
import os
import sys
from typing import NoReturn

ASKS = {
    "start": "start VMs, also those that have failed",
    "stop": "stop VMs",
    "restart": "stop VMs and start them with what their entries say now",
}
VM = "a uuid, the beginning of one, or a name"
COULD_NOT_LOOK, BROKEN_PIPE = 2, 141  # as a shell shows SIGPIPE


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        """End with status 2, as argparse does."""
        self.exit(2, f"{self.prog}: {message}; see --help\n")


def add_commands(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Describe the commands that do their work once and end."""
    listing = _add(commands, "ls", "list the VMs of this host")
    listing.add_argument("--all", action="store_true", help="those of all hosts")
    _add(commands, "show", "tell everything about a VM").add_argument("vm", metavar="VM", help=VM)
    plan = _add(commands, "plan", "tell what a pass of the agent would do now; changes nothing")
    plan.add_argument("vm", metavar="VM", nargs="?", help=VM)
    for name, does in ASKS.items():
        asking = _add(commands, name, does)
        asking.add_argument("vms", metavar="VM", nargs="+", help=VM)
        asking.add_argument("--wait", action="store_true", help="until it is done, showing the way there")
        asking.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="with --wait: how long (300)")
    confirm = _add(commands, "confirm", "end the hold on VMs whose entries are gone from etcd")
    confirm.add_argument("vms", metavar="VM", nargs="*", help=VM)
    confirm.add_argument("--all", action="store_true", help="all that are held on this host")
    takeover = _add(commands, "takeover", "give the VMs of a host that is dead to another one")
    takeover.add_argument("vms", metavar="VM", nargs="*", help=VM)
    takeover.add_argument("--host", metavar="DEAD", help="all that this host has claimed")
    takeover.add_argument("--to", metavar="HOST", help="who is to run them (this host)")
    takeover.add_argument("--host-is-off", action="store_true", help="it runs nothing any more: you have looked")
    role = _add(commands, "etcd-role", "print the commands that allow a host in etcd what it needs", json=False)
    role.add_argument("host", metavar="HOST", type=_host, help="its name, as entries have it")
    role.add_argument(
        "--password-file", metavar="FILE", default="", help="a user with this password; else a certificate"
    )
    log = _add(commands, "log", "show what happened on this host")
    log.add_argument("vm", metavar="VM", nargs="?", help=f"{VM}, also of one that is gone")
    log.add_argument("--all", action="store_true", help="on all hosts")
    log.add_argument("-f", "--follow", action="store_true", help="go on with what happens")
    log.add_argument("--since", metavar="TIME", help="all since then: 2h, 7d, today, yesterday, 2026-11-25T16:00")
    log.add_argument("-n", "--lines", type=_number, metavar="N", help="only the last N (100)")
    audit = _add(commands, "audit", "compare this host with etcd, and look for hosts that are silent")
    audit.add_argument("--now", action="store_true", help="without waiting whether what seems wrong lasts")
    audit.add_argument("--tell", action="store_true", help="tell it as events (what uncloud-host-audit.service does)")
    _add_screens(commands)
    _add_runtime(commands)
    _add_for_entries(commands)


def _add_for_entries(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Describe the commands that are about entries as such."""
    validate = _add(commands, "validate", "check entries in files and tell all that is wrong with them")
    validate.add_argument("files", metavar="FILE", nargs="+", help="a file with an entry; - is standard input")
    _add(commands, "schema", "print the JSON Schema of an entry", json=False)
    render = _add(commands, "render", "show the unit of a VM and the command in it, as they would be started now")
    render.add_argument("vm", metavar="VM", help=f"{VM}, of an entry in etcd; or a file with one (with a / or .json)")
    only = render.add_mutually_exclusive_group()
    only.add_argument("--unit", dest="only", action="store_const", const="unit", help="as systemctl cat shows it")
    only.add_argument("--command", dest="only", action="store_const", const="command", help="to be copied to a shell")
    only.add_argument("--seed", dest="only", action="store_const", const="seed", help="cloud-init's disk itself")


def _add_screens(commands: "argparse._SubParsersAction[Parser]") -> None:
    console = _add(commands, "console", "be the terminal of a VM's serial console; Ctrl-] detaches", json=False)
    console.add_argument("vm", metavar="VM", help=VM)
    console.add_argument("--lines", type=_number, default=0, metavar="N", help="first the last N lines of the journal")
    _add(commands, "vnc", "tell where the screen of a VM is").add_argument("vm", metavar="VM", help=VM)


def _add_runtime(commands: "argparse._SubParsersAction[Parser]") -> None:
    runtime = _add(commands, "runtime", "tell how long the VMs of this host ran, or each run of one", json=False)
    runtime.add_argument("vm", metavar="VM", nargs="?", help=VM)
    runtime.add_argument("--month", metavar="MONTH", help="of UTC, like 2026-11; else this month")
    runtime.add_argument("--since", metavar="TIME", help="a date, or a time as in RFC 3339")
    runtime.add_argument("--until", metavar="TIME", help="the same; the first that does not count")
    runtime.add_argument("--all", action="store_true", help="what ran on all hosts")
    form = runtime.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="for programs")
    form.add_argument("--csv", action="store_true", help="for accounting, as in RFC 4180")


def _add(commands: "argparse._SubParsersAction[Parser]", name: str, does: str, *, json: bool = True) -> Parser:
    parser = commands.add_parser(name, help=does, description=f"{does[0].upper()}{does[1:]}.")
    if json:
        parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=_run, command=name)
    return parser


def _host(text: str) -> str:
    if not text or "/" in text or not text.isprintable() or " " in text:
        raise argparse.ArgumentTypeError(f"expected the name of a host, got {text!r}")
    return text


def _seconds(text: str) -> float:
    return _number(text, "a number of seconds")


def _number(text: str, expected: str = "a number") -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
    return int(text)


def _run(arguments: argparse.Namespace) -> int:
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names in a terminal without UTF-8
    try:
        status = _command(arguments)
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        if isinstance(error, BrokenPipeError):
            return BROKEN_PIPE
        print(f"uncloud-host: {error}", file=sys.stderr)
        return COULD_NOT_LOOK
    return status


def _command(arguments: argparse.Namespace) -> int:
    if arguments.command in {"validate", "schema"}:
        from uncloud_host import checking  # noqa: PLC0415

        return checking.validate(arguments) if arguments.command == "validate" else checking.schema(arguments)
    # Imported here: etcd3 alone costs 170 ms and 39 MiB, which --help need not pay.
    from uncloud_host import (  # noqa: PLC0415
        accounting,
        asking,
        attaching,
        auditing,
        following,
        looking,
        rendering,
        roles,
        snapshot,
        taking,
    )
    from uncloud_host.events import clean  # noqa: PLC0415

    commands = {"ls": looking.ls, "show": looking.show, "plan": looking.plan, "confirm": asking.confirm}
    commands |= {"console": attaching.console, "vnc": looking.vnc, "log": following.log, "runtime": accounting.show}
    try:
        if arguments.command == "render":
            return rendering.render(arguments, snapshot.configured())
        if arguments.command == "etcd-role":
            prefix = snapshot.configured().prefix
            print(*roles.commands(arguments.host, prefix, arguments.password_file), sep="\n")
            return 0
        if arguments.command == "takeover":
            return taking.take(arguments, snapshot.configured())
        if arguments.command == "audit":
            return auditing.run(arguments, snapshot.configured())
        return commands.get(arguments.command, asking.ask)(arguments, snapshot.Snapshot(snapshot.configured()))
    except (snapshot.Wrong, *snapshot.COULD_NOT_LOOK, RecursionError) as error:  # the last: nested too deeply
        print(f"uncloud-host: {clean(str(error))}", file=sys.stderr)
        return 1 if isinstance(error, snapshot.Unknown) else COULD_NOT_LOOK
