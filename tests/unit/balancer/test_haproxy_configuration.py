"""HAProxy's configuration: what is written, what no value can write, and what it is read again for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haneul.balancer.adapters.haproxy_configuration import Process, digest, member_name, member_of, render
from haneul.balancer.adapters.haproxy_socket import comma_table, field, table
from haneul.balancer.model import (
    Algorithm,
    Frontend,
    Frontends,
    HealthCheck,
    Listener,
    Member,
    Options,
    Present,
    Protocol,
    ProxyProtocol,
)
from tests.golden import compare

GOLDEN = Path(__file__).parent / "golden"
PROCESS = Process(Path("/var/lib/haneul-balancer"), user="haproxy")
PLAIN = Frontend(
    Listener("192.0.2.10", Protocol.TCP, 80), "shop/web", Options(), (Member("10.1.0.1", 8080), Member("fd00::1", 8080))
)
FULL = Frontend(
    Listener("2001:db8::1", Protocol.TCP, 443),
    "shop/api",
    Options(
        Algorithm.SOURCE,
        HealthCheck(500, 700, 1, 5, "/healthz", 31000),
        30,
        ProxyProtocol.V2,
        ("10.0.0.0/8", "fd00::/8"),
    ),
    (Member("10.0.0.1", 30443),),
)


def there(*frontends: Frontend, owner: str = "shop/web/uid/id") -> Frontends:
    return {frontend.listener: Present(frontend, owner) for frontend in frontends}


def test_it_is_as_it_was_looked_at() -> None:
    compare(GOLDEN, "haproxy.cfg", render({**there(FULL), **there(PLAIN, owner="team/api/uid/id")}, PROCESS))
    compare(GOLDEN, "haproxy-empty.cfg", render(there(), Process(Path("/run/b"), connections=50, keep=60)))


@pytest.mark.parametrize(("all_of_them", "each"), [(20_000, 5_000), (10, 2), (3, 1)])
def test_no_frontend_takes_the_connections_of_all(all_of_them: int, each: int) -> None:
    lines = render(there(PLAIN), replace(PROCESS, connections=all_of_them)).splitlines()
    assert [line.split()[1] for line in lines if "maxconn" in line] == [str(all_of_them), str(each)]


def test_all_listeners_of_a_projects_clusters_together_have_one_share() -> None:
    ports = [replace(PLAIN, listener=replace(PLAIN.listener, port=port)) for port in range(1, 11)]
    present: dict[Listener, Present] = {}
    for number, port in enumerate(ports):
        # Five projects, each with two clusters.
        present |= there(port, owner=f"project-{number % 5}/cluster-{number}/uid/id")
    text = render(present, replace(PROCESS, connections=1000))
    tracked = [line.split()[3] for line in text.splitlines() if "track-sc0" in line]
    assert tracked == [f"int({number % 5 + 1})" for number in range(10)]
    # What is there is enough for all five, whatever each of them does.
    assert text.count("reject if { sc0_conn_cur gt 200 }") == 10
    assert "size 5 nopurge store conn_cur" in text


def test_members_and_their_time_to_leave_are_no_reason_to_read_it_again() -> None:
    before = digest(there(PLAIN, FULL), PROCESS)
    assert digest(there(replace(PLAIN, members=()), FULL), PROCESS) == before
    assert digest(there(replace(PLAIN, options=replace(PLAIN.options, drain=1)), FULL), PROCESS) == before
    assert digest(there(replace(PLAIN, service="shop/other"), FULL), PROCESS) == before
    for changed in (
        replace(PLAIN, listener=replace(PLAIN.listener, port=81)),
        replace(PLAIN, options=replace(PLAIN.options, sources=("10.0.0.0/8",))),
        replace(PLAIN, options=replace(PLAIN.options, algorithm=Algorithm.RANDOM)),
        replace(PLAIN, options=replace(PLAIN.options, check=HealthCheck(path="/healthz", port=1))),
        # These are in members' lines alone: those that there are would keep what they had.
        replace(PLAIN, options=replace(PLAIN.options, check=HealthCheck(interval=77))),
        replace(PLAIN, options=replace(PLAIN.options, proxy_protocol=ProxyProtocol.V1)),
    ):
        assert digest(there(changed, FULL), PROCESS) != before
    assert digest(there(PLAIN, FULL), replace(PROCESS, connections=1000)) != before


_TEXT = st.text(st.sampled_from("a1.:/\n\r \t#\"'\\;$%"), max_size=12)


@given(_TEXT, _TEXT, _TEXT, _TEXT)
def test_no_value_makes_another_line(address: str, source: str, path: str, service: str) -> None:
    lines = set(render(there(PLAIN, FULL), PROCESS).splitlines())
    count = len(render(there(PLAIN, FULL), PROCESS).splitlines())
    hostile = replace(
        FULL,
        service=service,
        listener=replace(FULL.listener, address=address or "2001:db8::1"),
        options=replace(FULL.options, sources=(source,), check=replace(FULL.options.check, path=path)),
    )
    try:
        text = render(there(PLAIN, hostile), PROCESS)
    except ValueError:
        return
    assert len(text.splitlines()) <= count
    words = {line.split()[0] for line in lines}
    assert {line.split()[0] for line in text.splitlines()} <= words


@pytest.mark.parametrize("member", [Member("10.1.0.1", 80), Member("fd00::1", 65535)])
def test_a_members_name_tells_which_it_is(member: Member) -> None:
    assert member_of(member_name(member)) == member


def test_tables_that_it_tells() -> None:
    said = "1\n# be_id be_name srv_name\n3 tcp_192.0.2.10_80 10.1.0.1_80\n\n"
    assert table(said) == [{"be_id": "3", "be_name": "tcp_192.0.2.10_80", "srv_name": "10.1.0.1_80"}]
    assert comma_table("# pxname,svname,\na,b,\n\n")[0]["svname"] == "b"
    assert comma_table("\n") == []
    assert field("Name: HAProxy\ndescription: abc\n", "description") == "abc"
    assert field("Name: HAProxy\n", "description") == ""
