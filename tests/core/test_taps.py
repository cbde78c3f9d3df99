"""Which taps belong to nobody."""

from uncloud_host import names, unit
from uncloud_host.taps import left_over

VM, OTHER = "5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e11", "5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e12"


def test_a_tap_whose_vm_has_no_unit_is_left_over() -> None:
    taps = [names.tap(VM, 0), names.tap(OTHER, 0), names.tap(OTHER, 7)]
    assert left_over(taps, [unit.name(VM)]) == sorted(taps[1:])


def test_every_tap_of_a_vm_with_a_unit_is_its_own() -> None:
    assert left_over([names.tap(VM, index) for index in range(12)], [unit.name(VM), "vm-by-hand.service"]) == []


def test_what_has_another_name_is_a_strangers() -> None:
    own = names.tap(VM, 0)
    strangers = ["lo", "eth0", "br0", "tap0", "t0", "vnet1", own[:-1], f"{own}00", f"x{own}", f"{own}\n", ""]
    assert left_over(strangers, []) == []
