"""The programs inside the platform's image: API, operator, waker, and what makes the administrator's token."""

from __future__ import annotations

import asyncio
import logging
import sys
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated, TextIO

import typer

serve_app = typer.Typer(help="Run one of the platform's own programs (inside its image).", hidden=True)

_DATABASE = "sqlite+aiosqlite:////data/haneul.db"
_DEFINITIONS = Path("/opt/haneul/cilium/usr/share/cilium/crds")
_REPLAY = Path("/usr/bin/etcd-replay")
_HUB_AUTHORITY, _HUB_TOKEN = Path("/etc/haneul/hub/ca.crt"), Path("/etc/haneul/token/token")
_NAMES_KEY = Path("/etc/haneul/names/key")
_BALANCER, _KEEPER = Path("/etc/haneul/balancer/balancer.yaml"), Path("/run/balancer/keeper.sock")
_INGRESS = Path("/var/lib/haneul/ingress")
_KEY_FILE, _PROVIDER = Path("/data/issuer.key"), Path("/data/provider.yaml")


def version() -> str:
    """Return the installed version of Haneul."""
    try:
        return installed_version("haneul")
    except PackageNotFoundError:
        return "0.1.0"


def configure_logs(file: TextIO | None = None) -> None:
    """Write one JSON object a line, with time and level, to standard output or ``file``."""
    import structlog  # noqa: PLC0415

    logging.basicConfig(level=logging.WARNING)
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(file),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
    )


@serve_app.command()
def operator(
    outside_address: Annotated[str, typer.Option(help="Address at which users reach the management hosts.")],
    kubeconfig: Annotated[Path | None, typer.Option(help="Kubeconfig; by default the pod's own account.")] = None,
    issuer: Annotated[str, typer.Option(help="Issuer URL that tenants' API servers shall trust.")] = "",
    issuer_authority: Annotated[Path | None, typer.Option(help="Certificate authority of the issuer.")] = None,
    gateway: Annotated[Path | None, typer.Option(help="Network namespace of a gateway to keep rules on.")] = None,
    guarded: Annotated[list[str] | None, typer.Option(help="Network behind the gateway; may be repeated.")] = None,
    cilium_definitions: Annotated[Path, typer.Option(help="Folder with Cilium's resource definitions.")] = _DEFINITIONS,
    clusters: Annotated[str, typer.Option(help="Folder of clusters' data on the hosts.")] = "/var/lib/haneul/clusters",
    backups: Annotated[str, typer.Option(help="Folder of backups on the hosts.")] = "/var/lib/haneul/backups",
    platform_image: Annotated[str, typer.Option(help="Reference of the image that restores run.")] = "",
    zone: Annotated[str, typer.Option(help="Zone of clusters' names, if somebody publishes them.")] = "",
    dns_address: Annotated[str, typer.Option(help="Address of the DNS server that pods ask.")] = "",
    ingress: Annotated[str, typer.Option(help="Network of addresses for clusters' ingress, if it is served.")] = "",
    hub: Annotated[str, typer.Option(help="Name of the image hub that nodes pull from.")] = "",
    hub_address: Annotated[str, typer.Option(help="Address of the image hub.")] = "",
    hub_port: Annotated[int, typer.Option(help="Port of the image hub.")] = 5443,
    hub_authority: Annotated[Path | None, typer.Option(help="Certificate authority of the image hub.")] = None,
) -> None:
    """Run the DKOS operator."""
    from haneul.app.firewall_gate import GatewaySettings  # noqa: PLC0415
    from haneul.app.images import cluster_images  # noqa: PLC0415
    from haneul.app.operator import Operator, OperatorSettings  # noqa: PLC0415
    from haneul.components.table import image_reference  # noqa: PLC0415
    from haneul.dkos.authentication import IssuerTrust  # noqa: PLC0415
    from haneul.dkos.image_hub import ImageHub  # noqa: PLC0415
    from haneul.dkos.naming import Naming  # noqa: PLC0415
    from haneul.dkos.readers import BALANCER, HUB, INGRESS, NAMES  # noqa: PLC0415
    from haneul.kernel.kube_http import access_from_kubeconfig, access_in_cluster  # noqa: PLC0415

    configure_logs()
    trust = IssuerTrust(issuer, issuer_authority.read_text()) if issuer and issuer_authority else None
    access = access_from_kubeconfig(kubeconfig) if kubeconfig else access_in_cluster()
    naming = Naming(zone, dns_address) if zone and dns_address else None
    images = ImageHub(hub, hub_address, hub_port, hub_authority.read_text()) if hub and hub_authority else None
    settings = OperatorSettings(
        access=access,
        images=cluster_images(),
        pause_image=image_reference("pause"),
        outside_address=outside_address,
        cilium_definitions=cilium_definitions,
        health="http://0.0.0.0:8080/healthz",
        trust=trust,
        data=clusters,
        backups=backups,
        platform_image=platform_image or image_reference("platform"),
        gateway=None if gateway is None else GatewaySettings(gateway, tuple(guarded or ())),
        naming=naming,
        readers=(
            *((NAMES,) if naming is not None else ()),
            BALANCER,
            *((replace(INGRESS, addresses=ingress),) if ingress else ()),
            *((HUB,) if images is not None else ()),
        ),
        hub=images,
    )
    asyncio.run(Operator(settings).run())


