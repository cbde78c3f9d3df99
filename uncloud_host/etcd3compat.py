"""Make etcd3 0.12.0 importable everywhere, and speak the parts of etcd's protocol that it is too old to know.

PyPI's etcd3 0.12.0 carries protobuf code generated in 2020. protobuf >= 4 with its usual back end (upb) refuses it:
"Descriptors cannot be created directly". Debian's package has the same files, but a protobuf (3.21, C++) that still
takes them. Pinning protobuf < 3.21 or asking for its pure Python back end would cost a factor of 2 to 5 in parsing, so
the message classes are built anew from the descriptors inside etcd3's own files, and only where upb is in use.

This module knows nothing of connections. Import `etcd3` and `messages` from here, never directly.
"""

import ast
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

# Debian 13's protobuf warns at import of what Python 3.14 will not take any more; nobody here can do anything about it.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from google.protobuf.internal import api_implementation

# What each generated module needs in the descriptor pool before its own file is added.
GENERATED = {
    "etcd3.etcdrpc.kv_pb2": (),
    "etcd3.etcdrpc.auth_pb2": (),
    "etcd3.etcdrpc.rpc_pb2": ("etcd3.etcdrpc.kv_pb2", "etcd3.etcdrpc.auth_pb2"),
}

# WatchRequest.progress_request is field 3, WatchCreateRequest.fragment field 8, WatchResponse.fragment field 7. None is
# in etcd3's proto; unknown fields survive parsing and serializing in all three back ends of protobuf.
PROGRESS_REQUEST = b"\x1a\x00"
FRAGMENT_TRUE = b"\x40\x01"
FRAGMENT_FIELD = 7


def serialized_descriptor(path: str) -> bytes:
    """Return the FileDescriptorProto inside a generated file, of the old (serialized_pb=) or the new kind."""
    for node in ast.walk(ast.parse(Path(path).read_bytes())):
        if not isinstance(node, ast.Call):
            continue
        found: list[ast.expr] = [word.value for word in node.keywords if word.arg == "serialized_pb"]
        if isinstance(node.func, ast.Attribute) and node.func.attr == "AddSerializedFile":
            found += node.args[:1]
        for value in found:
            literal = value.args[0] if isinstance(value, ast.Call) and value.args else value  # _b('...')
            if isinstance(literal, ast.Constant) and isinstance(literal.value, (str, bytes)):
                return literal.value.encode("latin-1") if isinstance(literal.value, str) else literal.value
    msg = f"no protobuf descriptor in {path}: uncloud-host needs etcd3 0.12.0"
    raise ImportError(msg)


class _Loader(importlib.abc.Loader):
    def __init__(self, name: str, path: str) -> None:
        self.name, self.path = name, path

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:  # noqa: ARG002 - importlib's signature
        return None

    def exec_module(self, module: ModuleType) -> None:
        from google.protobuf import descriptor_pool  # noqa: PLC0415 - not in every protobuf
        from google.protobuf.internal import builder  # noqa: PLC0415 - not in every protobuf

        for name in GENERATED[self.name]:
            importlib.import_module(name)
        names: dict[str, Any] = vars(module)
        names["DESCRIPTOR"] = descriptor_pool.Default().AddSerializedFile(serialized_descriptor(self.path))
        builder.BuildMessageAndEnumDescriptors(names["DESCRIPTOR"], names)
        builder.BuildTopDescriptorsAndMessages(names["DESCRIPTOR"], self.name, names)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in GENERATED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or not spec.origin:
            return None
        return importlib.util.spec_from_loader(fullname, _Loader(fullname, spec.origin), origin=spec.origin)


def _import() -> tuple[Any, Any]:
    finder = _Finder()
    if api_implementation.Type() == "upb":
        sys.meta_path.insert(0, finder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return importlib.import_module("etcd3"), importlib.import_module("etcd3.etcdrpc")
    finally:
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)


def _varint(number: int) -> bytes:
    encoded = b""
    while number > 0x7F:  # noqa: PLR2004
        encoded += bytes([number & 0x7F | 0x80])
        number >>= 7
    return encoded + bytes([number])


def watch_request(key: bytes, range_end: bytes, start_revision: int) -> Any:
    """Ask for a watch whose big answers come in fragments: without them a backlog is one message of any size."""
    create = messages.WatchCreateRequest(key=key, range_end=range_end, start_revision=start_revision)
    raw = create.SerializeToString() + FRAGMENT_TRUE
    return messages.WatchRequest.FromString(b"\x0a" + _varint(len(raw)) + raw)


def progress_request() -> Any:
    """Ask for an answer that says up to which revision a stream has told everything."""
    return messages.WatchRequest.FromString(PROGRESS_REQUEST)


def fragment_follows(response: Any) -> bool:
    """Tell whether more of this WatchResponse is to come."""
    if "fragment" in response.DESCRIPTOR.fields_by_name:  # a newer etcd3
        return bool(response.fragment)
    try:
        from google.protobuf import unknown_fields  # noqa: PLC0415 - not in every protobuf
    except ImportError:
        fields = response.UnknownFields()
    else:
        fields = unknown_fields.UnknownFieldSet(response)
    return any(field.field_number == FRAGMENT_FIELD and field.data for field in fields)


etcd3, messages = _import()
if not watch_request(b"/", b"0", 1).create_request.start_revision == 1:
    raise ImportError("etcd3's messages do not work with this protobuf: uncloud-host needs etcd3 0.12.0")
