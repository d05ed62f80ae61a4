"""Ingress put together: one cluster, one nginx, and what is told of both."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
import yaml

from haneul.app.trail import Policies, TrailPlace, end_recording, recording, write_rules
from haneul.ingress.adapters.acme_authority import AcmeAuthority, Binding, Issuing
from haneul.ingress.adapters.allowed_hosts import AllowedHosts
from haneul.ingress.adapters.certificate_folder import CertificateFolder
from haneul.ingress.adapters.nginx.processes import NginxProcesses
from haneul.ingress.adapters.nginx.proxy import LUA_FOLDER, NginxProxy
from haneul.ingress.claims import CLASS_ANNOTATION, CONTROLLER
from haneul.ingress.controller import ClusterController, Pace
from haneul.ingress.issued import reasons
from haneul.ingress.issuing import Issuer
from haneul.ingress.model import ANY_HOST, Backend, Certificate, Location, Routes, Scheme
from haneul.ingress.new_orders import held_up
from haneul.ingress.observed import GATEWAY_RESOURCES, RESOURCES, Observed
from haneul.ingress.options import Options
from haneul.ingress.ports import Configuration
from haneul.ingress.rendering import Site, render_configuration
from haneul.ingress.routes import compile_routes, hosts_asked_for
from haneul.ingress.settings import IngressSettings, read_settings
from haneul.kernel.clock import SystemClock
from haneul.kernel.ending import told_to_end, work_until
from haneul.kernel.errors import InvalidInputError
from haneul.kernel.files import write_atomically
from haneul.kernel.kube import INGRESS_CLASSES, INGRESSES, KubeApiError, KubeClient, Manifest
from haneul.kernel.kube_http import HttpKubeClient, access_from_kubeconfig
from haneul.kernel.pki import LeafProfile, issue_authority, issue_leaf
from haneul.trail.settings import read_trail_settings

_log = structlog.get_logger(__name__)
_TEN_YEARS = timedelta(days=3650)


async def serve_ingress(file: Path) -> None:
    """Keep a cluster's Ingress objects served until SIGTERM or SIGINT; nginx serves on then."""
    settings = read_settings(file)
    told = told_to_end()
    clock = SystemClock()
    processes = _processes(settings, settings.folder, clock)
    processes.prepare()
    site = site_of(settings, settings.folder, own_certificate(settings.folder, clock.now()))
    trail = read_trail_settings(settings.audit) if settings.audit else None
    policies = Policies(trail.policy) if trail else None

    def render(routes: Routes) -> Configuration:
        if policies:
            policies.heed(routes)
        return render_configuration(routes, site)

    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(_client(settings))
        if trail and policies:
            place = TrailPlace.beside(settings.folder)
            recorder = recording(trail, place, policies, cluster=settings.cluster, user=_user(settings), clock=clock)
            await stack.enter_async_context(recorder)
        controller = ClusterController(
            client,
            NginxProxy(settings.folder, processes),
            AllowedHosts(settings.hosts),
            render,
            cluster=settings.cluster,
            options=_options(settings),
            addresses=settings.addresses,
            clock=clock,
            pace=Pace(),
            issuer=issuer_of(settings, clock),
        )
        _log.info("serving", cluster=settings.cluster, folder=str(settings.folder))
        await work_until(told, controller.run())
    _log.info("ended; nginx serves on", cluster=settings.cluster)


async def stop_nginx(file: Path) -> bool:
    """Let a cluster's nginx end after its requests; return False if none ran."""
    settings = read_settings(file)
    ended = await _processes(settings, settings.folder, SystemClock()).end()
    await end_recording(TrailPlace.beside(settings.folder))
    return ended


async def listed(file: Path) -> list[dict[str, Any]]:
    """Return what a cluster's Ingress objects serve now, path by path."""
    settings = read_settings(file)
    observed = await _seen(settings)
    return rows_of(await _routes(settings, observed), observed)


async def checked(file: Path, manifests: Iterable[Path]) -> list[dict[str, Any]]:
    """Return what is wrong with a cluster's Ingress objects, or with those in files, by the eyes of nginx too."""
    settings = read_settings(file)
    files = list(manifests)
    observed = read_manifests(files) if files else await _seen(settings)
    routes = await _routes(settings, observed)
    with tempfile.TemporaryDirectory(prefix="haneul-ingress-") as folder:
        await taken(settings, Path(folder), routes)
    return problems_of(routes, of_files=bool(files))


