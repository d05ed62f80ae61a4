"""Swift's configuration for Kage: files, rings and parts, from settings. Pure.

```
FOLDER/secrets.yaml                     the S3 secret and others; for its owner only
FOLDER/etc/swift.conf                   what all parts share
FOLDER/etc/*.ring.gz, *.builder         which device has which part of the names
FOLDER/etc/proxy-server.conf            the S3 API, and who may use it
FOLDER/etc/zone1-object-server.conf …   a zone's servers and their daemons
FOLDER/etc/zone1-rsync.conf             the zone's rsync
FOLDER/zone1/disks/d1                   what the zone keeps
```

Objects are compared and sent by ssync, over the object servers' own port. Databases of accounts and containers go by
rsync where a zone has none yet. Swift's servers and rsync trust whoever reaches them: everybody on this machine, but on
the platform's host only root and the store's user, as packet rules let nobody else reach them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from haneul.kage.model import ACCOUNT, COPIES, DEVICE, REGION, RSYNC, USER, KageSettings, Part, Secrets

_KINDS: Final = ("account", "container", "object")
#: Daemons of each kind: what brings copies together, and tells containers what objects there are.
_DAEMONS: Final = {
    "account": ("replicator",),
    "container": ("replicator", "updater"),
    "object": ("replicator", "updater"),
}
_PACKAGES: Final = {"account": "account", "container": "container", "object": "obj"}
_PIPELINE: Final = (
    "catch_errors gatekeeper healthcheck proxy-logging listing_formats bulk s3api tempauth copy slo dlo"
    " versioned_writes proxy-logging proxy-server"
)


def files(settings: KageSettings, secrets: Secrets) -> Mapping[str, str]:
    """Return the text of each configuration file, by its name in :attr:`KageSettings.etc`."""
    made = {"swift.conf": _swift(secrets), "proxy-server.conf": _proxy(settings, secrets)}
    for zone in settings.every_zone:
        for kind in _KINDS:
            made[f"zone{zone}-{kind}-server.conf"] = _zone_server(settings, zone, kind)
        made[f"zone{zone}-rsync.conf"] = _rsync(settings, zone)
    return made


def rings(settings: KageSettings) -> dict[str, Any]:
    """Return the description of all rings, as ``swift_run.py`` reads it."""
    return {
        "partPower": settings.part_power,
        "replicas": COPIES,
        "minimumHours": 1,
        "rings": {
            kind: [
                {"zone": zone, "ip": settings.zone_address(zone), "port": settings.ports.of(kind), "device": DEVICE}
                for zone in settings.every_zone
            ]
            for kind in _KINDS
        },
    }


def zone_parts(settings: KageSettings, zone: int) -> tuple[Part, ...]:
    """Return a zone's servers, then its daemons."""
    servers, daemons = [], []
    for kind in _KINDS:
        configuration = settings.etc / f"zone{zone}-{kind}-server.conf"
        package = f"swift.{_PACKAGES[kind]}"
        address = settings.zone_address(zone)
        name = f"zone{zone}-{kind}"
        servers.append(
            Part(f"{name}-server", f"{package}.server", configuration, zone, address, settings.ports.of(kind))
        )
        daemons += [Part(f"{name}-{role}", f"{package}.{role}", configuration, zone) for role in _DAEMONS[kind]]
    rsync = Part(
        f"zone{zone}-rsync",
        RSYNC,
        settings.etc / f"zone{zone}-rsync.conf",
        zone,
        settings.zone_address(zone),
        settings.ports.rsync,
    )
    return (*servers, rsync, *daemons)


def proxy_part(settings: KageSettings) -> Part:
    """Return the proxy, which is what clients talk to."""
    configuration = settings.etc / "proxy-server.conf"
    return Part("proxy-server", "swift.proxy.server", configuration, 0, settings.address, settings.ports.proxy)


def _swift(secrets: Secrets) -> str:
    return _sections(
        {
            "swift-hash": {"swift_hash_path_suffix": secrets.hash_suffix},
            "storage-policy:0": {"name": "copies", "default": "yes"},
        }
    )