@serve_app.command()
def waker(
    alive_port: Annotated[int, typer.Option(help="Port that is open while it works.")] = 8080,
) -> None:
    """Answer for sleeping clusters."""
    from haneul.app.alive import alive, until_readable  # noqa: PLC0415
    from haneul.dkos.adapters.kube_sleepers import KubeSleepers  # noqa: PLC0415
    from haneul.dkos.waker import Waker  # noqa: PLC0415
    from haneul.kernel.clock import SystemClock  # noqa: PLC0415
    from haneul.kernel.kube_http import HttpKubeClient, access_in_cluster  # noqa: PLC0415

    configure_logs()

    async def work() -> None:
        clock = SystemClock()
        async with HttpKubeClient(access_in_cluster(), user_agent="haneul-waker") as client:
            sleepers = KubeSleepers(client, clock=clock)
            waker = Waker(sleepers.request, clock=clock)
            await until_readable(sleepers.ready, what="the records of sleeping clusters", clock=clock)
            async with alive(alive_port):
                try:
                    await sleepers.run(waker.know, waker.forget)
                finally:
                    await waker.close()

    asyncio.run(work())


@serve_app.command()
def backup(
    alive_port: Annotated[int, typer.Option(help="Port that is open while it works.")] = 8080,
    snapshot_minutes: Annotated[float, typer.Option(help="Minutes between two snapshots of a cluster.")] = 60,
    keep_hours: Annotated[int, typer.Option(help="Hours of which every state is kept.")] = 24,
    keep_days: Annotated[int, typer.Option(help="Days of which one snapshot each is kept.")] = 7,
    keep_deleted_days: Annotated[int, typer.Option(help="Days that a deleted cluster's backup is kept.")] = 7,
) -> None:
    """Back up the etcd of every cluster."""
    from datetime import timedelta  # noqa: PLC0415

    from haneul.app.backup_programs import WorkerFolders, run_worker  # noqa: PLC0415
    from haneul.dkos.backup.archiver import Schedule  # noqa: PLC0415
    from haneul.dkos.backup.timeline import Retention  # noqa: PLC0415
    from haneul.kernel.kube_http import access_in_cluster  # noqa: PLC0415

    configure_logs()
    days = timedelta(days=keep_days)
    retention = Retention(timedelta(hours=keep_hours), days, timedelta(days=keep_deleted_days))
    schedule = Schedule(snapshot_every=timedelta(minutes=snapshot_minutes), retention=retention)
    asyncio.run(run_worker(access_in_cluster(), WorkerFolders(), replay=_REPLAY, schedule=schedule, port=alive_port))


@serve_app.command()
def names(
    server: Annotated[str, typer.Option(help="URL of the DNS server's API.")],
    zone: Annotated[list[str], typer.Option(help="Zone that the server has; may be repeated.")],
    key_file: Annotated[Path, typer.Option(help="File with the API's key.")] = _NAMES_KEY,
    alive_port: Annotated[int, typer.Option(help="Port that is open while it works.")] = 8080,
) -> None:
    """Publish the names of every cluster."""
    from haneul.app.name_worker import NameWork  # noqa: PLC0415
    from haneul.app.record_worker import run_worker  # noqa: PLC0415
    from haneul.dkos.readers import NAMES  # noqa: PLC0415
    from haneul.dns.adapters.powerdns import PowerDns, PowerDnsAccess  # noqa: PLC0415
    from haneul.dns.metrics import Metrics  # noqa: PLC0415
    from haneul.kernel.clock import SystemClock  # noqa: PLC0415
    from haneul.kernel.kube_http import access_in_cluster  # noqa: PLC0415

    configure_logs()
    metrics = Metrics(SystemClock().monotonic)
    provider = PowerDns(PowerDnsAccess(server, key_file.read_text().strip(), tuple(zone)))

    async def publish() -> None:
        try:
            work = partial(NameWork, provider, metrics)
            await run_worker(access_in_cluster(), NAMES, work, port=alive_port, metrics=metrics)
        finally:
            await provider.close()

    asyncio.run(publish())


