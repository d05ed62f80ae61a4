"""What the API server in memory makes of disruption budgets."""

from __future__ import annotations

import pytest

from haneul.kernel.kube import POD_DISRUPTION_BUDGETS, PODS, KubeApiError, Manifest
from haneul.kernel.kube_memory import MemoryKubeClient


def eviction(name: str) -> Manifest:
    return {"kind": "Eviction", "metadata": {"name": name, "namespace": "default"}}


async def test_budget_holds_the_pods_that_it_names_once_it_is_used_up() -> None:
    api = MemoryKubeClient()
    for name, app in (("web-0", "web"), ("web-1", "web"), ("other", "other")):
        await api.create(PODS, {"metadata": {"name": name, "namespace": "default", "labels": {"app": app}}})
    selector = {"selector": {"matchLabels": {"app": "web"}}}
    await api.create(POD_DISRUPTION_BUDGETS, {"metadata": {"name": "web", "namespace": "default"}, "spec": selector})
    with pytest.raises(KubeApiError) as uncounted:
        await api.create(PODS, eviction("web-0"), subresource="eviction")
    assert (uncounted.value.status, uncounted.value.reason) == (429, "TooManyRequests")
    counted = {"status": {"disruptionsAllowed": 1}}
    await api.patch(POD_DISRUPTION_BUDGETS, "web", counted, "default", subresource="status")
    tried = {**eviction("web-0"), "deleteOptions": {"dryRun": ["All"]}}
    for _ in range(2):
        await api.create(PODS, tried, subresource="eviction")
    for name in ("web-0", "other"):
        await api.create(PODS, eviction(name), subresource="eviction")
    with pytest.raises(KubeApiError):
        await api.create(PODS, eviction("web-1"), subresource="eviction")
    assert [pod["metadata"]["name"] for pod in await api.list(PODS, "default")] == ["web-1"]
