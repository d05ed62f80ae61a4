"""How quick tests use the processors of a machine: several processes of pytest-xdist, each with whole files.

Who takes long begins first, so that no process is left alone with it in the end. There are three processes for two
processors, as such files wait for other programs much of their time.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
import structlog

TESTS = Path(__file__).parents[1]
#: The files that take longest, in that order.
LONGEST = (
    "functional/dkos/test_etcd_members.py",
    "functional/dkos/test_confinement.py",
    "functional/d2hub/test_mirror.py",
    "functional/sign_on/test_api_server.py",
    "functional/dns/test_dns_serving.py",
    "functional/dkos/test_backup_of_etcd.py",
    "functional/d2hub/test_serving.py",
    "conformance/d2hub/test_metadata.py",
    "functional/d2hub/test_object_store.py",
    "functional/api/test_firewall.py",
    "functional/sign_on/test_command_line.py",
    "functional/dkos/test_ssh_nodes.py",
    "functional/dkos/test_two_minors.py",
    "conformance/d2hub/test_blob_stores.py",
    "conformance/dkos_nodes/test_node_providers.py",
    "functional/d2hub/test_several.py",
    "functional/sign_on/test_provider.py",
    "functional/compliance/test_api_server_files.py",
    "functional/management/test_host_users.py",
    "functional/d2hub/test_records.py",
    "functional/sign_on/test_codes.py",
    "unit/dkos/test_controller.py",
    "unit/dkos/test_rolling.py",
    "unit/dkos/test_restoring.py",
    "functional/bench/test_registry_bench.py",
    "functional/api/test_edges.py",
    "conformance/host/test_service_managers.py",
    "functional/chaos/test_prober.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sort files by how long they take, where processes share them; otherwise they come as they lie."""
    if hasattr(config, "workerinput"):
        places = {TESTS / name: place for place, name in enumerate(LONGEST)}
        items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return what ``-n auto`` means."""
    processors = len(os.sched_getaffinity(0))
    return processors + processors // 2


def pytest_configure() -> None:
    """Tell exceptions in the log without all that their frames knew, which would take seconds each."""
    renderer = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], renderer])


def pytest_collection_finish() -> None:
    """Leave what was imported for all tests out of every later search for garbage."""
    gc.collect()
    gc.freeze()
