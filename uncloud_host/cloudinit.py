"""What cloud-init in a guest shall find on its NoCloud disk: the names of the files and what is in them. Pure."""

import json
import re
import unicodedata

from uncloud_host.models import VM

LABEL = "cidata"  # by which cloud-init knows the disk
# YAML takes these inside quotes for line breaks, or takes them not at all; JSON has them only inside quotes.
_NOT_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_LONGEST = 63  # letters of a host name


def files(vm: VM, secret: bytes | None) -> dict[str, bytes]:
    """Build the files of a VM whose entry has cloud_init. `secret` is what is in its user_data_file, if it names one.

    An object becomes JSON, which is YAML; a text stays as it is, so that it may also be a script.
    """
    said = vm.entry.cloud_init
    if said is None:
        raise ValueError(vm.uuid)
    user, meta = said.user_data or "", said.meta_data or {}
    if isinstance(meta, dict):
        meta = {"instance-id": vm.uuid, "local-hostname": host_name(vm)} | meta
    header = b"#cloud-config\n" if isinstance(user, dict) else b""
    # Both must be there, even if they say nothing: else cloud-init takes the disk for somebody else's.
    found = {"meta-data": _text(meta), "user-data": header + _text(user) if secret is None else secret}
    if said.network_config is not None:
        found["network-config"] = _text(said.network_config)
    return found


def host_name(vm: VM) -> str:
    """Make the VM's name one that hosts may have: `Büro Nr. 1` is buro-nr.1; without a letter left, it is the uuid."""
    plain = re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFKD", vm.name)).lower()
    labels = [label.strip("-") for label in re.sub("[^a-z0-9.]+", "-", plain).split(".")]
    return ".".join(filter(None, labels))[:_LONGEST].strip("-.") or vm.uuid


def _text(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode()
    # Not ensure_ascii: it writes letters beyond U+FFFF as two, which YAML reads as two.
    written = json.dumps(value, ensure_ascii=False)
    return _NOT_YAML.sub(lambda match: f"\\u{ord(match[0]):04x}", written).encode() + b"\n"