def rows_of(routes: Routes, observed: Observed) -> list[dict[str, Any]]:
    """Return what is served, path by path."""
    return [
        _row(server.host, location, observed, secure=server.tls)
        for server in routes.servers
        for location in server.locations
    ]


def problems_of(routes: Routes, *, of_files: bool) -> list[dict[str, Any]]:
    """Return what is wrong with objects; files have no Services that one could look for."""
    return [
        {
            "namespace": problem.ingress.namespace,
            "name": problem.ingress.name,
            "reason": problem.reason.value,
            "message": problem.message,
        }
        for problem in routes.problems
        if not of_files or problem.reason.value not in ("BackendMissing", "CertificateBroken")
    ]


def site_of(settings: IngressSettings, folder: Path, certificate: Certificate) -> Site:
    """Return where nginx listens, and what it has. Raises InvalidInputError if the audit trail's file is wrong."""
    rules = write_rules(read_trail_settings(settings.audit), folder) if settings.audit else None
    return Site(
        settings.http,
        settings.https,
        settings.public_https_port,
        certificate,
        folder=str(folder.absolute()),
        lua=str(LUA_FOLDER),
        modules=str(settings.modules),
        user=_user(settings),
        workers=settings.workers,
        trusted=settings.trusted_proxies,
        proxy_protocol=settings.proxy_protocol,
        gate=settings.gate.gate if settings.gate else None,
        drain=settings.drain_seconds,
        access_log=settings.access_log,
        audit_rules=str(rules) if rules else "",
    )


def own_certificate(folder: Path, now: datetime) -> Certificate:
    """Return the certificate for hosts that have none, made once in a folder; no client trusts it."""
    chain, key = folder / "private" / "own.pem", folder / "private" / "own-key.pem"
    if not chain.exists() or not key.exists():
        authority = issue_authority("haneul ingress", now=now, life=_TEN_YEARS)
        profile = LeafProfile(common_name="ingress.invalid", dns_names=("ingress.invalid",), server=True)
        pair = issue_leaf(authority, profile, now=now, life=_TEN_YEARS)
        write_atomically(key, pair.key, mode=0o600)
        write_atomically(chain, pair.certificate, mode=0o600)
    return Certificate(chain.read_bytes(), key.read_bytes())


async def taken(settings: IngressSettings, folder: Path, routes: Routes) -> None:
    """Let nginx read what would be served. Raises ConfigurationRefusedError."""
    clock = SystemClock()
    processes = _processes(settings, folder, clock)
    processes.prepare()
    site = site_of(settings, folder, own_certificate(folder, clock.now()))
    configuration: Configuration = render_configuration(routes, site)
    await NginxProxy(folder, processes).check(configuration)


async def _seen(settings: IngressSettings) -> Observed:
    async with _client(settings) as client:
        return await seen_of(client)


async def seen_of(client: KubeClient) -> Observed:
    """Return what a cluster has now that Ingress is about."""
    observed = Observed()
    for resource in RESOURCES:
        observed.replace(resource, await client.list(resource), set())
    for resource in GATEWAY_RESOURCES:
        # A cluster need not have them, and need not let them be read.
        with contextlib.suppress(KubeApiError):
            observed.replace(resource, await client.list(resource), set())
    return observed


async def _routes(settings: IngressSettings, observed: Observed) -> Routes:
    refused = await AllowedHosts(settings.hosts).refused(hosts_asked_for(observed))
    options = replace(_options(settings), refused_hosts=refused)
    now = SystemClock().now()
    return compile_routes(observed, with_certificates(options, _certificates(settings), observed, now), now)


def with_certificates(options: Options, store: CertificateFolder, observed: Observed, now: datetime) -> Options:
    """Return options with what an issuer gave, and why it gave no more."""
    issued = store.certificates()
    held = held_up(hosts_asked_for(observed), issued, store.orders(), now)
    return replace(options, by_acme=issued, unissued=reasons(store.refusals(), held))


