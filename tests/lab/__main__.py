"""python3 tests/lab - hosts to play with; see --help."""

import argparse
import subprocess
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # the package is `lab`; its modules are not on the path

from lab import Host, Lab, LabError, deb, holder, tree  # noqa: E402
from lab.machine import say  # noqa: E402

SOURCE = Path(__file__).resolve().parent.parent.parent


def up(lab_name: str, hosts: list[str]) -> None:
    """Make a lab that stays, with the project's dependencies where there is a package to depend on something."""
    if lab_name in Lab.names():
        lab = Lab.attach(lab_name)
    else:
        packaged = (SOURCE / "debian/control").exists()
        layers = [tree.host(deb.build(SOURCE))] if packaged else [tree.base()]
        lab = Lab(lab_name, layers, binds={SOURCE: "/source"}, keep=True)
        lab.start()
    for name in hosts or ["vmhost1"]:
        host = lab.host(name)
        if not host.process:
            host.boot()
        say(f"{name} is up, {host.address}: python3 tests/lab sh {name}")


def listing() -> None:
    """Print labs and their hosts."""
    for name in Lab.names():
        try:
            for host in Lab.attach(name).hosts():
                process = host.process
                print(name, host.name, host.address, f"on, pid {process.pid}" if process else "off", sep="\t")
        except LabError as error:
            print(name, "-", "-", error, sep="\t")


def find(name: str) -> Host:
    """The host of this name, whichever lab it is in; LAB/HOST where there are several."""
    wanted, _, short = name.rpartition("/")
    labs = [wanted] if wanted else Lab.names()
    found = [host for lab in labs for host in Lab.attach(lab).hosts() if host.name == short]
    if len(found) != 1:
        raise LabError(f"there are {len(found)} hosts {name}; `python3 tests/lab ls` shows all, LAB/HOST names one")
    return found[0]


def shell(name: str, command: list[str]) -> int:
    """Run a command or a shell in a host, on our terminal."""
    words = command or ["/bin/bash", "--login"]
    return find(name).popen(*words, stdin=sys.stdin, env={"TERM": "xterm"}).wait()


def down(name: str | None, everything: bool) -> None:
    """End a lab, or all that are kept or left dead."""
    for lab in Lab.names() if everything else [name or ""]:
        try:
            Lab.attach(lab).close()
        except LabError:
            if lab not in Lab.names():
                raise
            holder.sweep(lab)


def parse(words: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python3 tests/lab", description="Debian 13 hosts in namespaces.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser("up", help="boot hosts in a lab that stays until it is taken down")
    command.add_argument("lab")
    command.add_argument("hosts", nargs="*", metavar="HOST")
    command = commands.add_parser("sh", help="a shell, or a command, in a host")
    command.add_argument("host")
    command.add_argument("words", nargs=argparse.REMAINDER, metavar="CMD")
    commands.add_parser("ls", help="labs and hosts")
    texts = {"crash": "power failure", "shutdown": "orderly power-off", "boot": "switch on", "cut": "pull the cable",
             "heal": "plug it in again"}  # fmt: skip
    for name, text in texts.items():
        commands.add_parser(name, help=text).add_argument("host")
    command = commands.add_parser("down", help="end a lab and throw its disks away")
    command.add_argument("lab", nargs="?")
    command.add_argument("--all", action="store_true")
    return parser.parse_args(words)


def main(words: list[str]) -> int:
    """Do what the command line says; the exit status."""
    if words[:1] == ["hold"]:  # between Lab.start and us, no command for people
        holder.main(words[1:])
        return 0
    arguments = parse(words)
    try:
        match arguments.command:
            case "up":
                up(arguments.lab, arguments.hosts)
            case "sh":
                return shell(arguments.host, arguments.words)
            case "ls":
                listing()
            case "down":
                down(arguments.lab, arguments.all)
            case verb:
                getattr(find(arguments.host), verb)()
    except (LabError, subprocess.SubprocessError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
