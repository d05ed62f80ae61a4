"""Addresses that clusters get, one each, from a network that a reader has for them.

A claim is an object that is named after the address. An API server makes one object of a name, so no address is given
twice, however many ask at the same time. It stays until what is at the address has ended. The network's last address
is nobody's: what the reader serves for all clusters is there.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Final

from haneul.dkos.control_plane import CLUSTER_LABEL, ROLE_LABEL
from haneul.dkos.readers import Reader
from haneul.kernel.errors import ConflictError
from haneul.kernel.kube import CONFIG_MAPS, KubeApiError, KubeClient, Manifest

_ROLE: Final = "address"
_TAKEN: Final = "AlreadyExists"


class NoAddressLeftError(ConflictError):
    """Every address of a network is given to a cluster."""

    code = "no-address-left"
    title = "No address is left for the cluster"


async def given_address(client: KubeClient, reader: Reader, uid: str) -> str:
    """Return a cluster's address, the lowest that is free if it has none. Raises NoAddressLeftError."""
    claims = await client.list(CONFIG_MAPS, reader.name, labels=f"{ROLE_LABEL}={_ROLE}")
    network = IPv4Network(reader.addresses)
    taken = {_address_of(claim): claim["metadata"]["labels"].get(CLUSTER_LABEL) for claim in claims}
    own = sorted(address for address, owner in taken.items() if owner == uid and address in network)
    if own:
        return str(own[0])
    *others, _ = network.hosts()
    for address in others:
        if address in taken:
            continue
        try:
            await client.create(CONFIG_MAPS, _claim(reader, address, uid))
        except KubeApiError as error:
            if error.reason != _TAKEN:
                raise
        else:
            return str(address)
    raise NoAddressLeftError(
        f"all addresses of {network} are given to clusters", hint="delete clusters that nobody needs"
    )


async def free_addresses(client: KubeClient, reader: Reader, uid: str) -> None:
    """Let others have a cluster's address."""
    for claim in await client.list(CONFIG_MAPS, reader.name, labels=f"{ROLE_LABEL}={_ROLE},{CLUSTER_LABEL}={uid}"):
        await client.delete(CONFIG_MAPS, claim["metadata"]["name"], reader.name)


def _claim(reader: Reader, address: IPv4Address, uid: str) -> Manifest:
    labels = {"app.kubernetes.io/managed-by": "haneul", CLUSTER_LABEL: uid, ROLE_LABEL: _ROLE}
    metadata = {"name": f"address-{str(address).replace('.', '-')}", "namespace": reader.name, "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"address": str(address)}}


def _address_of(claim: Manifest) -> IPv4Address:
    return IPv4Address(claim["metadata"]["name"].removeprefix("address-").replace("-", "."))
