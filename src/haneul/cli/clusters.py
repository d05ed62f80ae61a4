"""`haneul cluster` and `haneul node`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from haneul.cli import cluster_events, upgrades
from haneul.cli import kubeconfig as kube
from haneul.cli.backups import backup_app, restore
from haneul.cli.context import Contexts
from haneul.cli.output import Column, Format, age, say, show
from haneul.cli.waiting import describe, wait_asleep, wait_awake, wait_gone, wait_ready
from haneul.kernel.documents import to_yaml
from haneul.kernel.errors import InvalidInputError

cluster_app = typer.Typer(help="Kubernetes clusters with masters of their own.", no_args_is_help=True)
cluster_app.add_typer(backup_app, name="backup")
cluster_app.command()(restore)
node_app = typer.Typer(help="The nodes of a cluster.", no_args_is_help=True)
cluster_app.command()(upgrades.versions)
cluster_app.command()(upgrades.upgrade)

Project = Annotated[str | None, typer.Option("--project", "-p", help="Project; by default the one in use.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="How to show the result.")]
Name = Annotated[str, typer.Argument(help="Name of the cluster.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait at most.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is done.")]


def _phase(cluster: dict[str, Any]) -> str:
    return "Deleting" if cluster["deleting"] else str(cluster["status"]["phase"])


def _since(cluster: dict[str, Any]) -> str:
    """Return for how long a cluster has been what it is: since its last condition came true, or the first ended."""
    conditions = cluster["status"]["conditions"]
    if cluster["deleting"] or not conditions:
        return ""
    missing = [entry for entry in conditions if entry["status"] != "True"]
    return age((missing or [max(conditions, key=lambda entry: entry["lastTransitionTime"])])[0]["lastTransitionTime"])


def _backup(cluster: dict[str, Any]) -> str:
    """Return how the backup stands: how old it is if it is not current, how far behind if it is."""
    backup = cluster["status"].get("backup")
    if backup is None:
        return "none"
    if backup["state"] in ("Current", "Unproven"):
        return f"{backup['state']}, lag {backup['lagSeconds']:.1f}s"
    complete = backup["completeUntil"]
    return f"{backup['state']}, {age(complete)} old" if not complete.startswith("1970") else str(backup["state"])


def _of_nodes(cluster: dict[str, Any], what: str) -> float:
    return float(sum(pool["count"] * pool[what] for pool in cluster["spec"]["nodePools"]))


def _wanted(cluster: dict[str, Any]) -> int:
    return sum(pool["count"] for pool in cluster["spec"]["nodePools"])


def _masters(cluster: dict[str, Any]) -> str:
    version, count = str(cluster["status"]["version"]), cluster["spec"]["masters"]
    return version if count == 1 or not version else f"{count} x {version}"


_COLUMNS = [
    Column("NAME", lambda c: c["name"]),
    Column("PHASE", _phase),
    Column("SINCE", _since, wide=True),
    Column("VERSION", lambda c: c["spec"]["version"]),
    Column("MASTERS", _masters, wide=True),
    Column("NETWORK", lambda c: c["spec"]["network"]["plugin"]),
    Column("TUNNEL", lambda c: c["spec"]["network"].get("tunnel") or "", wide=True),
    Column("NODES", lambda c: f"{sum(n['ready'] for n in c['status']['nodes'])}/{_wanted(c)}"),
    Column("CPU", lambda c: f"{_of_nodes(c, 'cpu'):g}", wide=True),
    Column("MEMORY", lambda c: f"{_of_nodes(c, 'memoryMib') / 1024:.3g}Gi", wide=True),
    Column("ENDPOINT", lambda c: c["status"]["endpoint"]),
    Column("AGE", lambda c: age(c["created"])),
    Column("PODS", lambda c: c["status"]["pods"], wide=True),
    Column("SERVICES", lambda c: c["status"]["services"], wide=True),
    Column("BACKUP", _backup, wide=True),
    Column("WAITS ON", describe, wide=True),
]


@cluster_app.command()
def create(
    name: Name,
    nodes: Annotated[int, typer.Option(help="How many nodes.")] = 1,
    ha: Annotated[
        bool, typer.Option("--ha", help="Three masters, whose API answers through changes and the loss of one.")
    ] = False,
    network: Annotated[str, typer.Option(help="native or cilium.")] = "native",
    tunnel: Annotated[
        str | None,
        typer.Option(help="When packets between nodes are wrapped in VXLAN: needed (only where they must be), always."),
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="Kubernetes version, of 'haneul cluster versions'; by default the newest.")
    ] = None,
    pods: Annotated[str | None, typer.Option(help="Range for pods; by default a free one.")] = None,
    services: Annotated[str | None, typer.Option(help="Range for services; by default a free one.")] = None,
    cpu: Annotated[float, typer.Option(help="Cores of each node.")] = 2.0,
    memory: Annotated[int, typer.Option(help="Memory of each node in MiB.")] = 2048,
    machine: Annotated[
        list[str] | None, typer.Option(help="A registered machine that becomes a node; instead of --nodes.")
    ] = None,
    setting: Annotated[list[str] | None, typer.Option("--set", help="A setting, as NAME=VALUE.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read the spec from a YAML file.")] = None,
    project: Project = None,
    wait: Wait = True,
    timeout: Timeout = 300,
    output: Output = Format.TABLE,
) -> None:
    """Make a cluster and wait until its nodes are ready.

    Examples:

        haneul cluster create shop

        haneul cluster create shop --nodes 3 --network cilium

        haneul cluster create shop --ha

        haneul cluster create metal --machine rack1 --machine rack2

        haneul cluster create shop --set nodeMonitorGraceSeconds=20 --no-wait
    """
    contexts = Contexts.default()
    owner = contexts.project(project)
    if file is not None:
        spec = yaml.safe_load(file.read_text())
        if ha:
            spec = {**spec, "masters": 3}
    else:
        spec = {
            "network": {"plugin": network, "pods": pods, "services": services},
            "nodePools": [
                {"name": "default", "provider": "ssh", "machines": machine}
                if machine
                else {"name": "default", "count": nodes, "cpu": cpu, "memoryMib": memory}
            ],
            "settings": _settings(setting or []),
            "masters": 3 if ha else 1,
        }
        if tunnel is not None:
            spec["network"]["tunnel"] = tunnel
        if version is not None:
            spec["version"] = version
    with contexts.client() as client:
        cluster = client.post(f"/projects/{owner}/clusters", {"name": name, "spec": spec})
        if wait:
            cluster = wait_ready(client, owner, name, timeout=timeout)
        show([cluster], _COLUMNS, output, single=True)
        if wait:
            say(f"Next: haneul cluster kubeconfig {name} -p {owner}, then kubectl get nodes")


def _settings(pairs: list[str]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise InvalidInputError(f"{pair!r} is not NAME=VALUE", hint="for example --set maxPodsPerNode=50")
        settings[name] = yaml.safe_load(value)
    return settings


@cluster_app.command("list")
def list_clusters(project: Project = None, output: Output = Format.TABLE) -> None:
    """List the project's clusters.

    Examples:

        haneul cluster list

        haneul cluster list -p shop -o wide
    """
    contexts = Contexts.default()
    owner = contexts.project(project)
    with contexts.client() as client:
        show(client.list(f"/projects/{owner}/clusters"), _COLUMNS, output)


@cluster_app.command()
def get(
    name: Name, project: Project = None, wait: Wait = False, timeout: Timeout = 180, output: Output = Format.TABLE
) -> None:
    """Show a cluster: what it is, what it waits on, its masters and nodes, and what happened to it last.

    Examples:

        haneul cluster get shop

        haneul cluster get shop -o yaml
    """
    contexts = Contexts.default()
    owner = contexts.project(project)
    with contexts.client() as client:
        cluster = client.get(f"/projects/{owner}/clusters/{name}")
        if wait:
            # What was seen last may be of before a power cut; who waits wants to know how it is now.
            client.post(f"/projects/{owner}/clusters/{name}/look", {})
            cluster = wait_ready(client, owner, name, timeout=timeout)
        happened = cluster_events.last(client, owner, name) if output is Format.TABLE else []
    show([cluster], _COLUMNS, output, single=True)
    if output is Format.TABLE:
        print()  # noqa: T201 - between two tables
        conditions = [
            Column("CONDITION", lambda c: c["type"]),
            Column("STATUS", lambda c: c["status"]),
            Column("SINCE", lambda c: age(c["lastTransitionTime"])),
            Column("MESSAGE", lambda c: c["message"]),
        ]
        show(cluster["status"]["conditions"], conditions, output)
        backup = cluster["status"].get("backup")
        for entries, columns in (
            (cluster["status"]["masters"], _MASTER_COLUMNS),
            ([backup] if backup else [], _BACKUP_COLUMNS),
            (cluster["status"]["nodes"], _NODE_COLUMNS),
        ):
            if entries:
                print()  # noqa: T201 - between two tables
                show(entries, columns, output)
        if happened:
            print()  # noqa: T201 - between two tables
            show(happened, cluster_events.COLUMNS, output)


@cluster_app.command()
def events(
    name: Name,
    project: Project = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many of the newest to show.")] = 100,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing new ones until interrupted.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Show what happened to a cluster in the last hour, newest last.

    Examples:

        haneul cluster events shop

        haneul cluster events shop --watch

        haneul cluster events shop -o yaml
    """
    contexts = Contexts.default()
    owner = contexts.project(project)
    with contexts.client() as client:
        cluster_events.show_events(client, owner, name, limit=limit, watch=watch, output=output)


