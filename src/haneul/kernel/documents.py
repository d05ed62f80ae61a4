"""Reading and writing YAML: with the C library where PyYAML has it, which is ten times as fast.

PyYAML knows YAML 1.1, and Go's programs read more texts as numbers than that: ``2111436021779e33``, which a digest may
be, is a float to them (YAML 1.2.2, section 10.3.2). Such texts are written in quotes.
"""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NUMBER: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z|[-+]?0[ox][0-9a-fA-F]+\Z")


class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc] # which of the two, PyYAML decides
    """Writes plain values so that Go's programs read the same ones."""


Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789"))


def from_yaml(text: str | bytes) -> Any:
    """Return the document that YAML says. Raises yaml.YAMLError."""
    return yaml.load(text, Loader=_LOADER)  # noqa: S506 - either of the two makes plain values only


def to_yaml(*documents: Any, sort_keys: bool = False) -> str:
    """Return documents as YAML, one after the other; keys stay in their own order unless they are to be sorted."""
    return str(yaml.dump_all(documents, Dumper=Dumper, sort_keys=sort_keys))
