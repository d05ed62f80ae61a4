"""`haneul machine`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from haneul.cli.client import ApiClient
from haneul.cli.context import Contexts
from haneul.cli.output import Column, Format, say, show
from haneul.kernel.errors import DeadlineExceededError, HostNotReadyError, InvalidInputError

machine_app = typer.Typer(help="Machines of your own, reached by SSH, as nodes.", no_args_is_help=True)

Project = Annotated[str | None, typer.Option("--project", "-p", help="Project; by default the one in use.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="How to show the result.")]
Name = Annotated[str, typer.Argument(help="Name of the machine.")]

_CHECK_SECONDS = 60.0
_LOOK_SECONDS = 0.3


def _checked(machine: dict[str, Any]) -> str:
    check = machine["status"]["check"]
    if check is None or check["requested"] != machine["spec"]["checkRequested"]:
        return "checking"
    return "fits" if check["passed"] else "does not fit"


def _use(machine: dict[str, Any]) -> str:
    claim = machine["status"]["claim"]
    if claim is None:
        return ""
    return f"{'leaving' if claim['releasing'] else 'node of'} {claim['cluster']}"


_COLUMNS = [
    Column("NAME", lambda m: m["name"]),
    Column("ADDRESS", lambda m: m["spec"]["address"]),
    Column("PRESET", lambda m: m["spec"]["preset"]),
    Column("CHECK", _checked),
    Column("USE", _use),
    Column("MESSAGE", lambda m: m["status"]["message"]),
    Column("USER", lambda m: m["spec"]["user"], wide=True),
    Column("PORT", lambda m: str(m["spec"]["port"]), wide=True),
    Column("HOST KEY", lambda m: m["spec"]["hostKey"] or m["status"]["hostKey"], wide=True),
]
_FINDINGS = [
    Column("CHECKED", lambda f: f["name"]),
    Column("GOOD", lambda f: "yes" if f["good"] else "no"),
    Column("FOUND", lambda f: f["detail"]),
    Column("HINT", lambda f: f["hint"]),
]


@machine_app.command()
def add(
    name: Name,
    address: Annotated[str, typer.Option(help="IPv4 address of the machine.")],
    host_key: Annotated[
        str | None, typer.Option(help="Fingerprint of its host key, SHA256:…, as ssh-keygen -lf shows it there.")
    ] = None,
    trust_on_first_use: Annotated[
        bool, typer.Option("--trust-on-first-use", help="Trust the host key that it shows first, from then on only it.")
    ] = False,
    user: Annotated[str, typer.Option(help="Whom to sign in as: root, or somebody with sudo.")] = "root",
    port: Annotated[int, typer.Option(help="Port of its SSH server.")] = 22,
    preset: Annotated[
        str, typer.Option(help="vm (virtual) or pm (physical): a label of its node, and how packets travel.")
    ] = "pm",
    project: Project = None,
    output: Output = Format.TABLE,
) -> None:
    """Register a machine, and look whether it can become a node. Nothing on it is changed.

    Put the line that 'haneul machine key' shows into its authorized_keys before.

    Examples:

        haneul machine add rack1 --address 192.0.2.11 --host-key SHA256:uNiVztksCsDhcc0u9e8BrfzMXsJJTUJWWVLIP7gE4Q8

        haneul machine add vm7 --address 192.0.2.27 --trust-on-first-use --user ops --preset vm
    """
    if (host_key is None) == (not trust_on_first_use):
        raise InvalidInputError(
            "say how the machine is known: --host-key or --trust-on-first-use",
            hint="'ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub' on the machine shows the fingerprint",
        )
    contexts = Contexts.default()
    owner = contexts.project(project)
    spec = {"address": address, "port": port, "user": user, "preset": preset, "trustOnFirstUse": trust_on_first_use}
    if host_key is not None:
        spec["hostKey"] = host_key
    with contexts.client() as client:
        machine = client.post(f"/projects/{owner}/machines", {"name": name, "spec": spec})
        _show_check(_wait_checked(client, owner, machine), output)


@machine_app.command("list")
def list_machines(project: Project = None, output: Output = Format.TABLE) -> None:
    """List the project's machines and whose nodes they are.

    Examples:

        haneul machine list -o wide
    """
    contexts = Contexts.default()
    owner = contexts.project(project)
    with contexts.client() as client:
        show(client.get(f"/projects/{owner}/machines")["items"], _COLUMNS, output)


@machine_app.command()
def check(name: Name, project: Project = None, output: Output = Format.TABLE) -> None:
    """Look whether a machine can be reached and can become a node. Nothing on it is changed.

    Examples:

        haneul machine check rack1
    """
    contexts = Contexts.default()
    owner = contexts.project(project)
    with contexts.client() as client:
        machine = client.post(f"/projects/{owner}/machines/{name}/check", {})
        _show_check(_wait_checked(client, owner, machine), output)


@machine_app.command()
def remove(
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="Forget it with what is left on it.")] = False,
    project: Project = None,
) -> None:
    """Forget a machine that is nobody's node any more.

    Examples:

        haneul machine remove rack1
    """
    contexts = Contexts.default()
    owner = contexts.project(project)
    with contexts.client() as client:
        client.delete(f"/projects/{owner}/machines/{name}{'?force=true' if force else ''}")
    say(f"machine {name} removed")


@machine_app.command()
def key(
    file: Annotated[Path | None, typer.Option("--give", help="File with a private key to use from now on.")] = None,
    project: Project = None,
) -> None:
    """Show the line that lets the platform sign in to the project's machines; it goes into their authorized_keys.

    Examples:

        haneul machine key

        haneul machine key --give ~/.ssh/nodes
    """
    contexts = Contexts.default()
    owner = contexts.project(project)
    with contexts.client() as client:
        path = f"/projects/{owner}/machine-key"
        made = client.get(path) if file is None else client.put(path, {"privateKey": file.expanduser().read_text()})
    print(made["publicKey"])  # noqa: T201 - data goes to standard output


def _wait_checked(client: ApiClient, project: str, machine: dict[str, Any]) -> dict[str, Any]:
    """Return the machine once the operator has looked at it."""
    path = f"/projects/{project}/machines/{machine['name']}"
    deadline = time.monotonic() + _CHECK_SECONDS
    while _checked(machine) == "checking":
        if time.monotonic() > deadline:
            raise DeadlineExceededError(
                f"waited {_CHECK_SECONDS:.0f} s for {machine['name']} to be checked",
                hint=f"'haneul machine list -p {project}' shows the result once it is there",
            )
        time.sleep(_LOOK_SECONDS)
        machine = client.get(path)
    return machine


def _show_check(machine: dict[str, Any], output: Format) -> None:
    """Show a machine and what was found; end as an error if it does not fit."""
    show([machine], _COLUMNS, output, single=True)
    found = machine["status"]["check"]
    if output is Format.TABLE and found["findings"]:
        sys.stdout.write("\n")
        show(found["findings"], _FINDINGS, output)
    if not found["passed"]:
        bad = [f"{entry['name']}: {entry['detail']}" for entry in found["findings"] if not entry["good"]]
        raise HostNotReadyError(
            f"{machine['name']} cannot become a node: {found['problem'] or '; '.join(bad)}",
            hint=f"mend that, then 'haneul machine check {machine['name']}'; the machine stays registered",
        )
