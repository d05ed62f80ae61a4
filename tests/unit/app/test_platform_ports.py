"""Which ports `up` and `doctor` look at, by what runs here."""

from __future__ import annotations

from haneul.app.installation import ports, ports_at_address
from haneul.host.doctor_gather import PORTS, PORTS_AT_ADDRESS
from haneul.management.settings import ManagementSettings


def test_ports_of_the_object_store_are_looked_at_where_it_is_turned_on() -> None:
    assert ports(kage=False) == PORTS
    more = ports(kage=True)
    assert set(more) - set(PORTS) == {6200, 6201, 6202, 6203, 6204}
    assert PORTS.items() <= more.items()


def test_the_hub_s_port_is_looked_at_unless_it_is_turned_off() -> None:
    assert ports_at_address(hub=True) == PORTS_AT_ADDRESS
    assert set(PORTS_AT_ADDRESS) - set(ports_at_address(hub=False)) == {ManagementSettings.hub_port}
