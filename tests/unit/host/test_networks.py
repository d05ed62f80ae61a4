"""Which networks of the host nothing of ours may take, from what `ip` and resolv.conf(5) say."""

from pathlib import Path
from typing import Any

from haneul.host.doctor_facts import Route
from haneul.host.networks import name_servers, nameservers, networks_of


def interface(name: str, *addresses: tuple[str, int]) -> dict[str, Any]:
    return {
        "ifname": name,
        "addr_info": [{"family": "inet", "local": local, "prefixlen": bits} for local, bits in addresses],
    }


def test_interfaces_and_routes_count_once_each_and_sorted() -> None:
    interfaces = [interface("eth0", ("192.0.2.2", 24)), interface("eth1", ("10.4.0.9", 22)), interface("down0")]
    routes = [
        {"dst": "default", "gateway": "192.0.2.1", "dev": "eth0"},
        {"dst": "192.0.2.0/24", "dev": "eth0"},
        {"dst": "172.20.0.0/16", "gateway": "192.0.2.9", "dev": "eth0"},
        {"dst": "10.9.9.9", "dev": "tun0"},
    ]
    assert networks_of(interfaces, routes) == (
        Route("10.4.0.0/22", "eth1"),
        Route("10.9.9.9/32", "tun0"),
        Route("172.20.0.0/16", "eth0"),
        Route("192.0.2.0/24", "eth0"),
    )


def test_loopback_and_pods_are_no_networks_of_the_host_but_an_address_on_loopback_is() -> None:
    interfaces = [interface("lo", ("127.0.0.1", 8), ("10.7.7.7", 32)), interface("cilium_host", ("10.192.0.91", 32))]
    routes = [{"dst": "10.192.0.0/22", "dev": "cilium_host"}, {"dst": "10.192.0.7", "dev": "lxc23a06f635cb0"}]
    assert networks_of(interfaces, routes) == (Route("10.7.7.7/32", "lo"),)


def test_name_servers(tmp_path: Path) -> None:
    text = "# comment\nnameserver 10.0.0.2\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\nsearch example.org\n"
    assert nameservers(text) == ("10.0.0.2", "127.0.0.53", "fe80::1")
    assert name_servers(tmp_path) == ()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/resolv.conf").write_text(text)
    assert name_servers(tmp_path) == (Route("10.0.0.2/32", "name server"),)
