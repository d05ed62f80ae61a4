"""One connection to a machine by SSH: a pinned host key, commands as root, contents on standard input.

Only the machine whose key was pinned is spoken to; nothing of the surroundings (agent, configuration, known hosts,
passwords) takes part. Secrets go through standard input, never through a command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from importlib.resources import files

import asyncssh

from haneul.dkos.preflight import MachineFacts, parse_facts
from haneul.kernel.errors import HaneulError, UnavailableError

_CONNECT_SECONDS = 10.0
_COMMAND_SECONDS = 90.0
_PART_SECONDS = 300.0
_MOST_SAID = 1 << 18
_LONGEST_WORDS = 300
# Which one a machine shows does not depend on chance when it has several.
_HOST_KEYS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256")


class MachineCommandError(HaneulError):
    """A machine was reached and could not do what it was told; it says why."""

    code = "machine-failed"
    title = "A machine could not do it"
    http_status = 502
    exit_code = 6

    def __init__(self, detail: str, *, status: int, hint: str = "") -> None:
        super().__init__(detail, hint=hint)
        self.status = status


@dataclass(frozen=True)
class SshTarget:
    """Where a machine is and how it is known. Without ``host_key`` whatever key it shows is taken and reported."""

    address: str
    port: int
    user: str
    private_key: bytes = field(repr=False)
    host_key: str = ""


@dataclass(frozen=True)
class NodeState:
    """A node as its machine knows it. ``instance``, ``revision`` and ``era`` name what was installed last."""

    owner: str = ""
    instance: str = ""
    revision: str = ""
    era: int = 0
    started: datetime | None = None
    running: bool = False


def parse_state(text: str) -> NodeState:
    """Return the state in what the script says. Raises MachineCommandError where that makes no sense."""
    told = dict(line.partition(" ")[::2] for line in text.splitlines())
    try:
        instance, revision, era = told["instance"].split() if "instance" in told else ("", "", "0")
        started = datetime.fromisoformat(told["started"]) if "started" in told else None
        if started is not None and started.tzinfo is None:
            raise ValueError("a moment without its zone")
        return NodeState(
            told.get("owner", ""), instance, revision, int(era), started, running=told.get("running") == "yes"
        )
    except ValueError as error:
        raise MachineCommandError(f"the machine's answer makes no sense: {error}", status=0) from error


class MachineSession:
    """Commands on one machine."""

    def __init__(self, connection: asyncssh.SSHClientConnection, *, user: str, host_key: str) -> None:
        self._connection = connection
        self._prefix = [] if user == "root" else ["sudo", "-n", "--"]
        self._script = _script("machine.sh")
        #: Fingerprint of the key that the machine proved to have.
        self.host_key = host_key

    async def facts(self) -> MachineFacts:
        """Return what the machine tells about itself; changes nothing on it."""
        told = await self.run("facts")
        try:
            return parse_facts(told)
        except ValueError as error:
            raise MachineCommandError(f"the machine's answer makes no sense: {error}", status=0) from error

    async def state(self) -> NodeState:
        """Return what is known of the machine's node."""
        return parse_state(await self.run("state"))

    async def run(
        self,
        *arguments: str,
        contents: bytes = b"",
        timeout: float = _COMMAND_SECONDS,  # noqa: ASYNC109 - a timeout has to be told in words
    ) -> str:
        """Run one command of the script as root; return what it says."""
        command = shlex.join([*self._prefix, "/bin/sh", "-c", self._script, "haneul", *arguments])
        try:
            async with asyncio.timeout(timeout):
                status, told, said = await self._finished(command, contents)
        except TimeoutError as error:
            raise UnavailableError(f"'{arguments[0]}' took longer than {timeout:.0f} s on the machine") from error
        except (OSError, asyncssh.Error) as error:
            raise UnavailableError(f"the connection to the machine broke: {_words(error)}") from error
        if status != 0:
            lines = _text(said).strip().splitlines()
            raise MachineCommandError(
                f"'{arguments[0]}' failed: {lines[-1][:_LONGEST_WORDS] if lines else 'without a word'}",
                status=status or -1,
            )
        return _text(told)

    async def _finished(self, command: str, contents: bytes) -> tuple[int | None, bytes, bytes]:
        """Return a command's exit status and what it said. A machine is its tenant's, and may talk without end."""
        process: asyncssh.SSHClientProcess[bytes]
        process = await self._connection.create_process(command, encoding=None)
        try:
            # A command that ended already says by its status whether it missed anything.
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(contents)
                process.stdin.write_eof()
            told, said = await asyncio.gather(_bounded(process.stdout), _bounded(process.stderr))
            await process.wait_closed()
        finally:
            process.close()
        return process.exit_status, told, said

    async def send_part(self, name: str, data: bytes) -> None:
        """Send one part of the node's files; the machine verifies it."""
        await self.run("part", name, contents=data, timeout=_PART_SECONDS)


def _script(name: str) -> str:
    return (files("haneul.dkos.adapters.machine") / name).read_text()


class _Pinned(asyncssh.SSHClient):
    """Accepts one key, or with no pin any, and remembers which was shown."""

    def __init__(self, pin: str) -> None:
        self._pin = pin
        self.shown = ""

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.shown = key.get_fingerprint()
        return not self._pin or self.shown == self._pin


@asynccontextmanager
async def open_session(target: SshTarget) -> AsyncIterator[MachineSession]:
    """Connect; raises UnavailableError in words when that is not possible."""
    client = _Pinned(target.host_key)
    try:
        key = asyncssh.import_private_key(target.private_key)
    except (asyncssh.KeyImportError, ValueError) as error:
        raise UnavailableError("the project's key cannot be read", hint="give it anew: 'haneul machine key'") from error
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            connection, _ = await asyncssh.create_connection(
                lambda: client,
                target.address,
                target.port,
                username=target.user,
                client_keys=[key],
                known_hosts=([], [], []),
                server_host_key_algs=list(_HOST_KEYS),
                x509_trusted_certs=None,
                agent_path=None,
                config=[],
                preferred_auth="publickey",
                gss_host=None,
                keepalive_interval=5,
                keepalive_count_max=3,
            )
    except asyncssh.HostKeyNotVerifiable as error:
        shown = client.shown or "an unknown kind of key"
        raise UnavailableError(
            f"the machine shows the host key {shown}, not the pinned {target.host_key}",
            hint="somebody may stand between; if the machine was made anew, remove and add it",
        ) from error
    except asyncssh.PermissionDenied as error:
        raise UnavailableError(
            f"the machine does not let {target.user} in with the project's key",
            hint="put the line that 'haneul machine key' shows into its authorized_keys",
        ) from error
    except (OSError, TimeoutError, asyncssh.Error) as error:
        raise UnavailableError(
            f"no SSH connection to {target.address} port {target.port}: {_words(error)}",
            hint="look whether the machine runs and the port is open from the management hosts",
        ) from error
    try:
        yield MachineSession(connection, user=target.user, host_key=client.shown)
    finally:
        connection.abort()
        await connection.wait_closed()


async def _bounded(stream: asyncssh.SSHReader[bytes]) -> bytes:
    said = b""
    while part := await stream.read(_MOST_SAID):
        said += part
        if len(said) > _MOST_SAID:
            raise MachineCommandError("the machine says more than it has to say", status=0)
    return said


def _text(said: bytes) -> str:
    return said.decode(errors="replace")


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
