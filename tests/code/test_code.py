"""The code is as we say it is: style, types, layers, sizes."""

import ast
import itertools
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2]
MODULES = sorted((SOURCE / "uncloud_host").glob("*.py"))
PROGRAMS = sorted((SOURCE / "uncloud_host/libexec").iterdir())
TOP = {"pyproject.toml", "uncloud_host", "units", "tests", "debian", "README.rst", "LICENSE"}


def said_nothing(*command: str) -> None:
    done = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_finds_nothing() -> None:
    said_nothing(sys.executable, "-m", "ruff", "check", "--no-cache")


def test_the_formatter_would_change_nothing() -> None:
    said_nothing(sys.executable, "-m", "ruff", "format", "--check", "--no-cache")


def test_mypy_finds_nothing() -> None:
    said_nothing(sys.executable, "-m", "mypy")


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_mypy_finds_nothing_in_a_program(program: Path) -> None:
    said_nothing(sys.executable, "-m", "mypy", "--strict", str(program))


def test_the_layers_hold() -> None:
    said_nothing(str(Path(sys.executable).parent / "lint-imports"), "--no-cache")


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_a_module_has_one_subject(module: Path) -> None:
    assert len(module.read_text().splitlines()) <= 320


@pytest.mark.parametrize("module", [*MODULES, *PROGRAMS], ids=lambda path: path.stem)
def test_functions_are_short(module: Path) -> None:
    functions = [node for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.FunctionDef)]
    assert [f.name for f in functions if (f.end_lineno or 0) - f.lineno > 45] == []


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_a_program_stands_alone(program: Path) -> None:
    """It must work in the middle of an upgrade, when the package's modules may be of another version or absent."""
    imports = [
        node for node in ast.walk(ast.parse(program.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    names = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in imports if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= set(sys.stdlib_module_names)


def test_the_top_level_is_what_was_agreed() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=SOURCE, capture_output=True, text=True
    )
    tops = {line.partition("/")[0] for line in listed.stdout.splitlines()}
    assert {top for top in tops if not top.startswith(".")} <= TOP


def test_every_variable_is_in_the_conffile_and_the_man_page() -> None:
    config = (SOURCE / "uncloud_host/config.py").read_text()
    names = {node.args[0].value for node in ast.walk(ast.parse(config))
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "known"
             and isinstance(node.args[0], ast.Constant)}  # fmt: skip
    assert len(names) > 10
    for place in ("debian/uncloud-host.default", "debian/man/uncloud-host.8.rst"):
        told = (SOURCE / place).read_text()
        assert [name for name in sorted(names) if f"UNCLOUD_{name}" not in told] == []


@pytest.mark.parametrize("page", sorted((SOURCE / "debian/man").glob("*.rst")), ids=lambda path: path.name)
def test_every_heading_of_a_man_page_is_one(page: Path) -> None:
    """A merge took the line from below one of them, and nobody who makes a page of it complains."""
    lines = page.read_text().splitlines()
    headings = {
        line: below
        for line, below in itertools.pairwise(lines)
        if line.isupper() and line.replace(" ", "").isalpha() and not below.startswith(" ")
    }
    assert {line for line, below in headings.items() if set(below) != {"="}} == set()
    assert len(headings) > 3
