"""etcd's members over its gateway: JSON for its gRPC API (etcd documentation "Why gRPC gateway", "Cluster API").

Numbers of 64 bits are text there; ids are decimal, and hexadecimal everywhere else.
"""

from __future__ import annotations

import json
import ssl
from typing import Any, Final, Self

import aiohttp

from haneul.dkos.etcd_plan import Member, Membership
from haneul.dkos.etcd_port import EtcdAccess, NotInSyncError, peer_address
from haneul.kernel.errors import ConflictError, UnavailableError
from haneul.kernel.tls import client_context

_CONNECT_SECONDS, _CALL_SECONDS = 2.0, 8.0
#: gRPC's status codes (grpc.io "Status codes and their use in gRPC").
_NOT_FOUND: Final = 5
_REFUSALS: Final = frozenset({3, 6, 9})
_NOT_IN_SYNC: Final = "in sync with leader"
_ALREADY_VOTES: Final = "not a learner"
_PEER_KNOWN: Final = "Peer URLs already exists"


class HttpEtcdMembers:
    """One etcd, asked at whichever of its members answers first in the given order."""

    def __init__(self, access: EtcdAccess) -> None:
        self._access = access
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=_CALL_SECONDS, sock_connect=_CONNECT_SECONDS)
        connector = aiohttp.TCPConnector(ssl=_context(self._access), force_close=True)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def membership(self) -> Membership:
        """Return the member list and who leads."""
        listed = await self._ask("cluster/member/list", {"linearizable": True})
        status = await self._ask("maintenance/status", {})
        members = [
            Member(
                _hexadecimal(entry["ID"]),
                peer_address(entry.get("peerURLs", [])),
                learner=bool(entry.get("isLearner", False)),
                # A member says its name once it has started.
                started=bool(entry.get("name")),
            )
            for entry in listed.get("members", [])
        ]
        leader = status.get("leader", "0")
        return Membership(tuple(members), _hexadecimal(leader) if int(leader) else "")

    async def add_learner(self, peer_url: str) -> str:
        """Make a learner known."""
        try:
            added = await self._ask("cluster/member/add", {"peerURLs": [peer_url], "isLearner": True})
        except _RefusedError as error:
            if _PEER_KNOWN not in error.detail:
                raise
            # Whoever asked before ended before it heard the answer.
            known = (await self.membership()).members
            return next(member.id for member in known if member.address == peer_address([peer_url]))
        return _hexadecimal(added["member"]["ID"])

    async def promote(self, member: str) -> None:
        """Let a learner vote."""
        try:
            await self._ask("cluster/member/promote", {"ID": _decimal(member)})
        except _RefusedError as error:
            if _NOT_IN_SYNC in error.detail:
                raise NotInSyncError(error.detail, hint="it is asked again") from error
            if _ALREADY_VOTES not in error.detail:
                raise

    async def remove(self, member: str) -> None:
        """Take a member out."""
        try:
            await self._ask("cluster/member/remove", {"ID": _decimal(member)})
        except _RefusedError as error:
            if error.grpc_code != _NOT_FOUND:
                raise

    async def transfer(self, leader_url: str, member: str) -> None:
        """Let another member lead."""
        await self._post(leader_url, "maintenance/transfer-leadership", {"targetID": _decimal(member)})

    async def _ask(self, what: str, body: dict[str, Any]) -> Any:
        """Ask the first member that answers. What a member refuses, the others would refuse too."""
        last = "there is no member to ask"
        for url in self._access.urls:
            try:
                return await self._post(url, what, body)
            except UnavailableError as error:
                last = error.detail
        raise UnavailableError(f"etcd does not answer: {last}", hint="it is asked again")

    async def _post(self, url: str, what: str, body: dict[str, Any]) -> Any:
        if self._session is None:
            raise RuntimeError("the connection is not open")
        try:
            async with self._session.post(f"{url}/v3/{what}", json=body) as answer:
                text = await answer.text()
                if answer.status == 200:
                    return json.loads(text)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise UnavailableError(f"{url}: {error or type(error).__name__}") from error
        code, message = _status(text)
        if code == _NOT_FOUND or code in _REFUSALS:
            raise _RefusedError(f"etcd refused ({what}): {message}", grpc_code=code)
        raise UnavailableError(f"{url}: {message}")


class _RefusedError(ConflictError):
    """etcd understood and refused, with gRPC's code."""

    code = "etcd-refused"
    title = "etcd refused the change of its members"

    def __init__(self, detail: str, *, grpc_code: int) -> None:
        super().__init__(detail, hint="it is asked again")
        self.grpc_code = grpc_code


def _status(text: str) -> tuple[int, str]:
    """Read the error of an answer (google.rpc.Status in JSON)."""
    try:
        found = json.loads(text)
        return int(found.get("code", 2)), str(found.get("message", text))
    except (ValueError, AttributeError):
        return 2, text[:200]


def _hexadecimal(decimal: str) -> str:
    return f"{int(decimal):x}"


def _decimal(hexadecimal: str) -> str:
    return str(int(hexadecimal, 16))


def _context(access: EtcdAccess) -> ssl.SSLContext:
    context = client_context(access.authority, access.client_certificate, access.client_key)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context
