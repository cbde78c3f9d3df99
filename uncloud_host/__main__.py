"""The command `uncloud-host`, and the agent that it runs."""

import argparse
import logging
import os
import signal
import sys

from uncloud_host import cli

# What pydantic (2.10) need not do at import: look through all installed packages for plugins, which have no business
# here, and check what it has built itself. 70 of the 500 ms of an `ls`, and of each start of the agent.
FASTER = {"PYDANTIC_DISABLE_PLUGINS": "__all__", "PYDANTIC_SKIP_VALIDATING_CORE_SCHEMAS": "1"}
EX_CONFIG = 78  # sysexits.h; the unit is not restarted after it: nothing changes until somebody changes something


def main() -> int:
    """Run the command; return its exit status."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Shells show that as 130. KeyboardInterrupt may come up anywhere: out of pydantic it is a panic of Rust.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    for name, value in FASTER.items():
        os.environ.setdefault(name, value)
    arguments = _parser().parse_args()
    return int(arguments.run(arguments))


def _parser() -> argparse.ArgumentParser:
    import importlib.metadata  # noqa: PLC0415 - a third of the time of --help, in which Ctrl-C is a traceback

    parser = cli.Parser(
        prog="uncloud-host", description="Run the virtual machines that etcd designates to this host, under systemd."
    )
    version = importlib.metadata.version("uncloud-host")
    parser.add_argument("--version", action="version", version=f"uncloud-host {version}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    agent = commands.add_parser("run", help="run the agent (what uncloud-host.service does)")
    agent.set_defaults(run=_run)
    notify = commands.add_parser("notify", help="tell that systemd gave up a VM (what its unit's OnFailure= does)")
    notify.add_argument("unit", metavar="vm-UUID")
    notify.set_defaults(run=_notify)
    cli.add_commands(commands)
    return parser


def _run(_arguments: argparse.Namespace) -> int:
    # Imported here: etcd3 alone costs 170 ms and 39 MiB, which --help need not pay.
    from uncloud_host import config, machine  # noqa: PLC0415
    from uncloud_host.agent import Agent  # noqa: PLC0415
    from uncloud_host.standing import WrongName  # noqa: PLC0415

    _log_to_stderr()
    logger = logging.getLogger(__name__)
    try:
        known = config.read(os.environ)
    except config.ConfigError as error:
        logger.error("%s", error)  # noqa: TRY400 - a traceback tells an administrator nothing
        return EX_CONFIG
    try:
        lock = machine.lock()
    except PermissionError:
        logger.error("uncloud-host run: must be root")  # noqa: TRY400
        return 1
    if lock is None:
        logger.error("another uncloud-host runs on this machine")
        return EX_CONFIG
    if not known.mail.to:
        logger.warning("UNCLOUD_MAIL_TO is not set: nobody is mailed")
    try:
        problem = Agent(known).run()
    except (WrongName, config.ConfigError) as error:
        logger.error("%s", error)  # noqa: TRY400
        return EX_CONFIG
    if problem:
        logger.error("%s", problem)
    return 1 if problem else 0


def _notify(arguments: argparse.Namespace) -> int:
    from uncloud_host import notifying  # noqa: PLC0415 - as above

    _log_to_stderr()
    return notifying.notify(arguments.unit)


def _log_to_stderr() -> None:
    """Log one line each; the journal reads the priority from <N> (sd-daemon(3))."""

    class Formatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            priority = {"DEBUG": 7, "INFO": 6, "WARNING": 4}.get(record.levelname, 3)
            text = super().format(record)
            return f"<{priority}>{text}" if "JOURNAL_STREAM" in os.environ else text

    handler = logging.StreamHandler()
    handler.setFormatter(Formatter("%(message)s"))
    level = os.environ.get("SYSTEMD_LOG_LEVEL", "info").upper()
    logging.basicConfig(level=level if level in ("DEBUG", "INFO", "WARNING", "ERROR") else "INFO", handlers=[handler])


if __name__ == "__main__":
    sys.exit(main())
