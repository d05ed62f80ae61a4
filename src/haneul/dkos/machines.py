"""The values of machines: those that a project has registered to become nodes by SSH.

A machine is a custom resource ``machines.dkos.haneul.dev`` in the namespace of its project. Its status is written by
the operator alone, which is also the only one that ever speaks to machines.
"""

from __future__ import annotations

import ipaddress
import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from haneul.kernel.kube import Resource

MACHINES: Final = Resource("dkos.haneul.dev", "v1alpha1", "machines", "Machine")
LONGEST_MACHINE_NAME: Final = 30
PRESET_LABEL: Final = "dkos.haneul.dev/preset"

_FINGERPRINT: Final = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


class _Value(BaseModel):
    """Camel case outside, unknown fields are errors, values never change."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


def _host_address(text: str) -> str:
    address = ipaddress.IPv4Address(text)
    if address.is_loopback or address.is_multicast or address.is_unspecified or address.is_link_local:
        raise ValueError("the address must be one at which other machines reach this one")
    return str(address)


def _fingerprint(text: str) -> str:
    if not _FINGERPRINT.fullmatch(text):
        raise ValueError("a fingerprint looks like SHA256:… as 'ssh-keygen -lf' shows it")
    return text


def _user(text: str) -> str:
    if not _USER.fullmatch(text):
        raise ValueError("that is no name of a user")
    return text


class NetworkPreset(StrEnum):
    """How pods of the machine meet the network: ``vm`` for virtual machines (SR-IOV), ``pm`` for physical ones."""

    VM = "vm"
    PM = "pm"


class MachineSpec(_Value):
    """How a machine is reached and known."""

    address: Annotated[str, AfterValidator(_host_address)] = Field(
        description="An IPv4 address of the machine itself; other nodes reach it there too.",
        # What was approved for a node at an address is not for another machine.
        json_schema_extra={"x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "it never changes"}]},
    )
    port: int = Field(default=22, ge=1, le=65535, description="Port of its SSH server.")
    user: Annotated[str, AfterValidator(_user)] = Field(
        default="root", description="Whom to sign in as; anybody but root needs sudo without a password."
    )
    host_key: Annotated[str, AfterValidator(_fingerprint)] | None = Field(
        default=None, description="Fingerprint of its host key, as `ssh-keygen -lf` shows it."
    )
    trust_on_first_use: bool = Field(
        default=False, description="Take the host key that the machine shows first, and pin that."
    )
    preset: NetworkPreset = Field(default=NetworkPreset.PM, description="`vm` or `pm`; becomes a label of its node.")
    check_requested: datetime | None = Field(default=None, description="When a check was asked for last.")

    @model_validator(mode="after")
    def _known(self) -> MachineSpec:
        if self.host_key is None and not self.trust_on_first_use:
            raise ValueError("name the fingerprint of its host key, or say that the first one shown is trusted")
        return self


class Claim(_Value):
    """Whose node a machine is. ``releasing``: it is being put back as it was found."""

    cluster_uid: str
    cluster: str
    node: str
    releasing: bool = False

    @property
    def owner(self) -> str:
        """Return the claim in one word, as it stands on the machine."""
        return f"{self.cluster_uid}/{self.cluster}/{self.node}"


class InstalledNode(_Value):
    """The node that a machine is, as it was seen last: what is known of it before anybody has looked again.

    ``revision`` and ``era`` say what it is made from, or is being made from as long as there is no ``instance``.
    """

    revision: str
    era: int = 0
    instance: str = ""
    started: datetime | None = None


class CheckFinding(_Value):
    """One thing that was looked at."""

    name: str
    good: bool
    detail: str
    hint: str = ""


class MachineCheck(_Value):
    """The last examination of a machine; ``problem`` says why there was none."""

    at: datetime
    requested: datetime | None = None
    passed: bool = False
    problem: str = ""
    findings: tuple[CheckFinding, ...] = ()


class MachineStatus(_Value):
    """What is seen of a machine."""

    host_key: str = Field(default="", description="The host key that was pinned on first use.")
    claim: Claim | None = Field(default=None, description="Whose node it is.")
    node: InstalledNode | None = Field(default=None, description="The node that it is, as it was seen last.")
    message: str = Field(default="", description="What the operator does with it, or what it waits for.")
    check: MachineCheck | None = Field(default=None, description="The last examination.")


class Machine(_Value):
    """A registered machine. ``revision`` is the state that a change is decided on."""

    project: str
    name: str
    uid: str
    revision: str = ""
    spec: MachineSpec
    status: MachineStatus = MachineStatus()

    @property
    def host_key(self) -> str:
        """Return the pinned fingerprint; nothing until the first use, if that is to be trusted."""
        return self.spec.host_key or self.status.host_key


def machine_from_resource(resource: dict[str, Any]) -> Machine | None:
    """Parse a custom resource; None for one that somebody wrote past the API and that is no machine."""
    metadata = resource["metadata"]
    try:
        spec = MachineSpec.model_validate(resource.get("spec") or {})
    except ValidationError:
        return None
    try:
        status = MachineStatus.model_validate(resource.get("status") or {})
    except ValidationError:
        status = MachineStatus()
    return Machine(
        project=metadata["namespace"].removeprefix("project-"),
        name=metadata["name"],
        uid=metadata["uid"],
        revision=str(metadata.get("resourceVersion", "")),
        spec=spec,
        status=status,
    )
