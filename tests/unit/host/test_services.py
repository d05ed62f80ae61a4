"""What defines a host service, and how systemd is told."""

from collections.abc import Callable

import pytest

from haneul.host.services import HostService
from haneul.host.systemd import render_unit
from haneul.kernel.errors import InvalidInputError


@pytest.mark.parametrize(
    ("argv", "environment"),
    [
        (("program", "two\nlines"), ()),
        (("program",), (("NAME", "two\nlines"),)),
        (("program",), (("NAME", 'a "quoted" word'),)),
        (("program",), (("NAME", "back\\slash"),)),
        (("program",), (("NAME", "'all'"),)),
    ],
)
def test_what_the_definitions_cannot_hold_is_refused(
    argv: tuple[str, ...], environment: tuple[tuple[str, str], ...]
) -> None:
    with pytest.raises(InvalidInputError):
        HostService("odd", argv, environment)


def test_units_look_as_reviewed(golden: Callable[[str, str], None]) -> None:
    runtime = HostService(
        "containerd", ("/opt/bin/containerd", "--config", "/a folder/100%.toml"), (("PATH", "/opt/bin:/bin"),), True
    )
    golden("haneul-containerd.service", render_unit(runtime))
    golden("haneul-dns.service", render_unit(HostService("dns", ("/opt/bin/dns", "$HOME"), (("SHARE", "50%"),))))