def _proxy(settings: KageSettings, secrets: Secrets) -> str:
    return _sections(
        {
            "DEFAULT": _common(settings, settings.address, settings.ports.proxy),
            "pipeline:main": {"pipeline": _PIPELINE},
            "app:proxy-server": {
                "use": "egg:swift#proxy",
                "account_autocreate": "true",
                # A zone that came back is asked again soon: with three zones there is nowhere else to go.
                "error_suppression_interval": "5",
                "node_timeout": "10",
                "recoverable_node_timeout": "3",
            },
            "filter:s3api": {"use": "egg:swift#s3api", "location": REGION, "max_upload_part_num": "10000"},
            "filter:slo": {"use": "egg:swift#slo", "max_manifest_segments": "10000"},
            "filter:tempauth": {
                "use": "egg:swift#tempauth",
                f"user_{ACCOUNT}_{USER}": f"{secrets.secret_key} .admin",
                # Tokens that need no memcached to be remembered in.
                "fernet_key_1": secrets.token_key,
                "active_fernet_key_id": "1",
            },
        }
        | {f"filter:{name}": {"use": f"egg:swift#{name}"} for name in sorted(_plain_filters())}
        | {"filter:proxy-logging": {"use": "egg:swift#proxy_logging"}}
    )


def _plain_filters() -> set[str]:
    told_apart = {"s3api", "slo", "tempauth", "proxy-logging", "proxy-server"}
    return set(_PIPELINE.split()) - told_apart


def _zone_server(settings: KageSettings, zone: int, kind: str) -> str:
    folder = settings.zone_folder(zone)
    pace = {"interval": f"{settings.replicate_every:g}"}
    replicator = pace | ({"sync_method": "ssync"} if kind == "object" else {})
    sections = {
        "DEFAULT": _common(settings, settings.zone_address(zone), settings.ports.of(kind))
        | {
            "devices": str(folder / "disks"),
            "mount_check": "false",
            "recon_cache_path": str(folder / "recon"),
            "rsync_module": f"rsync://{{replication_ip}}:{settings.ports.rsync}/disks",
        },
        "pipeline:main": {"pipeline": f"healthcheck {kind}-server"},
        f"app:{kind}-server": {"use": f"egg:swift#{kind}"},
        "filter:healthcheck": {"use": "egg:swift#healthcheck"},
        f"{kind}-replicator": replicator,
    }
    if "updater" in _DAEMONS[kind]:
        # Each pass begins with a new process, which costs more than what there usually is to do.
        sections[f"{kind}-updater"] = {"interval": f"{max(settings.replicate_every, 30):g}"}
    return _sections(sections)


def _rsync(settings: KageSettings, zone: int) -> str:
    folder = settings.zone_folder(zone)
    lines = {
        "address": settings.zone_address(zone),
        "port": str(settings.ports.rsync),
        "use chroot": "no",
        "log file": str(folder / "rsync.log"),
    }
    if settings.user == "root":
        # Else it would become somebody who may write nothing.
        lines |= {"uid": "root", "gid": "root"}
    disks = {"path": str(folder / "disks"), "read only": "no", "list": "no", "max connections": "4"}
    disks["lock file"] = str(folder / "rsync.lock")
    return "\n".join([*(f"{key} = {value}" for key, value in lines.items()), "", _sections({"disks": disks})])


def _common(settings: KageSettings, address: str, port: int) -> dict[str, str]:
    return {
        "bind_ip": address,
        "bind_port": str(port),
        # One process each: a zone is ended as a whole, and no worker outlives it.
        "workers": "0",
        "user": settings.user,
        "swift_dir": str(settings.etc),
        "log_level": "WARNING",
    }


def _sections(sections: Mapping[str, Mapping[str, str]]) -> str:
    return "\n".join(
        "\n".join([f"[{title}]", *(f"{key} = {value}" for key, value in lines.items()), ""])
        for title, lines in sections.items()
    )
