"""The reference of the cluster resource and its events, written from the code so that the two cannot drift apart. Pure.

``docs/reference/cluster-spec.md`` is exactly what :func:`cluster_spec_page` returns, ``cluster-events.md`` what
:func:`cluster_events_page` does; tests hold them to that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from haneul.dkos.event_recorder import BURST, REFILL_SECONDS, WRITE_SECONDS
from haneul.dkos.events import MEANINGS
from haneul.dkos.link_presets import PRESETS
from haneul.dkos.model import CLUSTERS, ClusterSpec, ClusterStatus
from haneul.dkos.releases import KUBELET_MINORS, VERSIONS
from haneul.dkos.schema import structural
from haneul.dkos.upgrading import state_of

_HEAD: Final = f"""# The cluster resource

A cluster is a custom resource of the management cluster: `{CLUSTERS.plural}.{CLUSTERS.group}`, version
`{CLUSTERS.version}`, in the namespace `project-<project>`. The platform's API creates it and gives it its ranges; the
operator makes it so and writes its status. This page is generated from the model; fields that are not listed do not
exist, and a request with one is refused.

```yaml
apiVersion: {CLUSTERS.api_version}
kind: {CLUSTERS.kind}
metadata:
  name: first
  namespace: project-shop
spec:
  version: {ClusterSpec().version}
  network:
    plugin: native
    pods: 10.0.0.0/18
    services: 10.128.0.0/20
  nodePools:
    - name: default
      count: 2
      cpu: 2
      memoryMib: 2048
  settings:
    nodeStatusUpdateSeconds: 5
    nodeMonitorGraceSeconds: 20
```

## Rules beyond a single field

- A name is a DNS label of at most 30 characters: small letters, digits and `-`, a letter first.
- Ranges that are left out are given: the lowest free /18 of 10.0.0.0/9 for pods, the lowest free /20 of 10.128.0.0/10
  for services. Ranges that are named must be private and may overlap no other cluster's and none of the platform's.
- Each node takes a /24 of the pods' range, so the range bounds how many nodes a cluster can have.
- `version` goes forward only, and minor by minor; `nodeVersion`, if set, is never newer and at most three minors older
  ([versions](kubernetes-versions.md)).
- `network` cannot change once the cluster is made: nodes that wrap packets and nodes that do not, or agents of two
  networks, would not meet while one after the other is changed. Everything else can, but sandbox nodes cannot become
  machines.
- `loadBalancing: dsr` is refused with `native`, whose kube-proxy cannot do it, with `tunnel: always`, and on sandbox
  nodes, for which the management cluster lets nobody answer with another pod's address. As machines have `native`
  only so far, no cluster can have it yet ([networks](../explanation/networks.md)).
- All pools have the same provider. With `ssh` a pool names machines that the project registered, each the node of one
  cluster only, and the network is `native`; `cpu` and `memoryMib` do not matter, as a node takes its whole machine.
- What happened last says whether a cluster sleeps: a moment of `hibernation.schedule`, or `hibernation.asleep`, which
  counts from `hibernation.asked`. Moments before the cluster was created do not count. A rule's minute is a number.
  A cluster with machines (`ssh`) cannot sleep: Haneul does not start and end them.
- `restore` and `authorities` are set by actions of owners, not by a change of the spec; a new cluster that names
  a backup comes from the action `restore` alone, and has the range of services of the one that it comes from.
- `nodeMonitorGraceSeconds` is at least four times `nodeStatusUpdateSeconds`.

Every refusal comes before anything is made, with the code `invalid-input` or `conflict` ([errors](errors.md)).
"""

_CONDITIONS: Final = """
## Conditions

They come true in this order; the first that is not true says what the cluster waits for.

| condition | true when | reason while it is not |
| --- | --- | --- |
| `Accepted` | the spec can be carried out | `SpecRefused` |
| `Hibernated` | nothing of it runs; in place of all below, from when it falls asleep until it wakes | `PodsEnding`… |
| `Restored` | its data was put in place; in place of all below, until then | `Preparing`, `Placing`… |
| `ControlPlaneReady` | every master's pod is ready | `MastersStarting` |
| `ApiAnswers` | the API server answers the operator | `ApiSilent` |
| `NetworkReady` | at least one node is ready, which takes a working network | `NoNodeReady` |
| `NodesReady` | the nodes are those wanted, ready and current | `NodesJoining`, `NodesChanging` |
| `AuthoritiesCurrent` | no authorities are being replaced | [the step](../explanation/certificates.md) |
| `VersionCurrent` | masters and nodes run the versions asked for | `UpgradingNodes`, `UpgradeStopped`… |
| `Followed` | there only while false: it has more objects than are followed; nothing waits on it | `OverBudget` |

## Phases

| phase | meaning |
| --- | --- |
| `Pending` | the operator has not looked at it yet |
| `Creating` | it has never been ready |
| `Ready` | all conditions are true, but for `Followed` |
| `Updating` | it was ready, and its spec changed since, or its nodes are being changed |
| `Degraded` | it was ready, its spec did not change, and something is missing |
| `Hibernating` | it falls asleep |
| `Asleep` | nothing of it runs; it is kept |
| `Waking` | it is being started again, and has not been ready since |
| `Restoring` | a state of its backup is put in place, and it has not been ready on it |
| `Deleting` | it is being torn down |
"""


def cluster_spec_page() -> str:
    """Return the page, as Markdown."""
    spec = structural(ClusterSpec.model_json_schema(mode="validation"))
    status = structural(ClusterStatus.model_json_schema(mode="validation"))
    parts = [_HEAD, "\n## Spec\n\n", _table(spec, "spec"), _PRESETS_HEAD, _presets(), "\n## Status\n\n"]
    return "".join([*parts, _table(status, "status"), _CONDITIONS])


_PRESETS_HEAD: Final = """
## Presets of machines

