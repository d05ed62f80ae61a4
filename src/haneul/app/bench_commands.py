"""The commands that measure; what each needs of a platform is loaded when it is called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from haneul.app.rights import need_root
from haneul.bench.audit_cli import add_audit_command
from haneul.bench.audit_figures import AuditFigures, AuditPlan
from haneul.bench.balancer_cli import add_balancer_command
from haneul.bench.balancer_figures import BalancerFigures, BalancerPlan
from haneul.bench.cli import Outcome, bench_app
from haneul.bench.dkos import BenchPlan
from haneul.bench.dns import NamesFigures, NamesPlan
from haneul.bench.dns_cli import add_dns_command
from haneul.bench.network_cli import add_network_command
from haneul.bench.network_figures import NetworkFigures, NetworkPlan
from haneul.bench.registry_figures import RegistryFigures, RegistryPlan
from haneul.bench.sign_on_cli import add_auth_command
from haneul.bench.sign_on_figures import SignOnFigures, SignOnPlan
from haneul.chaos import outcome as chaos
from haneul.chaos.cli import add_chaos_command
from haneul.chaos.plan import Round
from haneul.kernel.clock import SystemClock


def bench_commands() -> typer.Typer:
    """Return the commands."""
    app = bench_app(_dkos, _registries, SystemClock())
    add_balancer_command(app, _balancer, SystemClock())
    add_dns_command(app, _names, SystemClock())
    add_network_command(app, _network, SystemClock())
    add_chaos_command(app, _chaos, SystemClock())
    add_auth_command(app, _sign_on, SystemClock())
    add_audit_command(app, _audit, SystemClock())
    return app


async def _dkos(plan: BenchPlan, peer: bool, outcome: Outcome) -> None:
    need_root()
    from haneul.app.bench_lab import run_dkos_bench  # noqa: PLC0415

    await run_dkos_bench(plan, peer, outcome)


async def _registries(
    plan: RegistryPlan, peer: bool, figures: RegistryFigures, machine: dict[str, str], folder: Path | None
) -> None:
    from haneul.app.registry_lab import run_registry_bench  # noqa: PLC0415

    await run_registry_bench(plan, peer, figures, machine, folder)


async def _chaos(plan: Sequence[Round], beside_others: bool, outcome: chaos.Outcome) -> None:
    need_root()
    from haneul.app.chaos_suite import run_chaos_suite  # noqa: PLC0415

    await run_chaos_suite(plan, beside_others, outcome)


async def _balancer(plan: BalancerPlan, figures: BalancerFigures, machine: dict[str, str]) -> None:
    from haneul.app.balancer_lab import run_balancer_bench  # noqa: PLC0415

    await run_balancer_bench(plan, figures, machine)


async def _sign_on(plan: SignOnPlan, figures: SignOnFigures, machine: dict[str, str]) -> None:
    from haneul.app.sign_on_lab import run_sign_on_bench  # noqa: PLC0415

    await run_sign_on_bench(plan, figures, machine)


async def _names(
    plan: NamesPlan, project: str, cluster: str, peer: bool, figures: NamesFigures, machine: dict[str, str]
) -> None:
    need_root()
    from haneul.app.dns_lab import run_names_bench  # noqa: PLC0415

    await run_names_bench(plan, project, cluster, peer, figures, machine)


async def _network(plan: NetworkPlan, figures: NetworkFigures, machine: dict[str, str]) -> None:
    need_root()
    from haneul.app.network_lab import run_network_bench  # noqa: PLC0415

    await run_network_bench(plan, figures, machine)


async def _audit(plan: AuditPlan, figures: AuditFigures, machine: dict[str, str], data: Path | None) -> None:
    from haneul.app.audit_lab import run_audit_bench  # noqa: PLC0415

    await run_audit_bench(plan, figures, machine, data)
