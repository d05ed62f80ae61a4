"""Runs parts of Swift on a configuration folder of their own, and makes rings. Swift's interpreter runs it.

    python swift_run.py part FOLDER MODULE CONFIGURATION   a server or daemon, its log on standard error
    python swift_run.py rings FOLDER                       rings by a description on standard input

Swift's servers can be told their folder in their configuration, its daemons cannot: they would look for
``/etc/swift/swift.conf``, of which a machine has one. All look up their user's account, which one that is a number has
not.
"""

import importlib
import json
import os
import sys
from pathlib import Path

from swift.common import utils
from swift.common.ring import RingBuilder

become_account = utils.drop_privileges


def become(user: str) -> None:
    """Become a user, unless the process was started as that number: there may be no account of it to look up."""
    if user != str(os.getuid()):
        become_account(user)


def run_part(folder: str, module: str, configuration: str) -> None:
    """Run a server or daemon until it is ended."""
    utils.set_swift_dir(folder)
    # Before the part is imported, which takes its name of it then.
    utils.drop_privileges = become
    sys.argv = [module, configuration, "--verbose"]
    importlib.import_module(module).main()


def make_rings(folder: str) -> None:
    """Write ``NAME.ring.gz`` for readers and ``NAME.builder`` for later changes, for each ring."""
    told = json.load(sys.stdin)
    for name, devices in told["rings"].items():
        builder = RingBuilder(told["partPower"], told["replicas"], told["minimumHours"])
        for device in devices:
            builder.add_dev({"region": 1, "weight": 100.0, "meta": "", **device})
        builder.rebalance()
        builder.validate()
        builder.save(str(Path(folder) / f"{name}.builder"))
        builder.get_ring().save(str(Path(folder) / f"{name}.ring.gz"))


if __name__ == "__main__":
    {"part": run_part, "rings": make_rings}[sys.argv[1]](*sys.argv[2:])
