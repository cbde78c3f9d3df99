"""Which functions of the agent write: found in its source, so that a new one is not forgotten."""

import ast
from collections.abc import Iterator
from pathlib import Path

MODULES = Path(__file__).parents[2] / "uncloud_host"
# Calls that change something outside of the agent: in etcd, in files, in systemd, in a mailbox.
WRITES = {"txn", "rename", "unlink", "touch", "link", "mkdir", "write", "write_text", "send_message"}
READS = {
    b"ListUnitsByPatterns",
    b"GetUnitProcesses",
    b"AddMatch",
    b"Subscribe",
}  # of systemd's methods; all others write
# What etcd's connection offers is told by who calls it.
ADAPTER = ("etcd", "mirror", "drift")
# Functions that write, and where their death is tried, or why it is not.
ELSEWHERE = {
    "ends:_remove": "pathlib:Path.unlink",
    "reconciling:Reconciler.finish": "ends:_remove",
    "mail:_smtp": "uncloud_host.mail:send",
    "mail:_sendmail": "uncloud_host.mail:send",
    "outbox:Outbox.__init__": "a directory, which is there already",
    "outbox:Outbox._batches": "what it removes was sent an hour ago",
    "status:look": "systemctl only shows",
    "troubles:Troubles._replace": "written whole or not at all, before its event",
    "spool:Spool.__init__": "directories, which are there already",
    "spool:Spool.forget": "what it removes has been told a week ago; each file counts for itself",
    "spool:Spool.remember": "read at the next start only, see test_evidence",
    "presence:Presence.show": "written anew with each full pass",
    "store:Store.write_audit": "written anew by the next audit",
    "store:Store.confirm": "a person's command",
    "store:Store.take_over": "a person's command, in one transaction",
    "runs:Runs.__init__": "directories, which are there already",
    "runs:Runs.over": "an empty mark; the record of that end is still there, and the next agent makes it",
    "runs:Runs.forget": "what it removes was told a week ago; each file counts for itself",
    "runs:Runs.stay_awake": "what it removes is of boots of which no run is left; each file counts for itself",
    "registering:Register._forget_old": "deleted again a day later, see test_runtime",
    "store:Store.forget_runs": "the same",
    "store:Store.prune": "what is left is deleted an hour later",
    "spool:tidy": "what is left goes with the next full pass; nobody reads it before",
    "spool:write_end": "what it tells of may be lost with the agent, no recorder runs then",
    "journal:_ask": "journalctl only reads",
    "ceph:_keep": "written whole or not at all, and looked at before each start that needs it",
    "ceph:_run": "rbd only reads; who is blocked is so by a person's command, which may be repeated",
    "supplies:remove_seed": "what is left goes with the next full pass",
    "supplies:tidy": "the same",
    "supplies:forget": "the same",
    "supplies:_replace": "written whole or not at all, before each start",
    "supplies:_write": "the same",
    "trimming:trim": "only what has been read is given back; more is when as much again has come",
    "taps:_remove": "what is left is found at the next full pass",
    "attaching:_start": "a person's command; the relay holds nothing that anybody needs later",
    "attaching:_show_last": "journalctl only reads",
    "terminal:Session.run": "to a person's terminal",
    "rendering:_seed": "to standard output",
    "needs:_known": "QEMU only lists",
    "troubles:Troubles.__init__": "a directory, which is there already",
    "metrics:_Answer.do_GET": "to whoever asks for metrics",
    "troubles:Troubles.begin": "told by its event; begun again at the next look",
    "troubles:Troubles.end": "told by its event; somebody sees it again at the next look",
    "machine:lock": "the kernel unlocks what a dead process had locked",
}


def writers() -> set[str]:
    """All of them, as MODULE:NAME."""
    paths = [path for path in MODULES.glob("*.py") if not path.stem.startswith(ADAPTER)]
    return {f"{path.stem}:{name}" for path in paths for name in _of(ast.parse(path.read_text()), "")}


def _of(node: ast.AST, outer: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from _of(child, f"{outer}{child.name}.")
        elif isinstance(child, ast.FunctionDef) and any(map(_writes, ast.walk(child))):
            yield f"{outer}{child.name}"


def _writes(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    words = [word.value for word in node.args if isinstance(word, ast.Constant)]
    if name in ("_manager", "_call", "call_method"):
        methods = {word for word in words if isinstance(word, bytes) and word.isalnum() and word[:1].isupper()}
        return bool(methods - READS)
    return name in WRITES or (name == "run" and "subprocess" in ast.unparse(node.func))