@serve_app.command()
def ingress(
    folder: Annotated[Path, typer.Option(help="Folder with everything that is kept of ingress.")] = _INGRESS,
) -> None:
    """Serve the Ingress objects of every cluster, with nginx on this host."""
    from haneul.app.ingress_worker import run_worker  # noqa: PLC0415

    configure_logs()
    asyncio.run(run_worker(folder))


@serve_app.command()
def balancer(
    balancer: Annotated[Path, typer.Option("--balancer", help="File with the pools.")] = _BALANCER,
    socket: Annotated[Path, typer.Option(help="Where the balancer's keeper is asked.")] = _KEEPER,
    alive_port: Annotated[int, typer.Option(help="Port that is open while it works.")] = 8080,
) -> None:
    """Balance the Services of every cluster."""
    from haneul.app.balancer_worker import BalancerWork, given_out, told_use  # noqa: PLC0415
    from haneul.app.record_worker import run_worker  # noqa: PLC0415
    from haneul.balancer.adapters.kept import KeptBalancer  # noqa: PLC0415
    from haneul.balancer.settings import read_settings  # noqa: PLC0415
    from haneul.dkos.readers import BALANCER  # noqa: PLC0415
    from haneul.kernel.kube_http import access_in_cluster  # noqa: PLC0415

    configure_logs()
    settings = read_settings(balancer)
    work = partial(BalancerWork, KeptBalancer(socket), lambda project: given_out(settings.pools_of(project)))
    asyncio.run(run_worker(access_in_cluster(), BALANCER, work, port=alive_port, beside=told_use))


@serve_app.command()
def balancer_keeper(
    balancer: Annotated[Path, typer.Option("--balancer", help="File of the balancer and its pools.")],
    socket: Annotated[Path, typer.Option(help="Where to be asked.")],
    closed: Annotated[list[str], typer.Option(help="Network that no member may be in; may be repeated.")],
) -> None:
    """Keep this host's load balancer."""
    from haneul.app.platform_balancer import serve_keeper  # noqa: PLC0415

    configure_logs()
    asyncio.run(serve_keeper(balancer, socket, closed))


@serve_app.command("hub-reporter")
def hub_reporter(
    server: Annotated[str, typer.Option(help="Where the image hub is.")],
    audience: Annotated[str, typer.Option(help="Whom tokens for the hub are for.")],
    authority: Annotated[Path, typer.Option(help="Certificate authority of the hub.")] = _HUB_AUTHORITY,
    token_file: Annotated[Path, typer.Option(help="File with the token to come with.")] = _HUB_TOKEN,
    folder: Annotated[Path, typer.Option(help="Folder of the hub's clusters.")] = Path("/hub"),
    alive_port: Annotated[int, typer.Option(help="Port that is open while it works.")] = 8080,
) -> None:
    """Tell the image hub whose pods may pull, and which images they run."""
    from haneul.app.hub_reporter import HubSite, HubWork  # noqa: PLC0415
    from haneul.app.record_worker import run_worker  # noqa: PLC0415
    from haneul.dkos.readers import HUB  # noqa: PLC0415
    from haneul.kernel.kube_http import access_in_cluster  # noqa: PLC0415

    configure_logs()
    site = HubSite(folder, server, audience, authority, token_file)
    asyncio.run(run_worker(access_in_cluster(), HUB, partial(HubWork, site), port=alive_port))


