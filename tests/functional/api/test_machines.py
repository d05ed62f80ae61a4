"""The REST API of machines: who may, what is refused, and that no key is ever shown."""

from __future__ import annotations

from typing import Any

import pytest

from haneul.dkos import machine_service
from haneul.dkos.machines import Claim, Machine, MachineSpec
from haneul.identity.service import Identity
from haneul.kernel.errors import NotFoundError, UnavailableError
from haneul.kernel.ssh_keys import new_ssh_key
from tests.functional.api.application import HOST, INSIDE, Api

PIN = "SHA256:" + "A" * 43
RACK: dict[str, Any] = {"name": "rack1", "spec": {"address": "192.0.2.11", "hostKey": PIN}}
PATH = "/projects/shop/machines"


async def test_machine_is_registered_checked_and_removed(api: Api) -> None:
    made = await api.call("alice", "POST", PATH, RACK, status=201)
    assert made["spec"]["preset"] == "pm" and made["spec"]["checkRequested"]
    listed = await api.call("alice", "GET", PATH)
    assert [machine["name"] for machine in listed["items"]] == ["rack1"]
    api.clock.advance(5)
    checked = await api.call("alice", "POST", f"{PATH}/rack1/check", {}, status=202)
    assert checked["spec"]["checkRequested"] > made["spec"]["checkRequested"]
    await api.call("alice", "DELETE", f"{PATH}/rack1", status=204)
    await api.call("alice", "GET", f"{PATH}/rack1", status=404)


async def test_machine_without_a_pinned_key_needs_the_explicit_word(api: Api) -> None:
    refused = await api.call("alice", "POST", PATH, {"name": "a", "spec": {"address": "192.0.2.11"}}, status=422)
    assert "host key" in str(refused)
    spec = {"address": "192.0.2.11", "trustOnFirstUse": True}
    await api.call("alice", "POST", PATH, {"name": "a", "spec": spec}, status=201)
    record = await api.call("admin", "GET", "/audit")
    assert any("first host key is trusted" in str(entry) for entry in record["items"])


async def test_one_address_is_registered_once_on_the_platform(api: Api) -> None:
    await api.call("alice", "POST", PATH, RACK, status=201)
    again = await api.call("alice", "POST", PATH, {**RACK, "name": "rack2"}, status=409)
    assert "as rack1" in again["detail"]
    await api.call("bob", "POST", "/projects", {"name": "lab"}, status=201)
    elsewhere = await api.call("bob", "POST", "/projects/lab/machines", RACK, status=409)
    assert "shop" not in elsewhere["detail"] and "rack1" not in elsewhere["detail"]


async def test_strangers_see_and_change_nothing(api: Api) -> None:
    await api.call("alice", "POST", PATH, RACK, status=201)
    for method, path in (("GET", PATH), ("GET", f"{PATH}/rack1"), ("DELETE", f"{PATH}/rack1")):
        assert (await api.send("bob", method, path)).status_code in (403, 404)
    assert (await api.send("bob", "GET", "/projects/shop/machine-key")).status_code in (403, 404)


async def test_key_is_shown_in_its_public_half_only(api: Api) -> None:
    first = await api.call("alice", "GET", "/projects/shop/machine-key")
    assert first == await api.call("alice", "GET", "/projects/shop/machine-key")
    given = new_ssh_key("mine")
    body = {"privateKey": given.private.decode()}
    response = await api.send("alice", "PUT", "/projects/shop/machine-key", json=body)
    assert response.status_code == 200 and "PRIVATE" not in response.text
    assert response.json()["publicKey"].split()[:2] == given.public.split()[:2]
    assert response.json() == await api.call("alice", "GET", "/projects/shop/machine-key")
    assert "PRIVATE" not in str(await api.call("admin", "GET", "/audit"))
    refused = await api.send("alice", "PUT", "/projects/shop/machine-key", json={"privateKey": "secret words"})
    assert refused.status_code == 422 and "secret words" not in refused.text


async def test_cluster_takes_registered_machines_and_holds_them(api: Api) -> None:
    pool = {"name": "metal", "provider": "ssh", "machines": ["rack1"]}
    body = {"name": "first", "spec": {"nodePools": [pool]}}
    missing = await api.call("alice", "POST", "/projects/shop/clusters", body, status=422)
    assert "haneul machine add" in missing["hint"]
    await api.call("alice", "POST", PATH, RACK, status=201)
    made = await api.call("alice", "POST", "/projects/shop/clusters", body, status=201)
    assert made["spec"]["nodePools"][0]["count"] == 1
    second = {**body, "name": "second"}
    taken = await api.call("alice", "POST", "/projects/shop/clusters", second, status=409)
    assert "first" in taken["detail"]
    held = await api.call("alice", "DELETE", f"{PATH}/rack1", status=409)
    assert "first" in held["detail"]


