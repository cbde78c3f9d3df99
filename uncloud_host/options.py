"""How an option of QEMU's command line is written, so that no value can become an option. Pure."""


def option(first: str, /, **rest: object) -> str:
    """Write a key=value option; in keys `_` stands for `-`.

    Every comma of a value is doubled: QEMU's way to say that it is one.
    """
    return options(first, {key.replace("_", "-"): value for key, value in rest.items()})


def options(first: str, rest: dict[str, object]) -> str:
    """Write a key=value option whose keys are exactly these. True and False are on and off."""
    return ",".join([_value(first), *(f"{key}={_value(value)}" for key, value in rest.items())])


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value).replace(",", ",,")


def socket(name: str) -> str:
    """Write the option of a socket that QEMU listens on, in the directory where it works: the VM's own."""
    return option("socket", id=name, path=f"{name}.sock", server=True, wait=False)
