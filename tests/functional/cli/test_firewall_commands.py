"""`haneul firewall` as a person types it, against the API on a port of this machine."""

from __future__ import annotations

from haneul.dkos.model import ClusterStatus, NodeStatus
from haneul.kernel.errors import ForbiddenError
from tests.functional.api.application import Api
from tests.functional.cli.test_quota_commands import Run, api, rows, run

__all__ = ["api", "run"]

POOL = {
    "name": "gated",
    "count": 1,
    "externalResources": [{"name": "db-prod", "addresses": ["10.1.2.3"], "ports": ["5432/tcp"], "reason": "orders"}],
}


async def test_a_request_is_listed_approved_exported_and_told_of(api: Api, run: Run) -> None:
    await api.call(
        "alice", "POST", "/projects/shop/clusters", {"name": "web", "spec": {"nodePools": [POOL]}}, status=201
    )
    found = await api.store.get("shop", "web")
    nodes = (NodeStatus(name="gated-0", pool="gated", address="192.0.2.7"),)
    api.store._keep("modified", found.model_copy(update={"status": ClusterStatus(nodes=nodes)}))
    assert (await run("admin", "person", "grant", "bob", "firewall-approver")).exit_code == 0
    heading, line = rows(await run("bob", "firewall", "list", "--state", "pending"))
    assert heading[:3] == ["REQUEST", "STATE", "ADDRESS"]
    identity, *rest = line
    assert rest == ["pending", "192.0.2.7", "db-prod", "10.1.2.3", "5432/tcp", "shop/web", "gated-0", "alice"]
    decision = (identity, "--address", "192.0.2.7", "--resource", "db-prod", "--why", "change 4711")
    refused = await run("alice", "firewall", "approve", *decision)
    assert isinstance(refused.exception, ForbiddenError)
    assert rows(await run("bob", "firewall", "approve", *decision))[-1][1] == "approved"
    exported = (await run("bob", "firewall", "export")).stdout.splitlines()
    assert exported[1].startswith("192.0.2.7,10.1.2.3/32,5432/tcp,db-prod,shop,web,gated-0,bob,")
    assert rows(await run("bob", "firewall", "revoke", *decision))[-1][1] == "revoked"
    told = rows(await run("alice", "firewall", "history"))
    assert [line[3] for line in told[1:]] == ["revoked", "approved"]