@pytest.mark.parametrize(
    ("presets", "said", "tunnel"),
    [
        (("pm", "pm"), None, "needed"),
        (("pm", "vm"), None, "always"),
        (("pm", "vm"), "needed", "needed"),
        (("pm", "pm"), "always", "always"),
    ],
)
async def test_a_cluster_of_machines_gets_the_tunnel_of_their_presets_and_keeps_it(
    api: Api, presets: tuple[str, str], said: str | None, tunnel: str
) -> None:
    """One machine whose packets must be wrapped decides for all; who says it decides."""
    for number, preset in enumerate(presets):
        spec = {"address": f"192.0.2.{11 + number}", "hostKey": PIN, "preset": preset}
        await api.call("alice", "POST", PATH, {"name": f"rack{number}", "spec": spec}, status=201)
    network = {} if said is None else {"network": {"tunnel": said}}
    pool = {"name": "metal", "provider": "ssh", "machines": ["rack0", "rack1"]}
    body = {"name": "first", "spec": {"nodePools": [pool], **network}}
    made = await api.call("alice", "POST", "/projects/shop/clusters", body, status=201)
    assert made["spec"]["network"]["tunnel"] == tunnel
    other = "always" if tunnel == "needed" else "needed"
    change = {"network": {"tunnel": other}}
    refused = await api.call("alice", "PATCH", "/projects/shop/clusters/first", change, status=422)
    assert "network" in refused["detail"] and refused["hint"]
    # What does not say it does not change it.
    fewer = {"nodePools": [{**pool, "machines": ["rack0"]}]}
    scaled = await api.call("alice", "PATCH", "/projects/shop/clusters/first", fewer)
    assert scaled["spec"]["network"]["tunnel"] == tunnel


async def test_a_cluster_without_nodes_gets_no_tunnel_before_it_is_known_what_they_are(api: Api) -> None:
    bare = {"name": "first", "spec": {"nodePools": []}}
    made = await api.call("alice", "POST", "/projects/shop/clusters", bare, status=201)
    assert made["spec"]["network"].get("tunnel") is None
    sandbox = {"name": "second", "spec": {}}
    made = await api.call("alice", "POST", "/projects/shop/clusters", sandbox, status=201)
    assert made["spec"]["network"]["tunnel"] == "needed"


@pytest.mark.parametrize("force", [False, True])
async def test_machine_that_is_being_put_back_is_forgotten_only_by_force(api: Api, force: bool) -> None:
    await api.call("alice", "POST", PATH, RACK, status=201)
    machine = await api.machines.get("shop", "rack1")
    claim = Claim(cluster_uid="u", cluster="shop/gone", node="metal-rack1", releasing=True)
    await api.machines.report(machine, machine.status.model_copy(update={"claim": claim}))
    path = f"{PATH}/rack1?force=true" if force else f"{PATH}/rack1"
    await api.call("alice", "DELETE", path, status=204 if force else 409)


async def test_project_with_a_machine_is_not_deleted_and_its_key_ends_with_it(api: Api) -> None:
    await api.call("alice", "POST", PATH, RACK, status=201)
    refused = await api.call("alice", "DELETE", "/projects/shop", status=409)
    assert "rack1" in str(refused)
    assert await api.machines.private("shop")
    await api.call("alice", "DELETE", f"{PATH}/rack1", status=204)
    await api.call("alice", "DELETE", "/projects/shop", status=204)
    with pytest.raises(NotFoundError):
        await api.machines.private("shop")


async def test_no_machine_stays_in_a_project_that_is_deleted_meanwhile(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = api.machines.add

    async def slow(project: str, name: str, spec: MachineSpec) -> Machine:
        await api.call("alice", "DELETE", "/projects/shop", status=204)
        return await add(project, name, spec)

    monkeypatch.setattr(api.machines, "add", slow)
    await api.call("alice", "POST", PATH, RACK, status=404)
    assert await api.machines.list() == []


async def test_refused_change_of_machines_is_recorded(api: Api) -> None:
    await api.call("admin", "PUT", "/projects/shop/members/bob", {"role": "viewer"}, status=200)
    await api.call("bob", "POST", PATH, RACK, status=403)
    record = await api.call("admin", "GET", "/audit")
    refused = [entry["action"] for entry in record["items"] if entry["result"] == "refused: forbidden"]
    assert refused == ["machine.add"]


async def test_machine_is_no_part_of_the_platform(api: Api) -> None:
    spec = {**RACK["spec"], "address": INSIDE}
    refused = await api.call("alice", "POST", PATH, {"name": "rack1", "spec": spec}, status=422)
    assert "the management cluster" in refused["detail"]
    spec["address"] = HOST
    await api.call("alice", "POST", PATH, {"name": "rack1", "spec": spec}, status=201)


async def test_a_project_has_so_many_machines_and_no_more(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_service, "MOST_MACHINES", 1)
    await api.call("alice", "POST", PATH, RACK, status=201)
    spec = {**RACK["spec"], "address": "192.0.2.12"}
    await api.call("alice", "POST", PATH, {"name": "rack2", "spec": spec}, status=409)
    await api.call("bob", "POST", "/projects", {"name": "lab"}, status=201)
    await api.call("bob", "POST", "/projects/lab/machines", {"name": "rack2", "spec": spec}, status=201)


async def test_a_project_s_key_is_gone_before_the_project_is(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.call("alice", "GET", "/projects/shop/machine-key")
    await api.call("alice", "POST", PATH, RACK, status=201)
    await api.call("alice", "DELETE", "/projects/shop", status=409)
    assert await api.machines.private("shop")
    await api.call("alice", "DELETE", f"{PATH}/rack1", status=204)

    async def killed(*_: object, **__: object) -> None:
        raise UnavailableError("killed")

    monkeypatch.setattr(Identity, "delete_project", killed)
    await api.call("alice", "DELETE", "/projects/shop", status=503)
    with pytest.raises(NotFoundError):
        await api.machines.private("shop")
