"""Kernel settings are raised, never lowered, and put back as they were."""

from pathlib import Path

import pytest

from haneul.management.kernel_settings import AT_LEAST, raise_kernel_settings, restore_kernel_settings


@pytest.fixture
def root(tmp_path: Path) -> Path:
    values = {
        "fs/inotify/max_user_instances": "128",
        "net/ipv4/ip_forward": "0",
        "kernel/pid_max": "9999999",
        "vm/overcommit_memory": "0",
        "net/ipv4/conf/eth0/rp_filter": "2",
        "net/ipv4/ip_local_reserved_ports": "",
    }
    for name, value in values.items():
        path = tmp_path / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return tmp_path / "sys"


def value(root: Path, name: str) -> str:
    return (root / name).read_text().strip()


def test_too_low_is_raised_and_enough_is_left(root: Path, tmp_path: Path) -> None:
    raise_kernel_settings(tmp_path / "memory.json", root)
    assert value(root, "fs/inotify/max_user_instances") == str(AT_LEAST["fs/inotify/max_user_instances"])
    assert value(root, "net/ipv4/ip_forward") == "1"
    assert value(root, "kernel/pid_max") == "9999999"


def test_all_is_put_back_also_what_others_changed(root: Path, tmp_path: Path) -> None:
    memory = tmp_path / "memory.json"
    raise_kernel_settings(memory, root)
    (root / "vm/overcommit_memory").write_text("1")
    (root / "net/ipv4/conf/eth0/rp_filter").write_text("0")
    restore_kernel_settings(memory, root)
    assert value(root, "fs/inotify/max_user_instances") == "128"
    assert value(root, "net/ipv4/ip_forward") == "0"
    assert value(root, "vm/overcommit_memory") == "0"
    assert value(root, "net/ipv4/conf/eth0/rp_filter") == "2"
    assert not memory.exists()


def test_raising_again_does_not_forget_what_was_first(root: Path, tmp_path: Path) -> None:
    memory = tmp_path / "memory.json"
    raise_kernel_settings(memory, root)
    (root / "vm/overcommit_memory").write_text("1")
    raise_kernel_settings(memory, root)
    restore_kernel_settings(memory, root)
    assert value(root, "net/ipv4/ip_forward") == "0"
    assert value(root, "vm/overcommit_memory") == "0"


def test_an_interface_that_is_gone_is_no_error(root: Path, tmp_path: Path) -> None:
    memory = tmp_path / "memory.json"
    raise_kernel_settings(memory, root)
    (root / "net/ipv4/conf/eth0/rp_filter").unlink()
    restore_kernel_settings(memory, root)
    assert not (root / "net/ipv4/conf/eth0/rp_filter").exists()


def test_without_a_memory_nothing_is_put_back(root: Path, tmp_path: Path) -> None:
    restore_kernel_settings(tmp_path / "memory.json", root)
    assert value(root, "net/ipv4/ip_forward") == "0"
