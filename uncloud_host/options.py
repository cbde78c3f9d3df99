"""How an option of QEMU's command line is written, so that no value can become an option. Pure."""

import json
from collections.abc import Mapping

from uncloud_host import names


def option(first: str | None = None, **rest: object) -> str:
    """Write a key=value option. Every comma of a value is doubled: QEMU's way to say that it is one."""
    words = [] if first is None else [first.replace(",", ",,")]
    words += [f"{key.replace('_', '-')}={str(value).replace(',', ',,')}" for key, value in rest.items()]
    return ",".join(words)


def json_option(members: Mapping[str, object]) -> str:
    """Write an option as JSON, which QEMU takes for what it is and refuses if a member is unknown."""
    return json.dumps(members, separators=(",", ":"))


def socket(name: str, uuid: str) -> str:
    """Write the option of a socket that QEMU listens on, in the VM's runtime directory."""
    return option("socket", id=name, path=f"{names.runtime_directory(uuid)}/{name}.sock", server="on", wait="off")