@cluster_app.command()
def scale(
    name: Name,
    nodes: Annotated[int | None, typer.Option(help="How many nodes the pool shall have.")] = None,
    machine: Annotated[
        list[str] | None, typer.Option(help="A registered machine that shall be in the pool; all others leave it.")
    ] = None,
    masters: Annotated[int | None, typer.Option(help="How many masters the cluster shall have: 1 or 3.")] = None,
    pool: Annotated[str | None, typer.Option(help="Name of the pool; by default the first.")] = None,
    project: Project = None,
    wait: Wait = True,
    timeout: Timeout = 300,
    output: Output = Format.TABLE,
) -> None:
    """Change how many nodes or masters a cluster has.

    Examples:

        haneul cluster scale shop --nodes 3

        haneul cluster scale shop --masters 3

        haneul cluster scale metal --machine rack1 --machine rack3
    """
    if sum((nodes is not None, bool(machine), masters is not None)) != 1:
        raise InvalidInputError(
            "name one of --nodes, --machine and --masters", hint="machines are named, sandbox nodes and masters counted"
        )
    contexts = Contexts.default()
    owner = contexts.project(project)
    with contexts.client() as client:
        path = f"/projects/{owner}/clusters/{name}"
        if masters is not None:
            change: dict[str, Any] = {"masters": masters}
        else:
            pool_change = {"machines": machine, "count": len(machine)} if machine else {"count": nodes}
            pools = client.get(path)["spec"]["nodePools"]
            wanted = pool or (pools[0]["name"] if pools else "")
            if wanted not in [entry["name"] for entry in pools]:
                hint = f"'haneul cluster get {name} -o yaml'"
                raise InvalidInputError(f"{name} has no pool named {wanted}", hint=hint)
            change = {"nodePools": [{**one, **pool_change} if one["name"] == wanted else one for one in pools]}
        cluster = client.patch(path, change)
        if wait:
            cluster = wait_ready(client, owner, name, timeout=timeout)
    show([cluster], _COLUMNS, output, single=True)