@serve_app.command("hub")
def platform_hub(
    folder: Annotated[Path, typer.Option(help="Folder with everything that the hub keeps.")],
    address: Annotated[str, typer.Option(help="Address to serve at.")],
    port: Annotated[int, typer.Option(help="Port to serve at.")],
    name: Annotated[str, typer.Option(help="Name by which people and pods reach it.")],
    platform: Annotated[str, typer.Option(help="Where the platform's API is.")],
    user: Annotated[int, typer.Option(help="Number of the user and group that it is.")],
    store: Annotated[Path | None, typer.Option(help="File that tells of the bucket with the content.")] = None,
) -> None:
    """Serve the platform's images, on a host, started as root."""
    from haneul.host.seclusion import own_code, seclude  # noqa: PLC0415
    from haneul.management.image_hub import HubFiles  # noqa: PLC0415

    seclude((*own_code(), folder), user=user)

    from haneul.app.d2hub import HubSettings, serve_hub  # noqa: PLC0415
    from haneul.d2hub.adapters.object_settings import read_object_settings  # noqa: PLC0415

    files = HubFiles(folder.parent)
    configure_logs(sys.stderr)
    settings = HubSettings(
        folder,
        address,
        port,
        (name,),
        platform=platform,
        platform_authority=files.authority,
        certificate=(files.certificate, files.key),
        objects=read_object_settings(store) if store else None,
        # The store is on loopback, where none of who pulls could be sent to.
        proxy_content=store is not None,
    )
    asyncio.run(serve_hub(settings))


@serve_app.command("gate")
def platform_gate(
    folder: Annotated[Path, typer.Option(help="Folder with everything that the gate reads.")],
    user: Annotated[int, typer.Option(help="Number of the user and group that it is.")],
) -> None:
    """Let people sign on before apps of all clusters, on a host, started as root."""
    from haneul.host.seclusion import own_code, seclude  # noqa: PLC0415

    seclude((*own_code(), folder), user=user)

    from haneul.app.auth import serve_gate  # noqa: PLC0415

    configure_logs(sys.stderr)
    asyncio.run(serve_gate(folder / "gate.yaml"))


@serve_app.command("hub-content")
def hub_content(
    folder: Annotated[Path, typer.Option(help="Folder of a hub that does not run.")],
    store: Annotated[Path, typer.Option(help="File that tells of its bucket.")],
    to: Annotated[str, typer.Option(help="bucket or files.")],
) -> None:
    """Move a hub's content into its bucket, or back into files, and tell on standard error how far it is."""
    from haneul.app.d2hub_moving import ContentMove  # noqa: PLC0415
    from haneul.cli.output import say  # noqa: PLC0415
    from haneul.d2hub.adapters.object_settings import read_object_settings  # noqa: PLC0415
    from haneul.kage.model import COPIES  # noqa: PLC0415

    move = ContentMove(folder, read_object_settings(store), copies=COPIES, told=say)
    asyncio.run(move.into_bucket() if to == "bucket" else move.into_files())


@serve_app.command()
def restore(
    step: Annotated[str, typer.Argument(help="prepare, place or clear.")],
    number: Annotated[int, typer.Option(help="The restore's number.")],
    peer_url: Annotated[str, typer.Option(help="URL of the etcd member for its peers.")],
    token: Annotated[str, typer.Option(help="A word that no other etcd of the cluster had.")],
    revision: Annotated[int, typer.Option(help="The revision that is wanted.")] = 0,
    least: Annotated[int, typer.Option(help="A revision that the backup is known to reach.")] = 0,
    moment: Annotated[str, typer.Option(help="The moment before which the last state is wanted.")] = "",
    as_new: Annotated[bool, typer.Option(help="Leave out what is of the old cluster's nodes and masters.")] = False,
    message: Annotated[Path, typer.Option(help="File for what is to be told of it.")] = Path("/dev/termination-log"),
) -> None:
    """Do one step of a restore on the files of an etcd."""
    from datetime import datetime  # noqa: PLC0415

    from haneul.app.backup_programs import RestoreFolders, RestoreStep, run_restore, told  # noqa: PLC0415
    from haneul.kernel.clock import SystemClock  # noqa: PLC0415

    configure_logs()
    wanted = RestoreStep(
        number, peer_url, token, revision, least, datetime.fromisoformat(moment) if moment else None, as_new
    )
    said = asyncio.run(run_restore(step, wanted, RestoreFolders(), replay=_REPLAY, clock=SystemClock()))
    message.write_text(told(said))


