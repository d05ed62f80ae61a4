"""The kernel's rules: what is written, what no value can write, and what is left alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haneul.balancer.adapters.nftables_flows import connections, open_flows
from haneul.balancer.adapters.nftables_rules import Kernel, Mode, Piece, piece, stamps, transaction
from haneul.balancer.model import Algorithm, Frontend, Listener, Member, Options, Protocol
from tests.golden import compare

GOLDEN = Path(__file__).parent / "golden"
DNAT, DIRECT = Kernel(), Kernel(Mode.DIRECT, device="eth0")
WEB = Frontend(
    Listener("192.0.2.10", Protocol.TCP, 80),
    "shop/web",
    Options(sources=("10.0.0.0/8", "10.1.0.0/16", "fd00::/8")),
    (Member("10.1.0.1", 8080), Member("10.1.0.2", 8080), Member("fd00::1", 8080)),
)
NAMES = Frontend(
    Listener("192.0.2.10", Protocol.UDP, 53), "shop/dns", Options(Algorithm.RANDOM), (Member("10.1.0.3", 5353),)
)
SIX = Frontend(Listener("2001:db8::1", Protocol.TCP, 443), "shop/api", members=(Member("fd00::2", 443),))
EMPTY = Frontend(Listener("192.0.2.11", Protocol.TCP, 80), "shop/empty")


def drawn(*frontends: Frontend, kernel: Kernel = DNAT) -> list[Piece]:
    return [piece(frontend, frontend.members, kernel) for frontend in frontends]


def test_it_is_as_it_was_looked_at() -> None:
    compare(GOLDEN, "nftables-dnat.nft", transaction(drawn(WEB, NAMES, SIX, EMPTY), {}, DNAT))
    compare(GOLDEN, "nftables-direct.nft", transaction(drawn(WEB, NAMES, EMPTY, kernel=DIRECT), {}, DIRECT))


def test_only_what_differs_is_written() -> None:
    pieces = drawn(WEB, NAMES)
    standing = stamps(pieces, DNAT)
    assert transaction(pieces, standing, DNAT) == ""
    changed = drawn(replace(WEB, members=WEB.members[:1]), EMPTY)
    script = transaction(changed, standing, DNAT).splitlines()
    assert not any("table" in line.split()[1] for line in script), "the table stays, and with it everything in it"
    written = {line.split()[4] for line in script if line.startswith(("add chain", "add rule", "delete chain"))}
    assert written == {changed[0].name, changed[1].name, pieces[1].name, "stamp"}
    assert f"delete chain inet haneul_balancer {pieces[1].name}" in script
    # A setting that everything rests on makes the table anew, in the same transaction.
    anew = transaction(pieces, standing, replace(DNAT, masquerade=False))
    assert "delete table inet haneul_balancer" in anew
    assert "masquerade" not in anew


def test_a_services_name_and_its_members_time_to_leave_change_nothing() -> None:
    options = replace(WEB.options, drain=1)
    assert drawn(replace(WEB, service="shop/other", options=options)) == drawn(WEB)


def test_a_client_of_any_network_is_no_rule_and_one_of_none_is_let_in_nowhere() -> None:
    everybody = drawn(replace(WEB, options=Options(sources=("0.0.0.0/0", "10.0.0.0/8"))))
    assert everybody == drawn(replace(WEB, options=Options()))
    [nobody] = drawn(replace(WEB, options=Options(sources=("fd00::/8",))))
    assert nobody.rules[0] == "goto refuse"


_TEXT = st.text(st.sampled_from("a1.:/\n\r \t#\"'\\;{}$%"), max_size=12)


@given(_TEXT, _TEXT, _TEXT, st.sampled_from([DNAT, DIRECT]))
def test_no_value_makes_another_line(address: str, source: str, member: str, kernel: Kernel) -> None:
    expected = len(transaction(drawn(WEB, kernel=kernel), {}, kernel).splitlines())
    hostile = replace(
        WEB,
        service=address,
        listener=replace(WEB.listener, address=address or "192.0.2.10"),
        options=replace(WEB.options, sources=(source,)),
        members=(Member(member, 80),),
    )
    try:
        text = transaction(drawn(hostile, kernel=kernel), {}, kernel)
    except ValueError:
        return
    assert len(text.splitlines()) <= expected


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_no_port(port: int) -> None:
    with pytest.raises(ValueError, match="is no port"):
        drawn(replace(WEB, members=(Member("10.1.0.1", port),)))
    with pytest.raises(ValueError, match="is no port"):
        drawn(replace(WEB, listener=replace(WEB.listener, port=port)))


def test_connections_that_the_kernel_tells_of() -> None:
    said = """\
tcp      6 431999 ESTABLISHED src=10.9.0.1 dst=192.0.2.10 sport=4001 dport=80 src=10.1.0.1 dst=10.0.0.2 sport=8080 \
dport=4001 [ASSURED] mark=0 use=1
tcp      6 9 CLOSE src=10.9.0.1 dst=192.0.2.10 sport=4002 dport=80 src=10.1.0.1 dst=10.0.0.2 sport=8080 dport=4002 use=1
udp      17 29 src=10.9.0.1 dst=192.0.2.10 sport=4003 dport=53 [UNREPLIED] src=10.1.0.3 dst=10.0.0.2 sport=5353 \
dport=4003 mark=0 use=1
tcp      6 99 ESTABLISHED src=fd00::9 dst=2001:db8::1 sport=4004 dport=443 src=fd00::2 dst=fd00::1 sport=443 \
dport=4004 use=1
icmp     1 29 src=10.9.0.1 dst=192.0.2.10 type=8 code=0 id=1 src=10.1.0.1 dst=10.9.0.1 type=0 code=0 id=1 use=1
"""
    assert list(connections(said)) == [
        (WEB.listener, Member("10.1.0.1", 8080)),
        (NAMES.listener, Member("10.1.0.3", 5353)),
        (SIX.listener, Member("fd00::2", 443)),
    ]


def test_direct_connections_that_are_ending_are_over() -> None:
    def element(port: int, expires: int) -> list[object]:
        return [{"elem": {"val": {"concat": ["10.9.0.1", port]}, "timeout": 3600, "expires": expires}}, 0x0A010001]

    assert list(open_flows([element(4001, 3500), element(4002, 29)])) == ["10.1.0.1"]
