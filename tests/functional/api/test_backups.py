"""Backups over the API: who sees them, who restores, what is refused before anything changes."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from haneul.dkos.backup.catalogue import Catalogue, SnapshotView, WindowView
from haneul.dkos.model import (
    BackupState,
    ClusterStatus,
    Condition,
    ConditionType,
    Phase,
    RestoreState,
    RestoreStatus,
)
from haneul.dkos.releases import VERSIONS
from tests.functional.api.application import START, Api

NEW, OLD = VERSIONS
CLUSTER = "/projects/shop/clusters/web"
RESTORE = f"{CLUSTER}/restore"


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


async def backed_up(api: Api, name: str = "web") -> Catalogue:
    """Make a cluster, and a backup of it with a gap between revision 20 and 31."""
    await api.call("alice", "POST", "/projects/shop/clusters", {"name": name}, status=201)
    cluster = await api.store.get("shop", name)
    condition = Condition(
        type=ConditionType.AUTHORITIES_CURRENT, status="True", reason="AuthoritiesCurrent", last_transition_time=START
    )
    seen = ClusterStatus(phase=Phase.READY, observed_generation=1, conditions=(condition,), milestones={"ready": 9.0})
    api.store._keep("modified", cluster.model_copy(update={"status": seen}))
    catalogue = Catalogue(
        uid=cluster.uid,
        project="shop",
        name=name,
        state=BackupState.CURRENT,
        as_of=at(100),
        complete_until=at(99),
        lag_seconds=1.6,
        revision=40,
        snapshots=(SnapshotView(taken=at(0), revision=10, size=5), SnapshotView(taken=at(50), revision=31, size=5)),
        windows=(
            WindowView(begin=at(0), end=at(20), first=10, last=20),
            WindowView(begin=at(50), end=at(90), first=31, last=40),
        ),
        spec=cluster.spec.model_dump(mode="json", by_alias=True, exclude_none=True),
    )
    await api.backups.publish(catalogue)
    return catalogue


async def wanted(api: Api, name: str = "web") -> dict[str, Any]:
    found: dict[str, Any] = (await api.call("alice", "GET", f"/projects/shop/clusters/{name}"))["spec"]["restore"]
    return found


async def test_members_see_backups_and_nobody_else(api: Api) -> None:
    await backed_up(api)
    await api.call("bob", "GET", f"{CLUSTER}/backups", status=404)
    await api.call("bob", "GET", "/projects/shop/backups", status=404)
    await api.call("alice", "PUT", "/projects/shop/members/bob", {"role": "viewer"})
    shown = await api.call("bob", "GET", f"{CLUSTER}/backups")
    assert (shown["state"], shown["revision"], shown["lagSeconds"]) == ("Current", 40, 1.6)
    assert [one["revision"] for one in shown["snapshots"]] == [10, 31]
    assert [entry["name"] for entry in (await api.call("bob", "GET", "/projects/shop/backups"))["items"]] == ["web"]
    assert (await api.call("bob", "GET", "/projects/shop/backups?deleted=true"))["items"] == []


async def test_owners_alone_restore_and_it_is_recorded(api: Api) -> None:
    await backed_up(api)
    await api.call("alice", "PUT", "/projects/shop/members/bob", {"role": "developer"})
    await api.call("bob", "POST", RESTORE, {}, status=403)
    await api.call("bob", "POST", RESTORE, {"as": "copy"}, status=403)
    changed = await api.send("bob", "PATCH", CLUSTER, json={"restore": {"number": 5, "revision": 12}})
    assert changed.status_code == 422
    assert "haneul cluster restore" in changed.json()["hint"]
    assert (await wanted(api))["number"] == 0
    await api.call("alice", "POST", RESTORE, {"revision": 12}, status=202)
    request = await wanted(api)
    assert (request["number"], request["revision"], request["source"]) == (1, 12, "")
    record = (await api.call("admin", "GET", "/audit"))["items"][0]
    assert (record["person"], record["action"], record["object"]) == ("alice", "cluster.restore", "web, revision 12")


async def test_without_a_wish_the_newest_state_reaches_at_least_what_was_known(api: Api) -> None:
    await backed_up(api)
    await api.call("alice", "POST", RESTORE, {}, status=202)
    request = await wanted(api)
    assert (request["revision"], request["least"]) == (0, 40)


async def test_moments_are_those_of_the_backup(api: Api) -> None:
    await backed_up(api)
    for seconds, code in ((-1, "backup-incomplete"), (30, "backup-incomplete"), (120, "backup-incomplete")):
        refused = await api.send("alice", "POST", RESTORE, json={"moment": at(seconds).isoformat()})
        assert (refused.status_code, refused.json()["code"]) == (409, code)
    naive = await api.send("alice", "POST", RESTORE, json={"moment": "2026-11-24T09:00:10"})
    assert naive.status_code == 422
    for revision in (9, 25, 41):
        refused = await api.send("alice", "POST", RESTORE, json={"revision": revision})
        assert (refused.status_code, refused.json()["code"]) == (409, "backup-incomplete")
    both = await api.send("alice", "POST", RESTORE, json={"revision": 12, "moment": at(10).isoformat()})
    assert both.status_code == 422
    assert (await wanted(api))["number"] == 0
    await api.call("alice", "POST", RESTORE, {"moment": at(95).isoformat()}, status=202)
    assert datetime.fromisoformat((await wanted(api))["moment"]) == at(95)


async def see(api: Api, **update: Any) -> None:
    cluster = await api.store.get("shop", "web")
    status = cluster.status.model_copy(update={"observed_generation": cluster.generation, **update})
    api.store._keep("modified", cluster.model_copy(update={"status": status}))


async def test_a_cluster_that_sleeps_or_is_being_restored_is_not_restored(api: Api) -> None:
    await backed_up(api)
    await see(api, phase=Phase.ASLEEP)
    refused = await api.send("alice", "POST", RESTORE, json={})
    assert (refused.status_code, refused.json()["detail"]) == (409, "web sleeps")
    assert "haneul cluster wake web" in refused.json()["hint"]
    await see(api, phase=Phase.READY)
    await api.call("alice", "POST", RESTORE, {}, status=202)
    await see(api, phase=Phase.RESTORING)
    for state in (RestoreState.NONE, RestoreState.PREPARED):
        await see(api, restore=RestoreStatus(number=1, state=state))
        again = await api.send("alice", "POST", RESTORE, json={})
        assert (again.status_code, again.json()["detail"]) == (409, "web is being restored")
        asleep = await api.send("alice", "POST", f"{CLUSTER}/hibernate", json={})
        assert "it is being restored" in asleep.json()["detail"]
    await see(api, restore=RestoreStatus(number=1, state=RestoreState.FAILED))
    await api.call("alice", "POST", RESTORE, {}, status=202)
    assert (await wanted(api))["number"] == 2
    # What is in place already may be the wrong moment, and never answer.
    await see(api, restore=RestoreStatus(number=2, state=RestoreState.PLACED))
    asleep = await api.send("alice", "POST", f"{CLUSTER}/hibernate", json={})
    assert "it is being restored" in asleep.json()["detail"]
    await api.call("alice", "POST", RESTORE, {}, status=202)
    assert (await wanted(api))["number"] == 3


async def test_new_cluster_from_a_backup_has_its_services_and_other_pods(api: Api) -> None:
    catalogue = await backed_up(api)
    old = await api.call("alice", "GET", CLUSTER)
    made = await api.call("alice", "POST", RESTORE, {"as": "copy", "revision": 35}, status=202)
    assert made["name"] == "copy"
    assert made["spec"]["network"]["services"] == old["spec"]["network"]["services"]
    assert made["spec"]["network"]["pods"] != old["spec"]["network"]["pods"]
    assert made["spec"]["restore"]["source"] == catalogue.uid
    assert made["spec"]["restore"]["revision"] == 35
    record = (await api.call("admin", "GET", "/audit"))["items"][0]
    assert record["object"] == "web as copy, revision 35"
    # Nobody else shares that range, and a cluster is not made from a backup by naming one.
    taken = {"name": "thief", "spec": {"network": {"services": old["spec"]["network"]["services"]}}}
    await api.call("alice", "POST", "/projects/shop/clusters", taken, status=422)
    stolen = {"name": "thief", "spec": {"restore": {"number": 1, "source": catalogue.uid, "revision": 35}}}
    await api.call("alice", "POST", "/projects/shop/clusters", stolen, status=422)
    await api.call("alice", "POST", RESTORE, {"as": "copy"}, status=409)
    await api.call("alice", "POST", RESTORE, {"as": "No Name"}, status=422)


@pytest.mark.parametrize(("had", "has"), [(OLD, OLD), ("1.36.1", OLD), ("1.35.9", OLD), (NEW, NEW)])
async def test_new_cluster_from_a_backup_has_the_same_version_or_else_the_next(api: Api, had: str, has: str) -> None:
    catalogue = await backed_up(api)
    was = {**catalogue.spec, "version": had, "nodeVersion": "1.35.9"}
    await api.backups.publish(catalogue.model_copy(update={"spec": was}))
    made = await api.call("alice", "POST", RESTORE, {"as": "copy"}, status=202)
    assert (made["spec"]["version"], made["spec"]["nodeVersion"]) == (has, "")


async def test_a_backup_that_no_offered_version_can_read_is_refused(api: Api) -> None:
    catalogue = await backed_up(api)
    await api.backups.publish(catalogue.model_copy(update={"spec": {**catalogue.spec, "version": "1.34.2"}}))
    refused = await api.send("alice", "POST", RESTORE, json={"as": "copy"})
    assert refused.status_code == 409
    assert "had Kubernetes 1.34.2" in refused.json()["detail"] and "upgrade it from there" in refused.json()["hint"]
    await api.call("alice", "GET", "/projects/shop/clusters/copy", status=404)


async def test_restore_and_upgrade_wait_for_each_other(api: Api) -> None:
    await backed_up(api)
    await see(api, version=OLD)
    refused = await api.send("alice", "POST", RESTORE, json={})
    assert refused.status_code == 409 and "on their way from" in refused.json()["detail"]
    cluster = await api.store.get("shop", "web")
    older = cluster.model_copy(update={"spec": cluster.spec.model_copy(update={"version": OLD})})
    api.store._keep("modified", older)
    await api.call("alice", "POST", RESTORE, {}, status=202)
    refused = await api.send("alice", "POST", f"{CLUSTER}/upgrade", json={"version": NEW})
    assert (refused.status_code, refused.json()["detail"]) == (409, "web is being restored")


async def test_deleted_cluster_is_restored_as_a_new_one(api: Api) -> None:
    catalogue = await backed_up(api)
    await api.call("alice", "DELETE", CLUSTER, status=202)
    await api.backups.publish(catalogue.model_copy(update={"deleted": at(200), "expires": at(900)}))
    shown = (await api.call("alice", "GET", "/projects/shop/backups?deleted=true"))["items"]
    assert [(entry["name"], entry["expires"] is not None) for entry in shown] == [("web", True)]
    await api.call("alice", "POST", RESTORE, {}, status=404)
    made = await api.call("alice", "POST", RESTORE, {"as": "web"}, status=202)
    assert made["spec"]["restore"]["source"] == catalogue.uid
    await api.call("alice", "POST", "/projects/shop/clusters/never-was/restore", {"as": "other"}, status=404)


async def test_with_a_project_go_the_backups_of_its_deleted_clusters(api: Api) -> None:
    catalogue = await backed_up(api)
    await api.call("alice", "DELETE", CLUSTER, status=202)
    await api.backups.publish(catalogue.model_copy(update={"deleted": at(200), "expires": at(900)}))
    await api.call("alice", "DELETE", "/projects/shop", status=204)
    await api.call("bob", "POST", "/projects", {"name": "shop"}, status=201)
    assert (await api.call("bob", "GET", "/projects/shop/backups?deleted=true"))["items"] == []


async def test_a_cluster_without_a_backup_says_so(api: Api) -> None:
    await api.call("alice", "POST", "/projects/shop/clusters", {"name": "web"}, status=201)
    refused = await api.send("alice", "GET", f"{CLUSTER}/backups")
    assert (refused.status_code, "no backup yet" in refused.json()["detail"]) == (404, True)
    await see(api, phase=Phase.READY, milestones={"ready": 1.0})
    await api.call("alice", "POST", RESTORE, {}, status=404)
