"""Addresses that clusters get, each once."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from haneul.dkos.address_claims import NoAddressLeftError, free_addresses, given_address
from haneul.dkos.readers import INGRESS
from haneul.kernel.kube import NAMESPACES, Manifest, Resource
from haneul.kernel.kube_memory import MemoryKubeClient

READER = replace(INGRESS, addresses="10.198.0.0/29")


@pytest.fixture
async def client() -> MemoryKubeClient:
    made = MemoryKubeClient()
    await made.apply(NAMESPACES, {"metadata": {"name": READER.name}})
    return made


async def test_a_cluster_keeps_its_address(client: MemoryKubeClient) -> None:
    assert await given_address(client, READER, "a") == "10.198.0.1"
    assert await given_address(client, READER, "b") == "10.198.0.2"
    assert await given_address(client, READER, "a") == "10.198.0.1"


async def test_a_freed_address_is_the_next_one_s(client: MemoryKubeClient) -> None:
    for uid in "abc":
        await given_address(client, READER, uid)
    await free_addresses(client, READER, "b")
    assert await given_address(client, READER, "d") == "10.198.0.2"
    assert await given_address(client, READER, "c") == "10.198.0.3"


async def test_who_asks_at_the_same_moment_gets_another_one(client: MemoryKubeClient) -> None:
    class Late(MemoryKubeClient):
        """Shows nobody's claims, as to somebody who looked a moment too early."""

        async def list(
            self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = ""
        ) -> list[Manifest]:
            return []

    late = Late()
    await late.apply(NAMESPACES, {"metadata": {"name": READER.name}})
    given = await asyncio.gather(*(given_address(late, READER, uid) for uid in "abcde"))
    assert sorted(given) == [f"10.198.0.{number}" for number in range(1, 6)]


async def test_the_last_address_is_no_cluster_s_and_none_is_given_twice(client: MemoryKubeClient) -> None:
    given = {await given_address(client, READER, uid) for uid in "abcde"}
    assert given == {f"10.198.0.{number}" for number in range(1, 6)}
    with pytest.raises(NoAddressLeftError):
        await given_address(client, READER, "f")
