"""The image hub as `haneul up` runs it: a process without rights that lets clusters' pods in, whoever is dead."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import secrets
import signal
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from filelock import FileLock

from haneul.app.token_keys import json_web_keys
from haneul.cli.hub import HubClient, HubContext
from haneul.dkos.credentials import public_token_keys
from haneul.dkos.image_hub import ImageHub as ImageHubOfNodes
from haneul.dkos.image_hub import hub_files
from haneul.dkos.keyring import Keyring, new_authorities
from haneul.host.supervisord import Supervisord
from haneul.kernel.clock import SystemClock, VirtualClock
from haneul.kernel.errors import ForbiddenError, HaneulError, HostNotReadyError
from haneul.kernel.pki import issue_authority
from haneul.kernel.waiting import wait_for
from haneul.management.image_hub import REPORTER, USER, ImageHub, is_wanted, want
from haneul.management.settings import ManagementSettings
from tests.functional.d2hub.clients import containerd, run
from tests.functional.d2hub.hub import Image, image, sha256
from tests.functional.d2hub.issuer import Issuer
from tests.ports import port

CLOCK = SystemClock()
PROVIDER = Path(__file__).parents[3] / "components/images/node/files/usr/local/lib/haneul/image-credentials/haneul-hub"
DEADLINE = 120.0
CLUSTERS = "https://kubernetes.default.svc"
#: Nobody is there: pods are let in without the platform.
PLATFORM = "https://127.0.0.1:1"
MANAGEMENT = "https://kubernetes.default.svc.haneul.internal"
POD = "system:serviceaccount:default:default"


class Running:
    """A hub under a supervisord of its own; ``shop`` signs as a cluster of that project, ``management`` as its own."""

    def __init__(self, folder: Path, made: datetime) -> None:
        # Who else listens at a port does so at another one of the sixteen million addresses of loopback.
        address = ".".join(["127", *(str(1 + secrets.randbelow(254)) for _ in range(3))])
        self.settings = ManagementSettings(
            address=address,
            host_name="host-a",
            state=folder / "state",
            runtime=folder / "run",
            logs=folder / "logs",
            zone="k8s.example",
            hub_port=port(),
        )
        self.services = Supervisord(
            state=self.settings.state, runtime=self.settings.runtime, logs=self.settings.logs, clock=CLOCK, patience=5
        )
        self.hub = ImageHub(self.settings, services=self.services, clock=VirtualClock(made))
        self.authority = issue_authority("test platform", now=made)
        now = int(time.time())
        self.shop, self.management = Issuer(CLUSTERS, now=now), Issuer(MANAGEMENT, now=now)
        self.build = Issuer("https://ci.test", now=now)
        self.url = f"https://{address}:{self.settings.hub_port}"

    async def start(self) -> None:
        self.settings.state.mkdir(mode=0o700, exist_ok=True)
        self.hub.prepare(self.authority, self.management.jwks()["keys"])
        await ImageHub(self.settings, services=self.services, clock=CLOCK).start(platform=PLATFORM)

    def tell(self, project: str, keys: list[dict[str, Any]]) -> None:
        """Write what the worker that follows clusters writes."""
        document = {
            "project": project,
            "cluster": "web",
            "issuer": CLUSTERS,
            "audience": self.settings.hub_name,
            "keys": keys,
        }
        (self.hub.files.clusters / f"{project}.json").write_text(json.dumps(document))

    def push(self, made: Image, repository: str) -> None:
        """Push an image as a build does that somebody trusts."""
        build = self.build
        folder = self.hub.files.folder
        (folder / "ci.jwks").write_text(json.dumps(build.jwks()))
        rule = {"claims": {"sub": "build"}, "repositories": [repository], "actions": ["pull", "push"]}
        issuer = {"issuer": build.url, "audience": "hub", "jwksFile": "ci.jwks", "rules": [rule]}
        (folder / "workloads.yaml").write_text(json.dumps({"issuers": {"ci": issuer}}))
        with self.client(build.token(sub="build", aud="hub")) as client:
            for blob in (made.config, *made.layers):
                file = self.settings.state / "blob"
                file.write_bytes(blob)
                client.push_blob(repository, sha256(blob), file)
            client.push_manifest(repository, "v1", made.manifest, made.media_type)

    def http(self) -> httpx2.Client:
        trust = ssl.create_default_context(cadata=self.authority.certificate.decode())
        return httpx2.Client(base_url=self.url, verify=trust, timeout=30, trust_env=False)

    def pulled(self, token: str, repository: str) -> int:
        """Ask for a manifest that is not there as a node does; 404 if the token lets anybody so far, 0 if not in."""
        with self.http() as http:
            scope = f"repository:{repository}:pull"
            given = http.get("/token", params={"service": "d2hub", "scope": scope}, auth=("oidc", token))
            if given.status_code != 200:
                return 0
            header = {"Authorization": f"Bearer {given.json()['token']}"}
            return http.get(f"/v2/{repository}/manifests/v1", headers=header).status_code

    async def pid(self) -> int:
        states = {state.name: state for state in await self.services.states()}
        return states["hub"].pid or 0

    async def until_answers(self) -> None:
        async def answers() -> bool:
            with contextlib.suppress(httpx2.TransportError), self.http() as http:
                return http.get("/readyz").status_code == 200
            return False

        await wait_for(answers, what="the hub to answer", timeout=DEADLINE, clock=CLOCK)

    def reporter(self) -> HubClient:
        return self.client(self.management.token(sub=REPORTER, aud=[self.settings.hub_name]))

    def client(self, token: str) -> HubClient:
        authority = self.settings.state / "ca.crt"
        authority.write_bytes(self.authority.certificate)
        return HubClient(HubContext(self.url, "oidc", authority), token)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: the path of a socket in it has at most 107 characters (unix(7))."""
    if os.geteuid() != 0:
        pytest.skip("only root can let a program have another user and other mounts")
    with tempfile.TemporaryDirectory(prefix="hub-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@contextlib.asynccontextmanager
async def running(folder: Path, made: datetime | None = None) -> AsyncIterator[Running]:
    """Run a hub whose certificate was made at a moment, by default now."""
    found = Running(folder, made or CLOCK.now())
    try:
        await found.start()
        yield found
    finally:
        await found.services.shut_down()


async def test_pods_pull_from_their_project_whoever_was_killed(folder: Path) -> None:
    async with running(folder) as found:
        await found.until_answers()
        token = found.shop.token(sub=POD, aud=[found.settings.hub_name])
        assert found.pulled(token, "shop/web") == 0
        found.tell("shop", found.shop.jwks()["keys"])
        assert found.pulled(token, "shop/web") == 404
        assert found.pulled(token, "other/web") == 403
        # For whom it is, who it is and who signed it all count.
        assert found.pulled(found.shop.token(sub=POD, aud=["somebody"]), "shop/web") == 0
        assert found.pulled(found.shop.token(sub="alice", aud=[found.settings.hub_name]), "shop/web") == 0
        stranger = Issuer(CLUSTERS, now=found.shop.now)
        assert found.pulled(stranger.token(sub=POD, aud=[found.settings.hub_name]), "shop/web") == 0

        with found.reporter() as reporter:
            said = reporter.put("inventory/shop/web", {"images": []}, scope="repository:shop:push")
            assert said["entries"] == 0
            with pytest.raises(ForbiddenError):
                reporter.put("inventory/other/web", {"images": []}, scope="repository:other:push")
            with pytest.raises(HaneulError):
                reporter.post("collections", {"dryRun": True}, scope="registry:maintenance:*")

        before = await found.pid()
        os.kill(before, signal.SIGKILL)

        async def another() -> bool:
            return await found.pid() not in (0, before)

        await wait_for(another, what="the hub to be started again", timeout=DEADLINE, clock=CLOCK)
        await found.until_answers()
        assert found.pulled(token, "shop/web") == 404

        # A deleted cluster's pods are nobody's any more.
        (found.hub.files.clusters / "shop.json").unlink()
        assert found.pulled(token, "shop/web") == 0


async def test_a_node_pulls_by_what_it_is_told_and_by_its_pod_s_token(folder: Path, tmp_path: Path) -> None:
    made = image(b"layer")
    async with running(folder) as found:
        await found.until_answers()
        found.push(made, "shop/web")
        found.tell("shop", found.shop.jwks()["keys"])
        settings = found.settings
        authority = found.authority.certificate.decode()
        told = hub_files(ImageHubOfNodes(settings.hub_name, settings.address, settings.hub_port, authority), {})
        (tmp_path / "hub-ca.crt").write_text(told["hub-ca.crt"])
        hosts = tmp_path / "certs.d"
        for name in (settings.hub_name, f"{settings.hub_name}:{settings.hub_port}"):
            (hosts / name).mkdir(parents=True)
            text = told["hub-hosts.toml"].replace("/etc/haneul/node/", f"{tmp_path}/")
            (hosts / name / "hosts.toml").write_text(text)
        token = found.shop.token(sub=POD, aud=[settings.hub_name])
        request = json.dumps({"image": "any", "serviceAccountToken": token}, separators=(",", ":"))
        given = json.loads(run(str(PROVIDER), settings.hub_name, stdin=request))["auth"][settings.hub_name]

        def pull() -> None:
            with containerd(tmp_path) as ctr:
                options = ("--hosts-dir", str(hosts), "--user", f"{given['username']}:{given['password']}")
                for name in (settings.hub_name, f"{settings.hub_name}:{settings.hub_port}"):
                    run(*ctr.command, "content", "fetch", *options, f"{name}/shop/web:v1")
                listed = run(*ctr.command, "content", "list", "--quiet").split()
                assert {made.digest, sha256(b"layer")} <= set(listed)

        await asyncio.to_thread(pull)


async def test_it_keeps_nothing_of_root_s_and_sees_its_own_folder_alone(folder: Path) -> None:
    async with running(folder) as found:
        await found.until_answers()
        process = Path(f"/proc/{await found.pid()}")
        status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
        assert status["Uid"].split() == status["Gid"].split() == [str(USER)] * 4
        assert status["Groups"].strip() == ""
        assert (status["CapEff"], status["CapPrm"]) == ("0" * 16, "0" * 16)
        assert status["NoNewPrivs"] == "1"
        seen = process / "root" / found.settings.state.relative_to("/")
        assert {entry.name for entry in seen.iterdir()} == {"hub"}
        assert {entry.name for entry in found.settings.state.iterdir()} > {"hub"}
        assert oct(found.hub.files.folder.stat().st_mode & 0o777) == "0o700"
        assert oct(found.hub.files.key.stat().st_mode & 0o777) == "0o600"


async def test_its_certificate_is_renewed_and_it_starts_anew_with_it(folder: Path) -> None:
    async with running(folder, CLOCK.now() - timedelta(days=70)) as found:
        await found.until_answers()
        before, old = await found.pid(), found.hub.files.certificate.read_bytes()
        hub = ImageHub(found.settings, services=found.services, clock=CLOCK)
        (seen,) = hub.certificates()
        assert seen.due(CLOCK.now())
        await hub.renew(found.authority, platform=PLATFORM)
        assert hub.files.certificate.read_bytes() != old
        await found.until_answers()
        again = await found.pid()
        assert again != before
        # One that is good starts nothing.
        await hub.renew(found.authority, platform=PLATFORM)
        assert await found.pid() == again

        # Away for as long as content is moved, it is let be.
        hub.files.certificate.unlink()
        await found.services.stop("hub")
        with FileLock(hub.files.lock):
            await hub.renew(found.authority, platform=PLATFORM)
            assert [state.running for state in await found.services.states()] == [False]
            assert not hub.files.certificate.exists()
        await hub.renew(found.authority, platform=PLATFORM)
        await found.until_answers()

        found.tell("shop", found.shop.jwks()["keys"])
        await hub.end()
        assert await found.services.states() == []
        assert list(hub.files.clusters.iterdir()) == []
        assert hub.files.certificate.exists()


def prepared(folder: Path) -> Running:
    """Return a hub whose folder is made, and that nobody started."""
    found = Running(folder, CLOCK.now())
    found.settings.state.mkdir(mode=0o700)
    found.hub.prepare(found.authority, [])
    return found


async def test_where_no_hub_ever_was_none_is_ended(folder: Path) -> None:
    await Running(folder, CLOCK.now()).hub.end()


async def test_files_elsewhere_that_the_hub_links_to_stay(folder: Path) -> None:
    found = prepared(folder)
    elsewhere = found.settings.state / "ingress"
    elsewhere.mkdir()
    (elsewhere / "owners.json").touch()
    clusters = found.hub.files.clusters
    clusters.rmdir()
    clusters.symlink_to(elsewhere)
    with pytest.raises(HostNotReadyError, match="clusters"):
        await found.hub.end()
    with pytest.raises(HostNotReadyError, match="clusters"):
        found.hub.prepare(found.authority, [])
    assert (elsewhere / "owners.json").exists()
    assert elsewhere.stat().st_uid == os.geteuid()
    clusters.unlink()
    await found.hub.end()


@pytest.mark.parametrize("name", ["serving.key", "serving.crt", "platform-ca.crt", "reporter.json"])
def test_pipes_and_links_of_the_hub_hold_nothing_up(folder: Path, name: str) -> None:
    found = prepared(folder)
    path = found.hub.files.folder / name
    puts: tuple[Callable[[Path], None], ...] = (os.mkfifo, lambda path: path.symlink_to("/dev/zero"))
    for put in puts:
        path.unlink()
        put(path)
        (seen,) = found.hub.certificates()
        assert seen.due(CLOCK.now()) is name.startswith("serving")
        found.hub.prepare(found.authority, [])
        assert path.is_file() and not path.is_symlink() and path.stat().st_uid == USER
        (seen,) = found.hub.certificates()
        assert not seen.due(CLOCK.now())
    path.unlink()
    path.mkdir()
    with pytest.raises(HostNotReadyError, match=name):
        found.hub.prepare(found.authority, [])


async def test_a_pipe_in_place_of_what_tells_of_the_bucket_holds_nothing_up(folder: Path) -> None:
    found = prepared(folder)
    store = found.hub.files.store
    os.mkfifo(store)
    # Content is where it shall be.
    await found.hub.move_content(into_bucket=False, bucket="bucket: images\n", told=print)
    assert store.read_text() == "bucket: images\n"
    assert oct(store.stat().st_mode & 0o777) == "0o600"


def test_the_hub_stays_off_until_somebody_turns_it_on(tmp_path: Path) -> None:
    assert is_wanted(tmp_path)
    want(tmp_path, wanted=False)
    assert not is_wanted(tmp_path)
    want(tmp_path, wanted=True)
    assert is_wanted(tmp_path)


def test_tokens_keys_are_called_as_kubernetes_calls_them() -> None:
    first, second = (public_token_keys(Keyring(new_authorities("shop/web", CLOCK.now()))) for _ in range(2))
    (key,), (other,) = json_web_keys(first), json_web_keys(second)
    # The hash of the key's DER, whole (Kubernetes, keyIDFromPublicKey).
    der = base64.b64decode("".join(first.decode().splitlines()[1:-1]))
    assert key["kid"] == base64.urlsafe_b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")
    assert (key["kty"], key["crv"], key["use"]) == ("EC", "P-256", "sig")
    assert "d" not in key
    # While keys are replaced there are two.
    assert json_web_keys(first + second) == [key, other]