What a machine is registered as says what its link is like, and so which `network.tunnel` a new cluster gets that leaves
it out; one machine with `always` decides for all. Sandbox nodes get `needed`, which is VXLAN for them
([networks](../explanation/networks.md)).

| preset | its link | tunnel | say otherwise |
| --- | --- | --- | --- |
"""


def _presets() -> str:
    rows = (f"| `{name}` | {one.link} | `{one.tunnel}` | {one.otherwise} |" for name, one in PRESETS.items())
    return "\n".join(rows) + "\n"


_EVENTS_HEAD: Final = f"""# Events of clusters

Conditions say how a cluster is now; events say what happened to it, and when.

```sh
haneul cluster events first -p shop
haneul cluster events first -p shop --watch
```

`haneul cluster get` shows the last five. The REST API tells them at
`GET /projects/{{project}}/clusters/{{name}}/events`.
They are Kubernetes Events (`events.k8s.io/v1`) in the management cluster, in the namespace `project-<project>`, about
the cluster's resource; as root on the management host `kubectl -n project-shop describe cluster first` shows them too.

- They are kept for an hour after they happened last, and also while the cluster is being deleted.
- The same event again, word for word, raises the count of the one that is there, at most every {WRITE_SECONDS:.0f}
  seconds. A cluster can cause {BURST} different events at once and one more every {REFILL_SECONDS:.0f} seconds; what is
  more than that is left out.
- They are told as well as it goes: an event that cannot be written holds up nothing. A machine that is replaced or a
  master that restarts while the operator does not run is not told. What must be known for sure stands in the status
  and in the record of changes.
- Programs may rely on `type` and `reason`; messages are for people and may change.

This page is generated from the code.

| type | reason | told when | what to do |
| --- | --- | --- | --- |
"""


def cluster_events_page() -> str:
    """Return the page of all reasons, as Markdown."""
    rows = (f"| {kind} | `{reason}` | {when} | {what_to_do} |" for reason, (kind, when, what_to_do) in MEANINGS.items())
    return _EVENTS_HEAD + "\n".join(rows).replace("|  |", "| |") + "\n"


_VERSIONS_HEAD: Final = """# Versions of Kubernetes

`haneul cluster versions` and `GET /kubernetes-versions` list the versions that clusters may have, this page as well. It
is generated from the code.

| version | state |
| --- | --- |
"""

_VERSIONS_RULES: Final = f"""
- **default**: what a cluster gets that names no version. It is the management cluster's own, with which all tests are
  run.
- **deprecated**: offered until the next minor takes its place. Clusters that have it then go on as they are, can be
  changed and upgraded, and not be made anew.

## What may come after what

These are the rules of Kubernetes' version skew policy. Whatever breaks one is refused before anything is changed.

| part | rule |
| --- | --- |
| API server | to a newer patch of its minor, or to the next minor; never back, never over a minor |
| controller manager, scheduler | follow the API server; they are never newer, and at most one minor older |
| nodes | kubelet, kube-proxy: never newer than the API server, at most {KUBELET_MINORS} minors older; back and forth |
| etcd | one release for all versions |

Nodes follow the masters unless `spec.nodeVersion` names another version. Another version is asked for when the cluster
was ready before, is awake, and its masters are where they were last sent.
[How to upgrade](../howto/upgrade-clusters.md).
"""


def kubernetes_versions_page() -> str:
    """Return the page of versions, as Markdown."""
    rows = [f"| {version} | {state_of(version)} |" for version in VERSIONS]
    return _VERSIONS_HEAD + "\n".join(rows) + "\n" + _VERSIONS_RULES


def _table(schema: dict[str, Any], name: str) -> str:
    rows = ["| field | type | default | bounds | meaning |", "| --- | --- | --- | --- | --- |"]
    for path, field in _fields(schema, name):
        meaning = str(field.get("description", "")).replace("\n", " ")
        cells = (f"`{path}`", _type(field), _default(field), _bounds(field), meaning)
        rows.append(f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |"))
    return "\n".join(rows) + "\n"


def _fields(schema: dict[str, Any], prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, field in schema.get("properties", {}).items():
        path = f"{prefix}.{name}"
        yield path, field
        if field.get("type") == "array":
            yield from _fields(field["items"], f"{path}[]")
        else:
            yield from _fields(field, path)


def _type(field: dict[str, Any]) -> str:
    if "enum" in field:
        return "one of " + ", ".join(f"`{value}`" for value in field["enum"])
    match field.get("type"):
        case "array":
            return "list"
        case "object":
            values = field.get("additionalProperties")
            return f"map to {values['type']}" if isinstance(values, dict) else "object"
        case kind:
            return str(kind)


def _default(field: dict[str, Any]) -> str:
    default = field.get("default")
    if field.get("nullable"):
        return "given"
    return "" if default in (None, "") or isinstance(default, (dict, list)) else f"`{json.dumps(default)}`"


def _bounds(field: dict[str, Any]) -> str:
    least, most = field.get("minimum"), field.get("maximum")
    if least is None or most is None:
        return ""
    return f"above {least}, to {most}" if field.get("exclusiveMinimum") else f"{least} to {most}"