@cluster_app.command("rotate-authorities")
def rotate_authorities(
    name: Name,
    grace: Annotated[
        int, typer.Option(help="Seconds for which the old authorities stay trusted once the new ones do everything.")
    ] = 3600,
    project: Project = None,
    wait: Wait = True,
    timeout: Timeout = 1800,
    output: Output = Format.TABLE,
) -> None:
    """Replace a cluster's certificate authorities and keys; every node is made anew. For owners of the project.

    Asked again while the old authorities are still trusted, it only changes for how long. Haneul does this by itself
    a year before an authority ends.

    Examples:

        haneul cluster rotate-authorities shop

        haneul cluster rotate-authorities shop --grace 0
    """
    contexts = Contexts.default()
    owner = contexts.project(project)
    with contexts.client() as client:
        path = f"/projects/{owner}/clusters/{name}/rotate-authorities"
        cluster = client.post(path, {"graceSeconds": grace})
        if wait:
            cluster = wait_ready(client, owner, name, timeout=timeout)
    show([cluster], _COLUMNS, output, single=True)
    if wait:
        say(f"Everybody who uses kubectl with it needs: haneul cluster kubeconfig {name} -p {owner}")


@cluster_app.command()
def hibernate(
    name: Name,
    schedule: Annotated[
        str | None, typer.Option(help="Fall asleep by itself: a line of cron, such as '0 20 * * 1-5'.")
    ] = None,
    wake_at: Annotated[str | None, typer.Option("--wake", help="Wake by itself, likewise; with --schedule.")] = None,
    zone: Annotated[str, typer.Option(help="Time zone of the schedule.")] = "UTC",
    no_schedule: Annotated[bool, typer.Option("--no-schedule", help="Take the schedule away.")] = False,
    on_request: Annotated[
        bool | None, typer.Option("--wake-on-request/--no-wake-on-request", help="Whether its API's callers wake it.")
    ] = None,
    project: Project = None,
    wait: Wait = True,
    timeout: Timeout = 240,
    output: Output = Format.TABLE,
) -> None:
    """Put a cluster to sleep: nothing of it runs, everything is kept. With --schedule, only say when.

    Pods get their time to end, at most two minutes. A request to its API or 'haneul cluster wake' wakes it.

    Examples:

        haneul cluster hibernate shop

        haneul cluster hibernate shop --schedule "0 20 * * 1-5" --wake "0 7 * * 1-5" --zone Europe/Berlin

        haneul cluster hibernate shop --no-schedule
    """
    patch = _sleep_settings(schedule, wake_at, zone, no_schedule=no_schedule, on_request=on_request)
    contexts = Contexts.default()
    owner = contexts.project(project)
    path = f"/projects/{owner}/clusters/{name}"
    with contexts.client() as client:
        if patch:
            cluster = client.patch(path, {"hibernation": patch})
        else:
            cluster = client.post(f"{path}/hibernate", {})
            if wait:
                cluster = wait_asleep(client, owner, name, timeout=timeout)
    show([cluster], _COLUMNS, output, single=True)


