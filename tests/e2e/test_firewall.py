"""The firewall gate on a real platform, with a real gateway that drops unapproved sources and a database behind it.

The operator runs from the checkout meanwhile, as it keeps the rules of a gateway on this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from haneul.app.installation import Installation
from haneul.cli.client import ApiClient
from haneul.cli.context import Contexts
from haneul.components.table import image_reference
from haneul.firewall.adapters.kube_approvals import APPROVALS, CLUSTER_UID
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import ForbiddenError
from haneul.kernel.kube import CERTIFICATE_REQUESTS, DEPLOYMENTS, NODES, PODS, KubeApiError, Manifest
from haneul.kernel.waiting import wait_for
from tests.e2e.tenants import connect, happened, tenant
from tests.namespaces import cable, inside, ip, listener, namespace
from tests.support import HANEUL, haneul

pytestmark = pytest.mark.e2e
CLOCK = SystemClock()
NAME, DATABASE = "paying", "203.0.113.3"
#: Where the operator's pod has the platform's authority.
AUTHORITY = "/etc/haneul/authority/ca.crt"
RESOURCE = {"name": "db-prod", "addresses": [DATABASE], "ports": ["5432/tcp"], "reason": "orders are written there"}


@pytest.fixture
def gateway() -> Iterator[str]:
    """A gateway that this host reaches, and a database behind it."""
    mark = secrets.token_hex(3)
    front, behind, device = f"g{mark}", f"b{mark}", f"fw{mark}"
    with namespace(front), namespace(behind):
        ip("link", "add", device, "type", "veth", "peer", "name", "inside", "netns", front)
        ip("address", "add", "198.51.100.1/30", "dev", device)
        ip("link", "set", device, "up")
        ip("-n", front, "address", "add", "198.51.100.2/30", "dev", "inside")
        ip("-n", front, "link", "set", "inside", "up")
        ip("-n", front, "route", "add", "default", "via", "198.51.100.1")
        cable(behind, f"{DATABASE}/24", front, "203.0.113.1/24", name="outside")
        ip("-n", behind, "route", "add", "default", "via", "203.0.113.1")
        assert inside(front, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward").returncode == 0
        # The route goes with the device, the device with the namespace of its other end.
        ip("route", "add", "203.0.113.0/24", "via", "198.51.100.2")
        with listener(behind, DATABASE, 5432):
            yield front


def _of_the_operator(folder: Path) -> None:
    """Copy what the operator's pod mounts, out of the running one."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"serve\0operator\0" in (process / "cmdline").read_bytes():
                root = process / "root"
                shutil.copytree(root / "opt/haneul/cilium/usr/share/cilium/crds", folder / "crds")
                shutil.copy(root / AUTHORITY.removeprefix("/"), folder / "ca.crt")
                return
    raise AssertionError("no operator runs")


@pytest.fixture
async def operator(installation: Installation, gateway: str, tmp_path: Path) -> AsyncIterator[None]:
    """The operator from the checkout, which keeps the gateway's rules, instead of the one in the cluster.

    All else it is told as that one is: of what it did not know, it would rid the nodes of all clusters.
    """
    settings = installation.settings
    await asyncio.to_thread(_of_the_operator, tmp_path)
    async with installation.lifecycle.client() as management:
        deployment = await management.get(DEPLOYMENTS, "haneul-operator", "haneul-system")
        assert deployment is not None
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        command = [str(HANEUL), *(word.replace(AUTHORITY, f"{tmp_path}/ca.crt") for word in container["args"])]
        command += [f"--kubeconfig={settings.state}/admin.kubeconfig", f"--gateway=/run/netns/{gateway}"]
        command += ["--guarded=203.0.113.0/24", f"--cilium-definitions={tmp_path}/crds"]

        async def replicas(count: int) -> None:
            await management.patch(DEPLOYMENTS, "haneul-operator", {"spec": {"replicas": count}}, "haneul-system")

        async def stopped() -> bool:
            pods = await management.list(PODS, "haneul-system", labels="app.kubernetes.io/name=haneul-operator")
            return not pods

        await replicas(0)
        try:
            await wait_for(stopped, what="the operator's pod to end", timeout=60, clock=CLOCK)
            process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
            try:
                yield
            finally:
                process.terminate()
                await process.wait()
        finally:
            await replicas(1)


def _client(token: str) -> ApiClient:
    context = Contexts.default().current()
    return ApiClient(context.server, authority=context.authority, token=token)


def _people(project: str) -> tuple[str, str]:
    """Return tokens of a developer and of a firewall approver."""
    names = [f"dev-{secrets.token_hex(3)}", f"fw-{secrets.token_hex(3)}"]
    tokens = []
    with Contexts.default().client() as admin:
        for name in names:
            admin.post("/people", {"name": name})
            tokens.append(admin.post(f"/people/{name}/tokens", {"description": "test"})["secret"])
        admin.put(f"/projects/{project}/members/{names[0]}", {"role": "developer"})
        admin.put(f"/people/{names[1]}/roles/firewall-approver", None)
    return tokens[0], tokens[1]


