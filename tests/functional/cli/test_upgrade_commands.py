"""`haneul cluster versions` and `haneul cluster upgrade` as a person types them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from haneul.cli.upgrades import UpgradeStoppedError
from haneul.dkos.model import Cluster, ClusterStatus, Condition, ConditionType, Phase
from haneul.dkos.releases import VERSIONS
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import ConflictError, InvalidInputError
from haneul.kernel.waiting import wait_for
from tests.functional.api.application import START, Api
from tests.functional.api.test_upgrades import make, see
from tests.functional.cli.test_quota_commands import Run, api, rows, run

__all__ = ["api", "run"]

NEW, OLD = VERSIONS


def _stopped(cluster: Cluster) -> bool:
    return any(condition.reason == "UpgradeStopped" for condition in cluster.status.conditions)


@contextlib.asynccontextmanager
async def operator(api: Api, stops: str = "") -> AsyncIterator[list[str]]:
    """Let whatever is asked for come about, but for one cluster, which stops; yields in which order that was."""
    order: list[str] = []

    async def work() -> None:
        while True:
            for cluster in await api.store.list():
                good = cluster.name != stops
                if cluster.status.observed_generation == cluster.generation:
                    if _stopped(cluster) is not good:
                        continue
                elif cluster.spec.version != cluster.status.version:
                    order.append(cluster.name)
                condition = Condition(
                    type=ConditionType.VERSION_CURRENT,
                    status=str(good),
                    reason="VersionCurrent" if good else "UpgradeStopped",
                    message="" if good else "node default-0 cannot be emptied: its pods may not move",
                    last_transition_time=START,
                )
                seen = ClusterStatus(
                    phase=Phase.READY if good else Phase.UPDATING,
                    version=cluster.spec.version,
                    observed_generation=cluster.generation,
                    look_answered=cluster.look_requested,
                    milestones={"ready": 1.0},
                    conditions=(condition,),
                )
                api.store._keep("modified", cluster.model_copy(update={"status": seen}))
            await asyncio.sleep(0.01)

    working = asyncio.create_task(work())
    try:
        yield order
    finally:
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working


async def test_versions_are_listed_with_their_state(run: Run) -> None:
    assert rows(await run("alice", "cluster", "versions")) == [
        ["VERSION", "STATE"],
        [NEW, "default"],
        [OLD, "deprecated"],
    ]


async def test_a_cluster_is_upgraded_and_waited_for(api: Api, run: Run) -> None:
    await make(api)
    async with operator(api):
        done = await run("alice", "cluster", "upgrade", "web", "--to", NEW, "-p", "shop")
    assert rows(done)[-1] == ["web", "Ready", NEW, NEW]


async def test_nodes_go_back_and_come_again(api: Api, run: Run) -> None:
    await make(api, version=NEW)
    async with operator(api):
        back = await run("alice", "cluster", "upgrade", "web", "--nodes", OLD, "-p", "shop")
        assert rows(back)[-1] == ["web", "Ready", NEW, OLD]
        again = await run("alice", "cluster", "upgrade", "web", "-p", "shop")
        assert rows(again)[-1] == ["web", "Ready", NEW, NEW]


async def test_an_upgrade_that_stops_ends_the_wait_with_the_reason(api: Api, run: Run) -> None:
    await make(api)
    async with operator(api, stops="web"):
        stopped = (await run("alice", "cluster", "upgrade", "web", "--to", NEW, "-p", "shop")).exception
    assert isinstance(stopped, UpgradeStoppedError)
    assert stopped.exit_code == 13 and "cannot be emptied" in stopped.detail and "goes on by itself" in stopped.hint


async def test_a_dry_run_shows_everything_and_changes_nothing(api: Api, run: Run) -> None:
    await make(api)
    await make(api, "sleeper")
    await see(api, "sleeper", OLD, Phase.ASLEEP)
    shown = await run("admin", "cluster", "upgrade", "--all", "--to", NEW, "--dry-run")
    assert [line[:2] + line[-1:] for line in rows(shown)[1:]][1] == ["web", "shop", "upgrade"]
    assert "sleeper sleeps" in shown.stdout
    one = await run("alice", "cluster", "upgrade", "web", "--to", NEW, "--dry-run", "-p", "shop")
    assert [line[0] for line in rows(one)[1:]] == ["web"]
    assert {cluster.spec.version for cluster in await api.store.list()} == {OLD}


async def test_many_are_upgraded_one_after_the_other_until_one_stops(api: Api, run: Run) -> None:
    for name in ("a-first", "b-second", "c-third"):
        await make(api, name)
    async with operator(api, stops="b-second") as order:
        ended = await run("admin", "cluster", "upgrade", "--all", "--to", NEW)
    assert isinstance(ended.exception, UpgradeStoppedError) and "2 of 3" in ended.exception.detail
    outcomes = {line.split()[0]: line for line in ended.stdout.splitlines()[1:]}
    assert " done" in outcomes["a-first"]
    assert " stopped " in outcomes["b-second"] and "cannot be emptied" in outcomes["b-second"]
    assert " not-begun " in outcomes["c-third"]
    assert order == ["a-first", "b-second"]
    # Mended, the same command goes on with the rest, also with the one that was under way.
    async with operator(api) as order:

        async def goes_on() -> bool:
            return not _stopped(await api.store.get("shop", "b-second"))

        await wait_for(goes_on, what="the mended cluster to go on", timeout=30, clock=SystemClock(), interval=0.01)
        again = await run("admin", "cluster", "upgrade", "--project", "shop", "--to", NEW)
    assert again.exit_code == 0, again.exception
    assert order == ["c-third"]
    assert {cluster.status.version for cluster in await api.store.list()} == {NEW}


async def test_many_go_on_past_one_that_stops_if_that_is_asked_for(api: Api, run: Run) -> None:
    for name in ("a-first", "b-second", "c-third"):
        await make(api, name)
    async with operator(api, stops="a-first") as order:
        ended = await run("admin", "cluster", "upgrade", "--all", "--to", NEW, "--keep-going")
    assert isinstance(ended.exception, UpgradeStoppedError) and "1 of 3" in ended.exception.detail
    assert order == ["a-first", "b-second", "c-third"]


async def test_what_makes_no_sense_is_said_and_nothing_is_asked_for(api: Api, run: Run) -> None:
    await make(api)
    for words in (
        (),
        ("--all",),
        ("--all", "--project", "shop", "--to", NEW),
        ("web", "--all", "--to", NEW),
        ("web", "--dry-run", "-p", "shop"),
        ("--project", "shop", "--nodes", OLD, "--to", NEW),
        ("--to", NEW),
    ):
        assert isinstance((await run("alice", "cluster", "upgrade", *words)).exception, InvalidInputError), words
    assert (await api.store.get("shop", "web")).generation == 1
    await see(api, "web", OLD, Phase.ASLEEP)
    refused = (await run("alice", "cluster", "upgrade", "web", "--to", NEW, "-p", "shop")).exception
    assert isinstance(refused, ConflictError)