def _sleep_settings(
    schedule: str | None, wake_at: str | None, zone: str, *, no_schedule: bool, on_request: bool | None
) -> dict[str, Any]:
    """Return what the options change of when a cluster sleeps; nothing if they only ask for sleep now."""
    if schedule is None and (wake_at is not None or zone != "UTC"):
        raise InvalidInputError("--wake and --zone say more of --schedule", hint="add --schedule '0 20 * * 1-5'")
    if schedule is not None and no_schedule:
        raise InvalidInputError("--schedule and --no-schedule contradict each other", hint="give one of them")
    patch: dict[str, Any] = {}
    if schedule is not None:
        patch["schedule"] = [{"sleep": schedule, "wake": wake_at or "", "zone": zone}]
    if no_schedule:
        patch["schedule"] = []
    if on_request is not None:
        patch["wakeOnRequest"] = on_request
    return patch


@cluster_app.command()
def wake(
    name: Name, project: Project = None, wait: Wait = True, timeout: Timeout = 180, output: Output = Format.TABLE
) -> None:
    """Wake a cluster, and wait until its API answers and its nodes are ready.

    It stays awake until its schedule's next moment, or until it is put to sleep.

    Examples:

        haneul cluster wake shop
    """
    contexts = Contexts.default()
    owner = contexts.project(project)
    with contexts.client() as client:
        cluster = client.post(f"/projects/{owner}/clusters/{name}/wake", {})
        answered = ready = 0.0
        if wait:
            cluster, answered, ready = wait_awake(client, owner, name, timeout=timeout)
    show([cluster], _COLUMNS, output, single=True)
    if wait:
        say(f"the API answered after {answered:.1f} s, all nodes were ready after {ready:.1f} s")


