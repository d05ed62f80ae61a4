"""HAProxy's configuration for a set of frontends, rendered strictly. Pure.

Whatever a value is, what is written of it is the text of an address, a network, a number or one of our own words: no
other value gets into a line, so none can make another line. Names of Services are in none of them. Members are in the
configuration so that HAProxy has them when it is started anew; they are changed by its runtime API, so the digest
that tells whether it has to read its configuration again is of everything but members.

Nobody takes the connections of all others: what there is is shared evenly between the projects, however many clusters
and listeners each has.

Source: HAProxy 2.6, "Configuration Manual" and "Management Guide".
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final

from haneul.balancer.model import (
    Algorithm,
    Frontend,
    Frontends,
    Listener,
    Member,
    Options,
    ProxyProtocol,
    project_of,
)

_ALGORITHMS: Final = {
    # Each of them takes members at run time ("dynamic"); hashing does with this way of it alone.
    Algorithm.ROUND_ROBIN: ("balance roundrobin",),
    Algorithm.LEAST_CONNECTIONS: ("balance leastconn",),
    Algorithm.RANDOM: ("balance random",),
    Algorithm.SOURCE: ("balance source", "hash-type consistent"),
}
_PROXY: Final = {ProxyProtocol.OFF: "", ProxyProtocol.V1: " send-proxy", ProxyProtocol.V2: " send-proxy-v2"}
#: The table in which connections are counted by project; no listener is called so.
_PROJECTS: Final = "projects"
_PATHS: Final = frozenset({"", "/healthz"})


@dataclass(frozen=True)
class Process:
    """How HAProxy runs: where its files are, as whom (nobody else if empty), and its bounds.

    ``keep`` is for how many seconds connections outlive a reload of the configuration.
    """

    folder: Path
    user: str = ""
    connections: int = 20_000
    keep: int = 3600

    def share(self, projects: int) -> int:
        """Return how many connections one of so many projects has at once: what is there is enough for all of them."""
        return max(1, self.connections // max(4, projects))

    @property
    def configuration(self) -> Path:
        """Return the file that HAProxy reads."""
        return self.folder / "haproxy.cfg"

    @property
    def master(self) -> Path:
        """Return the socket of the process that outlives reloads."""
        return self.folder / "master.sock"

    @property
    def worker(self) -> Path:
        """Return the socket of the process that does the work now."""
        return self.folder / "worker.sock"

    @property
    def state(self) -> Path:
        """Return the file in which members' health outlives a reload."""
        return self.folder / "server-state"


def digest(present: Frontends, process: Process) -> str:
    """Return what tells two configurations apart that differ in more than members."""
    return hashlib.sha256(_render(present, process, "", members=False).encode()).hexdigest()[:20]


def render(present: Frontends, process: Process) -> str:
    """Return the whole configuration; its ``description`` is the digest. Raises ValueError if a value is none."""
    return _render(present, process, digest(present, process), members=True)


def name_of(listener: Listener) -> str:
    """Return what a listener is called in the configuration; letters, digits, ``.``, ``:`` and ``_`` (section 2.1)."""
    return f"{listener.protocol.value.lower()}_{ip_address(listener.address)}_{int(listener.port)}"


def member_name(member: Member) -> str:
    """Return what a member is called."""
    return f"{ip_address(member.address)}_{int(member.port)}"


def member_of(name: str) -> Member:
    """Return which member is called so. Raises ValueError."""
    address, _, port = name.rpartition("_")
    return Member(str(ip_address(address)), int(port))


def member_arguments(member: Member, options: Options) -> str:
    """Return a member's line after its name, the same for the configuration and for ``add server``."""
    return f"{_place(member.address, member.port)} {_member_options(options)}"


def _member_options(options: Options) -> str:
    check = options.check
    port = f" port {int(check.port)}" if check.port else ""
    return (
        f"check inter {int(check.interval)}ms rise {int(check.rise)} fall {int(check.fall)}{port}"
        f"{_PROXY[options.proxy_protocol]} on-marked-down shutdown-sessions"
    )


def _render(present: Frontends, process: Process, description: str, *, members: bool) -> str:
    # Projects by numbers, which mean something within one configuration alone: no name gets into a line.
    projects = sorted({project_of(there.owner) for there in present.values()})
    numbers = {project: number for number, project in enumerate(projects, 1)}
    share = process.share(len(projects))
    lines = [
        "# Written by Haneul, which writes it anew whenever something differs.",
        "global",
        *([f"    description {description}"] if description else []),
        f"    maxconn {int(process.connections)}",
        f"    hard-stop-after {int(process.keep)}s",
        # A worker that has outlived so many reloads is ended, however busy it is: no pile of them.
        "    mworker-max-reloads 30",
        f"    stats socket {process.worker} mode 600 level admin expose-fd listeners",
        f"    server-state-file {process.state}",
        *([f"    user {process.user}"] if process.user else []),
        "defaults",
        "    mode tcp",
        "    timeout connect 2s",
        "    timeout client 1h",
        "    timeout server 1h",
        "    timeout client-fin 30s",
        "    timeout server-fin 30s",
        "    option clitcpka",
        "    option srvtcpka",
        "    retries 3",
        "    option redispatch 1",
        "    load-server-state-from-file global",
        f"backend {_PROJECTS}",
        f"    stick-table type integer size {max(1, len(projects))} nopurge store conn_cur",
    ]
    for listener in sorted(present):
        frontend = present[listener].frontend
        lines += _frontend(frontend, numbers[project_of(present[listener].owner)], share)
        lines += _backend(frontend)
        if members:
            lines += [
                f"    server {member_name(member)} {member_arguments(member, frontend.options)}"
                for member in frontend.members
            ]
    return "\n".join(lines) + "\n"


def _frontend(frontend: Frontend, project: int, share: int) -> list[str]:
    name = name_of(frontend.listener)
    sources = [f"    acl allowed src {ip_network(source)}" for source in frontend.options.sources]
    return [
        f"frontend {name}",
        # An address that the machine has lost, or does not have yet, is no reason not to start for all others.
        f"    bind {_place(frontend.listener.address, frontend.listener.port)} transparent",
        # What comes beyond waits; beyond what all listeners of a project have together, it is turned away at once.
        f"    maxconn {int(share)}",
        *sources,
        *(["    tcp-request connection reject if !allowed"] if sources else []),
        f"    tcp-request connection track-sc0 int({int(project)}) table {_PROJECTS}",
        f"    tcp-request connection reject if {{ sc0_conn_cur gt {int(share)} }}",
        f"    default_backend {name}",
    ]


def _backend(frontend: Frontend) -> list[str]:
    check = frontend.options.check
    if check.path not in _PATHS:
        raise ValueError(f"{check.path!r} is no path of a health check")
    asking = [
        "    option httpchk",
        f"    http-check send meth GET uri {check.path}",
        "    http-check expect status 200",
    ]
    return [
        f"backend {name_of(frontend.listener)}",
        *(f"    {line}" for line in _ALGORITHMS[frontend.options.algorithm]),
        f"    timeout check {int(check.timeout)}ms",
        *(asking if check.path else []),
        # Members that there are would keep what they have, so a change of this is one that it is read again for.
        f"    # members: {_member_options(frontend.options)}",
    ]


def _place(address: str, port: int) -> str:
    found = ip_address(address)
    if not 0 < port < 65536:
        raise ValueError(f"{port!r} is no port")
    return f"ipv{found.version}@{found}:{int(port)}"