@serve_app.command()
def api(
    port: Annotated[int, typer.Option(help="Port to serve on.")] = 7443,
    database: Annotated[str, typer.Option(help="SQLAlchemy URL of the database.")] = _DATABASE,
    tls: Annotated[Path, typer.Option(help="Folder with tls.crt and tls.key.")] = Path("/etc/haneul/tls"),
    reserved: Annotated[Path, typer.Option(help="File of the ranges that no cluster may touch.")] = Path(
        "/etc/haneul/settings/reserved-ranges.json"
    ),
    url: Annotated[str, typer.Option(help="Where people reach the API; without it nobody signs on in browsers.")] = "",
    key_file: Annotated[Path, typer.Option(help="File that seals the signing keys; made if need be.")] = _KEY_FILE,
    provider: Annotated[
        Path, typer.Option(help="File that describes the company's provider, if it is there.")
    ] = _PROVIDER,
    clusters_trust_issuer: Annotated[
        bool, typer.Option(help="Give people tokens for clusters, whose API servers trust this issuer.")
    ] = False,
) -> None:
    """Run the REST API."""
    import uvicorn  # noqa: PLC0415

    from haneul.app.api import create_api  # noqa: PLC0415
    from haneul.app.reserved import loaded  # noqa: PLC0415
    from haneul.app.server import DrainingServer  # noqa: PLC0415
    from haneul.app.serving_certificate import ServingCertificate  # noqa: PLC0415
    from haneul.compliance.adapters.kube_looks import KubeLooks  # noqa: PLC0415
    from haneul.dkos.adapters.kube_address_use import KubeAddressUse  # noqa: PLC0415
    from haneul.dkos.adapters.kube_authorities import KubeAuthorities  # noqa: PLC0415
    from haneul.dkos.adapters.kube_backups import KubeBackups  # noqa: PLC0415
    from haneul.dkos.adapters.kube_clusters import KubeClusters  # noqa: PLC0415
    from haneul.dkos.adapters.kube_events import KubeEvents  # noqa: PLC0415
    from haneul.dkos.adapters.kube_machines import KubeKeys, KubeMachines  # noqa: PLC0415
    from haneul.dkos.masters import EXAMINATION  # noqa: PLC0415
    from haneul.firewall.adapters.kube_approvals import KubeApprovals  # noqa: PLC0415
    from haneul.identity.issuer.assembly import IssuerSettings  # noqa: PLC0415
    from haneul.identity.issuer.relying import read_provider  # noqa: PLC0415
    from haneul.kernel.clock import SystemClock  # noqa: PLC0415
    from haneul.kernel.database import open_database  # noqa: PLC0415
    from haneul.kernel.kube_http import HttpKubeClient, access_in_cluster  # noqa: PLC0415

    configure_logs()
    clock = SystemClock()
    client = HttpKubeClient(access_in_cluster(), user_agent="haneul-api")
    clusters = KubeClusters(client, clock=clock)
    app = create_api(
        engine=open_database(database),
        store=clusters,
        quotas=clusters,
        addresses=KubeAddressUse(client),
        machines=KubeMachines(client),
        keys=KubeKeys(client),
        authorities=KubeAuthorities(client),
        events=KubeEvents(client),
        looks=KubeLooks(client, EXAMINATION),
        board=KubeApprovals(client),
        backups=KubeBackups(client),
        reserved=loaded(reserved.read_text()),
        clock=clock,
        version=version(),
        sign_on=IssuerSettings(url, key_file, read_provider(provider)) if url else None,
        clusters_trust_issuer=clusters_trust_issuer,
    )
    certificate = ServingCertificate(tls, clock=clock)
    config = uvicorn.Config(
        app,
        host="0.0.0.0",  # noqa: S104 - the pod's own namespace
        port=port,
        ssl_context_factory=lambda _config, _default: certificate.context,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=5,
        server_header=False,
    )
    server = DrainingServer(config, drain=app.state.drain, certificate=certificate)
    server.run()
    if not server.started:
        raise typer.Exit(3)


@serve_app.command("admin-token")
def admin_token(database: Annotated[str, typer.Option(help="SQLAlchemy URL of the database.")] = _DATABASE) -> None:
    """Print a fresh token of the first administrator, who is made if need be."""
    from haneul.app.api import MIGRATIONS  # noqa: PLC0415
    from haneul.identity.audit import AuditLog  # noqa: PLC0415
    from haneul.identity.secrets import SecretHasher  # noqa: PLC0415
    from haneul.identity.service import Identity  # noqa: PLC0415
    from haneul.kernel.clock import SystemClock  # noqa: PLC0415
    from haneul.kernel.database import migrate, open_database  # noqa: PLC0415

    # The token alone goes to standard output.
    configure_logs(sys.stderr)

    async def make() -> str:
        clock, engine = SystemClock(), open_database(database)
        await migrate(engine, MIGRATIONS)
        identity = Identity(engine, audit=AuditLog(engine, clock=clock), hasher=SecretHasher(clock), clock=clock)
        issued = await identity.bootstrap_admin(now=clock.now())
        await engine.dispose()
        return issued.secret

    typer.echo(asyncio.run(make()))