@cluster_app.command()
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    project: Project = None,
    wait: Wait = True,
    timeout: Timeout = 240,
) -> None:
    """Delete a cluster and everything in it.

    Examples:

        haneul cluster delete shop --yes
    """
    contexts = Contexts.default()
    owner = contexts.project(project)
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidInputError("nobody is here to confirm", hint="add --yes to delete without being asked")
        typer.confirm(f"Delete cluster {name} of {owner} and everything in it?", abort=True, err=True)
    with contexts.client() as client:
        client.delete(f"/projects/{owner}/clusters/{name}")
        if wait:
            wait_gone(client, owner, name, timeout=timeout)
    kube.remove_from(kube.default_path(), owner, name)
    say(f"cluster {name} deleted" if wait else f"cluster {name} is being deleted")


@cluster_app.command()
def kubeconfig(
    name: Name,
    project: Project = None,
    file: Annotated[Path | None, typer.Option("--file", help="File to merge into; by default kubectl's.")] = None,
    only_print: Annotated[bool, typer.Option("--print", help="Print it instead of merging it.")] = False,
) -> None:
    """Let kubectl reach a cluster, with short-lived credentials that renew themselves.

    Examples:

        haneul cluster kubeconfig shop

        haneul cluster kubeconfig shop --print
    """
    contexts = Contexts.default()
    owner = contexts.project(project)
    with contexts.client() as client:
        made = kube.request_token(client, owner, name) or kube.request_credential(client, owner, name)[0]
    # What is kept may be of a cluster of this name that is gone, or of authorities that were replaced since.
    kube.Credentials.default().forget(contexts.current().server, owner, name)
    new = kube.entries(owner, name, server=made["server"], authority=made["certificateAuthority"])
    if only_print:
        print(to_yaml(new), end="")  # noqa: T201 - data goes to standard output
        return
    path = file or kube.default_path()
    kube.merge_into(path, new)
    say(f"kubectl now talks to {owner}/{name} ({path})")


@cluster_app.command(hidden=True)
def credential(name: Name, project: Project = None) -> None:
    """Print a short-lived credential for kubectl (its exec plugin calls this)."""
    contexts = Contexts.default()
    owner, server = contexts.project(project), contexts.current().server
    credentials = kube.Credentials.default()
    found = credentials.kept(server, owner, name, kube.utc_now())
    if found is None:
        with contexts.client() as client:
            found = credentials.fetch(client, server, owner, name)
    print(json.dumps(found))  # noqa: T201 - kubectl reads standard output


_MASTER_COLUMNS = [
    Column("MASTER", lambda m: m["name"]),
    Column("READY", lambda m: "yes" if m["ready"] else "no"),
    Column("HOST", lambda m: m["host"]),
    Column("MESSAGE", lambda m: m["message"]),
]
_BACKUP_COLUMNS = [
    Column("BACKUP", lambda b: b["state"]),
    Column("COMPLETE", lambda b: f"until {age(b['completeUntil'])} ago"),
    Column("LAG", lambda b: f"{b['lagSeconds']:.1f}s"),
    Column("RESTORABLE", lambda b: f"since {age(b['restorableSince'])} ago" if b["restorableSince"] else ""),
    Column("DRILL", lambda b: f"{b['drillSeconds']:.1f}s, {age(b['provenAt'])} ago" if b["provenAt"] else "not yet"),
    Column("MESSAGE", lambda b: b["message"]),
]
_NODE_COLUMNS = [
    Column("NODE", lambda n: n["name"]),
    Column("POOL", lambda n: n["pool"]),
    Column("READY", lambda n: "yes" if n["ready"] else "no"),
    Column("VERSION", lambda n: n["version"]),
    Column("ADDRESS", lambda n: n["address"]),
    Column("MESSAGE", lambda n: n["message"]),
]


@node_app.command("list")
def list_nodes(name: Name, project: Project = None, output: Output = Format.TABLE) -> None:
    """List a cluster's nodes.

    Examples:

        haneul node list shop
    """
    contexts = Contexts.default()
    owner = contexts.project(project)
    with contexts.client() as client:
        show(client.get(f"/projects/{owner}/clusters/{name}")["status"]["nodes"], _NODE_COLUMNS, output)