def read_manifests(files: Iterable[Path]) -> Observed:
    """Return the objects in files as if their cluster had them, each Ingress of a class of ours."""
    observed = Observed()
    kinds = {(resource.api_version, resource.kind): resource for resource in RESOURCES}
    for file in files:
        for manifest in _documents(file):
            resource = kinds.get((manifest.get("apiVersion", ""), manifest.get("kind", "")))
            if resource is None or resource == INGRESS_CLASSES:
                continue
            metadata = manifest.setdefault("metadata", {})
            metadata.setdefault("namespace", "default")
            metadata.setdefault("name", "")
            observed.see(resource, manifest)
    for manifest in observed.all(INGRESSES):
        annotations = manifest["metadata"].get("annotations") or {}
        name = (manifest.get("spec") or {}).get("ingressClassName") or annotations.get(CLASS_ANNOTATION)
        metadata = {"name": name or "default"}
        if not name:
            metadata |= {"annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}}
        observed.see(INGRESS_CLASSES, {"metadata": metadata, "spec": {"controller": CONTROLLER}})
    return observed


def _documents(file: Path) -> Iterable[Manifest]:
    try:
        documents = list(yaml.safe_load_all(file.read_text()))
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be read: {error.strerror}", hint="name files with manifests") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInputError(
            f"{file} is no YAML: {error}", hint="'kubectl get -o yaml' writes such files"
        ) from error
    for document in documents:
        for manifest in document.get("items", [document]) if isinstance(document, dict) else []:
            if isinstance(manifest, dict):
                yield manifest


def _row(host: str, location: Location, observed: Observed, *, secure: bool) -> dict[str, Any]:
    upstream, backends = location.upstream, _backends(location)
    return {
        "host": host if host != ANY_HOST else "*",
        "path": location.path.text,
        "match": location.path.match.value,
        "tls": secure,
        "namespace": location.ingress.namespace,
        "kind": location.ingress.kind,
        "ingress": location.ingress.name,
        "backend": ", ".join(map(str, backends)),
        "endpoints": sum(len(observed.peers(backend)) for backend in backends),
        "canary": str(upstream.canary.backend) if upstream and upstream.canary else "",
        "closed": location.closed,
    }


def _backends(location: Location) -> list[Backend]:
    if location.rule:
        return [share.backend for share in location.rule.shares if share.backend]
    return [location.upstream.backend] if location.upstream else []


def _options(settings: IngressSettings) -> Options:
    return Options(
        gate=settings.gate is not None,
        hosts_across_namespaces=settings.hosts_across_namespaces,
        ports={
            Scheme.HTTP: _ports(80, settings.http),
            Scheme.HTTPS: _ports(443, settings.https) | ({settings.public_https_port} if settings.https else set()),
        },
        addresses=settings.addresses,
        issuer=settings.acme is not None,
    )


def _certificates(settings: IngressSettings) -> CertificateFolder:
    return CertificateFolder(settings.folder / "acme")


def issuer_of(settings: IngressSettings, clock: SystemClock) -> Issuer | None:
    """Return who supplies hosts with certificates, if somebody is named. Raises InvalidInputError."""
    acme = settings.acme
    if acme is None:
        return None
    store, binding = _certificates(settings), None
    if acme.external_account:
        try:
            key = acme.external_account.key_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError(
                f"{acme.external_account.key_file} cannot be read: {error}", hint="'keyFile' has the issuer's key"
            ) from error
        binding = Binding(acme.external_account.id, key)
    issuing = Issuing(acme.directory, acme.contact, store.account_key(), acme.authorities, binding)
    return Issuer(AcmeAuthority(issuing, clock), store, clock)


def _ports(usual: int, listening: Iterable[str]) -> set[int]:
    """Return the ports that listeners of Gateways may name: the usual one stands for whichever nginx has."""
    own = {int(address.rpartition(":")[2]) for address in listening}
    return own | {usual} if own else set()


def _processes(settings: IngressSettings, folder: Path, clock: SystemClock) -> NginxProcesses:
    return NginxProcesses(folder, program=str(settings.program), user=_user(settings), clock=clock)


def _user(settings: IngressSettings) -> str:
    return settings.user if os.geteuid() == 0 else ""


def _client(settings: IngressSettings) -> HttpKubeClient:
    if not settings.kubeconfig.is_file():
        raise InvalidInputError(f"{settings.kubeconfig} is no file", hint="'kubeconfig' names the cluster's")
    return HttpKubeClient(access_from_kubeconfig(settings.kubeconfig), user_agent="haneul-ingress")
