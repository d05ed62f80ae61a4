"""The reference page of the benchmark's items, written from the table."""

from __future__ import annotations

from typing import Final

from haneul.compliance.accepted import ACCEPTED
from haneul.compliance.benchmark import ITEMS, SECTIONS, section_of
from haneul.compliance.model import BENCHMARK, Item, Probe
from haneul.compliance.snapshot import Kind

_HEAD: Final = f"""# Our clusters and the CIS Kubernetes Benchmark

`haneul check cluster` and `haneul check platform` hold a tenant's cluster and the management cluster against every item
of the {BENCHMARK}. Numbers are the benchmark's; words are ours, and where a check asks for
something else than the benchmark's own commands do, it says what. [How to check a
cluster](../howto/check-a-cluster.md).

| result | meaning |
| --- | --- |
| `pass` | what was seen is as it should be |
| `fail` | it is not; with a reason if that is known and stays so ([below](#what-fails-and-why)) |
| `warn` | a program cannot tell, or could not look; the report says what a person must look at |
| `not applicable` | there is nothing here that the item is about; the report says why |

A command ends with 0 if no item fails without a reason, with 12 if one does.

What is decided on is gathered first. Of a tenant's cluster: the flags of the masters' pods as the management cluster
has them, the files that they mount and that are no secrets, the names of encryption providers, digests of authorities,
and from the cluster's own API its rights, namespaces, pods, policies and the kubelets' configuration in effect (of
fifty nodes at most). Of the management cluster: the same, and modes and owners of the files of the host on which the
command runs.
"""


def benchmark_page() -> str:
    """Return the page, as Markdown."""
    parts = [_HEAD]
    for section, (title, count) in SECTIONS.items():
        rows = [_row(item) for item in ITEMS if section_of(item.id) == section]
        head = "| item | asks | of a tenant's cluster | of the management cluster |\n| --- | --- | --- | --- |\n"
        parts.append(f"\n## {section} {title}\n\nItems: {count}.\n\n{head}" + "\n".join(rows) + "\n")
    parts.append(_failing())
    return "".join(parts)


def _row(item: Item) -> str:
    tenant, management = item.probes["tenant"], item.probes["management"]
    second = "the same" if tenant is management else _said(management)
    return f"| {item.id} | {item.title} | {_said(tenant)} | {second} |"


def _said(probe: Probe | str) -> str:
    return f"not applicable: {probe}" if isinstance(probe, str) else probe.how


def _failing() -> str:
    titles = {item.id: item.title for item in ITEMS}
    names: dict[Kind, str] = {"tenant": "a tenant's", "management": "management"}
    rows = [
        f"| {number} | {names[kind]} | {titles[number]} | {reason} |"
        for (kind, number), reason in sorted(
            ACCEPTED.items(), key=lambda entry: ([int(part) for part in entry[0][1].split(".")], entry[0][0])
        )
    ]
    head = (
        "\n## What fails, and why\n\nThese may fail, and stay so. Anything else that fails is a fault.\n\n"
        "| item | cluster | asks | why it is not so here |\n| --- | --- | --- | --- |\n"
    )
    return head + "\n".join(rows) + "\n"