async def _pod(node: str) -> None:
    """Run a pod on exactly this node."""
    container: dict[str, Any] = {"name": "probe", "image": image_reference("agnhost"), "args": ["pause"]}
    manifest: Manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"probe-{node}", "namespace": "default"},
        "spec": {"nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 0},
    }
    async with tenant(NAME) as kube:
        await kube.apply(PODS, manifest)

        async def runs() -> bool:
            seen = await kube.get(PODS, f"probe-{node}", "default")
            return bool((seen or {}).get("status", {}).get("phase") == "Running")

        await wait_for(runs, what=f"the pod on {node}", timeout=90, clock=CLOCK)


async def _reaches(installation: Installation, node: str) -> bool:
    status, _ = await connect(installation, NAME, f"probe-{node}", f"{DATABASE}:5432", seconds=2)
    return status == 0


async def _approving_it_oneself_does_nothing() -> None:
    """A tenant who is its cluster's administrator says yes to the certificate request; nobody signs for that."""
    condition = {"type": "Approved", "status": "True", "reason": "Mine", "message": "me"}
    async with tenant(NAME) as kube:
        assert await kube.get(NODES, "gated-0") is None
        for csr in await kube.list(CERTIFICATE_REQUESTS):
            if not csr.get("status", {}).get("conditions"):
                name, patch = csr["metadata"]["name"], {"status": {"conditions": [condition]}}
                with contextlib.suppress(KubeApiError):
                    await kube.patch(CERTIFICATE_REQUESTS, name, patch, subresource="approval")
        await asyncio.sleep(2)  # what must not happen gives no sign to wait for
        assert await kube.get(NODES, "gated-0") is None


async def test_a_person_lets_a_node_through_a_real_gateway_and_takes_that_back(
    project: str, installation: Installation, operator: None
) -> None:
    asker, approver = await asyncio.to_thread(_people, project)
    pools = [
        {"name": "open", "count": 1, "memoryMib": 1024},
        {"name": "gated", "count": 1, "memoryMib": 1024, "externalResources": [RESOURCE]},
    ]
    with _client(asker) as developer, _client(approver) as carol, Contexts.default().client() as administrator:
        body = {"name": NAME, "spec": {"nodePools": pools}}
        await asyncio.to_thread(developer.post, f"/projects/{project}/clusters", body)
        try:

            async def pending() -> Any:
                found = await asyncio.to_thread(carol.list, "/firewall/requests", project=project, state="pending")
                return next((one for one in found if one["way"]["cluster"] == NAME), None)

            request = await wait_for(pending, what="the request", timeout=180, clock=CLOCK, max_interval=2)
            told = happened(NAME, "NodeAwaitsApproval", f"db-prod {DATABASE}:5432")
            await wait_for(told, what="the event", timeout=60, clock=CLOCK, max_interval=2)
            await _pod("open-0")
            assert not await _reaches(installation, "open-0"), "the gateway drops who is not approved"
            await _approving_it_oneself_does_nothing()
            way = request["way"]
            decision = {"address": way["address"], "resource": "db-prod", "why": "an end-to-end test"}
            path = f"/firewall/requests/{request['id']}"
            for client in (developer, administrator):
                with pytest.raises(ForbiddenError):
                    await asyncio.to_thread(client.post, f"{path}/approve", decision)
            async with installation.lifecycle.client() as management:
                forged: Manifest = {"apiVersion": APPROVALS.api_version, "kind": APPROVALS.kind}
                forged["metadata"] = {"name": f"way-{request['id']}", "namespace": f"project-{project}"}
                forged["metadata"]["labels"] = {CLUSTER_UID: way["uid"]}
                forged["spec"] = {"way": way, "approver": "me", "decision": 1, "moment": "2026-11-24T09:00:00Z"}
                with pytest.raises(KubeApiError, match="only the platform's API"):
                    await management.create(APPROVALS, forged)

            await asyncio.to_thread(carol.post, f"{path}/approve", decision)
            approved = time.monotonic()
            async with tenant(NAME) as kube:

                async def joined() -> bool:
                    return await kube.get(NODES, "gated-0") is not None

                await wait_for(joined, what="the approved node to join", timeout=60, clock=CLOCK)
                assert time.monotonic() - approved < 15
            await _pod("gated-0")
            assert await _reaches(installation, "gated-0")
            assert not await _reaches(installation, "open-0")

            await asyncio.to_thread(carol.post, f"{path}/revoke", decision)
            left = happened(NAME, "NodeApprovalEnded")
            await wait_for(left, what="the node to be taken out", timeout=60, clock=CLOCK, max_interval=2)
            async with tenant(NAME) as kube:

                async def gone() -> bool:
                    return await kube.get(NODES, "gated-0") is None

                await wait_for(gone, what="the revoked node to go", timeout=400, clock=CLOCK)
        finally:
            await asyncio.to_thread(haneul, "cluster", "delete", NAME, "--yes", "-p", project)
