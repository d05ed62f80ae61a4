"""The etcd members of a cluster that has, or had, more than one master, as manifests. Pure rendering.

Each member is a StatefulSet of its own with one pod, so that they are changed one by one and each stands where its
volume is. What makes a member of the etcd that began alone (:func:`haneul.dkos.control_plane.etcd`):

- Its data lies in a folder named after it, and only while it joins may it begin with an empty one. Later it is told of
  nobody but itself, so that with an empty folder it finds nobody to join, and ends instead of voting as somebody who
  forgot what it had agreed to.
- Clients and the gateway have ports of their own: a port of both ends connections without grace (etcd,
  ``embed/etcd.go``, ``stopServers``).
- It takes calls from members whatever address they come from, which is a pod's and no Service's.
- Times are those between hosts instead of those of a member that only waits for itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any, Final

from haneul.dkos import control_plane
from haneul.dkos.control_plane import CREDENTIALS_ANNOTATION, PEM, Images
from haneul.dkos.credentials import Endpoints
from haneul.dkos.etcd_slots import (
    CLIENT_PORT,
    GATEWAY_PORT,
    PEER_PORT,
    Slot,
    SlotState,
    claim_name,
    component_name,
    member_name,
)
from haneul.dkos.model import Cluster
from haneul.kernel.kube import Manifest

#: Tells the pods of the members beyond the first apart.
MEMBER_LABEL: Final = "dkos.haneul.dev/etcd-place"
#: On a StatefulSet: the digest of the pod that it was made with last.
TEMPLATE_ANNOTATION: Final = "dkos.haneul.dev/template"
_GRACE_SECONDS: Final = 30


def member(
    cluster: Cluster,
    slot: Slot,
    endpoints: Endpoints,
    images: Images,
    digests: Mapping[str, str],
    *,
    others: Collection[int] = (),
    replicas: int = 1,
) -> Manifest:
    """Return one member. ``others`` are the places of those whom it joins, as etcd's member list has them."""
    made = control_plane.etcd(cluster, endpoints, images, {"etcd": ""} | dict(digests), replicas=replicas)
    if slot.state is not SlotState.FOUNDER:
        _shape(made, slot, endpoints, others)
    if slot.index:
        _move(made, cluster, slot.index)
    pod = made["spec"]["template"]
    pod["metadata"]["annotations"][CREDENTIALS_ANNOTATION] = digests[component_name(slot.index)]
    made["metadata"]["annotations"] = {TEMPLATE_ANNOTATION: template_digest(made)}
    return made


def template_digest(workload: Manifest) -> str:
    """Return a digest of what a workload makes its pods from."""
    template = json.dumps(workload["spec"]["template"], sort_keys=True)
    return hashlib.sha256(template.encode()).hexdigest()[:16]


def _shape(made: Manifest, slot: Slot, endpoints: Endpoints, others: Collection[int]) -> None:
    """Make a member of several of one that began alone."""
    index, address = slot.index, endpoints.places[slot.index]
    joins = sorted({*others, index}) if slot.state is SlotState.LEARNING else [index]
    changed = {
        "name": member_name(index),
        "data-dir": f"/data/{slot.folder}",
        "listen-client-http-urls": f"https://0.0.0.0:{GATEWAY_PORT}",
        "advertise-client-urls": f"https://{address}:{CLIENT_PORT}",
        "initial-advertise-peer-urls": f"https://{address}:{PEER_PORT}",
        "initial-cluster": ",".join(f"{member_name(i)}=https://{endpoints.places[i]}:{PEER_PORT}" for i in joins),
        "initial-cluster-state": "existing",
        "peer-skip-client-san-verification": "true",
        "heartbeat-interval": "100",
        "election-timeout": "1000",
    }
    if index:
        changed |= {
            "peer-client-cert-file": f"{PEM}/peer-client.crt",
            "peer-client-key-file": f"{PEM}/peer-client.key",
        }
    spec = made["spec"]["template"]["spec"]
    spec["terminationGracePeriodSeconds"] = _GRACE_SECONDS
    container = spec["containers"][0]
    arguments = dict(argument.removeprefix("--").split("=", 1) for argument in container["args"])
    container["args"] = [f"--{name}={value}" for name, value in (arguments | changed).items()]
    # Whoever does not vote yet is never ready, and has started all the same.
    container["startupProbe"]["httpGet"]["path"] = "/livez"


def _move(made: Manifest, cluster: Cluster, index: int) -> None:
    """Give a member beyond the first its own place."""
    name, mark = component_name(index), {MEMBER_LABEL: str(index)}
    made["metadata"]["name"] = name
    made["spec"]["serviceName"] = name
    made["spec"]["selector"] = {"matchLabels": {**made["spec"]["selector"]["matchLabels"], **mark}}
    pod: dict[str, Any] = made["spec"]["template"]
    pod["metadata"]["labels"] = {**pod["metadata"]["labels"], **mark}
    for volume in pod["spec"]["volumes"]:
        if volume["name"] == "pki":
            volume["secret"]["secretName"] = name
        elif volume["name"] == "data":
            volume["persistentVolumeClaim"]["claimName"] = claim_name(index)
    for mount in pod["spec"]["containers"][0]["volumeMounts"]:
        if mount["name"] == "data":
            mount["subPath"] = f"{cluster.uid}/{member_name(index)}"
