"""What HAProxy is told so that its members are those that are wanted. Pure.

Source: HAProxy 2.6, "Management Guide", ``show servers state``, ``add server`` and ``set server``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from haneul.balancer.adapters.haproxy_configuration import member_arguments, member_name, name_of
from haneul.balancer.model import Frontends

#: Bits of ``srv_admin_state`` and ``srv_check_state``.
_MAINTENANCE: Final = 0x01
_DRAINED: Final = 0x08
_CHECKED: Final = 0x04


def leaves(row: Mapping[str, str]) -> bool:
    """Say whether a member, as ``show servers state`` tells of it, gets nothing new by an order of ours."""
    return bool(int(row["srv_admin_state"]) & (_MAINTENANCE | _DRAINED))


def orders(present: Frontends, servers: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the orders that bring members to what is wanted."""
    there = {f"{row['be_name']}/{row['srv_name']}": row for row in servers}
    wanted = {
        f"{name_of(listener)}/{member_name(member)}": member_arguments(member, one.frontend.options)
        for listener, one in present.items()
        for member in one.frontend.members
    }
    given = []
    for server, arguments in wanted.items():
        row = there.get(server)
        if row is None:
            given.append(f"add server {server} {arguments}")
        if row is None or leaves(row):
            given.append(f"set server {server} state ready")
        if row is None or not int(row["srv_check_state"]) & _CHECKED:
            given.append(f"enable health {server}")
    for server, row in there.items():
        if server not in wanted and not leaves(row):
            # One that ends takes no connections soon, not the check's either: that is no reason to cut those it has.
            given += [f"disable health {server}", f"set server {server} state drain"]
    return given
