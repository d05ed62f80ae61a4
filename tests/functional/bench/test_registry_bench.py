"""``haneul bench d2hub`` in small, on real registries of ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from haneul.app.registry_lab import run_registry_bench
from haneul.bench.registry_figures import BARE, CASES, FILLED, OURS, RegistryFigures, RegistryPlan

NAMES = ("manifest by tag", "manifest HEAD", "blob 1 MiB", "first pulls, 1 MiB", "push 1 MiB, many repositories")
SMALL = tuple(replace(case, connections=2) for case in CASES if case.name in NAMES or case.group == "lists")


async def test_every_case_is_measured_and_nothing_fails_or_stays(tmp_path: Path) -> None:
    plan = RegistryPlan(seconds=0.1, rounds=1, push_mib=2, images=2, repositories=2, tags=10, cases=SMALL)
    figures, machine = RegistryFigures(), dict[str, str]()
    await run_registry_bench(plan, False, figures, machine, tmp_path)
    for case in SMALL:
        sides = {OURS, FILLED} | ({BARE} if case.repeats and case.group != "lists" else set())
        assert set(figures.rounds[case.name]) == sides
        for (measured,) in figures.rounds[case.name].values():
            assert (measured.rate > 0, measured.p99 >= measured.p50 > 0, measured.failures) == (True, True, {})
    assert figures.rounds["manifest by tag"][OURS][0].cpu > 0
    assert figures.tags == 10
    assert figures.memory[OURS] > 1
    assert machine["transport"].startswith("TLS 1.3")
    assert list(tmp_path.iterdir()) == []
