"""Kinds of probes that many items share: a program's flags, a file's mode and owner, a kubelet's settings. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from haneul.compliance.model import Item, Probe, Result, Verdict
from haneul.compliance.snapshot import FileSeen, Flags, Kubelet, Snapshot
from haneul.kernel.kube_manifests import STRONG_CIPHERS

#: How many names a sentence lists before it only counts.
_MOST_NAMES: Final = 6
_RANK: Final = {Result.NOT_APPLICABLE: 0, Result.PASS: 1, Result.WARN: 2, Result.FAIL: 3}


def passed(seen: str) -> Verdict:
    """Return that all is well."""
    return Verdict(Result.PASS, seen)


def failed(seen: str) -> Verdict:
    """Return that it is not as it should be."""
    return Verdict(Result.FAIL, seen)


def warned(seen: str) -> Verdict:
    """Return that a person must look at what is named."""
    return Verdict(Result.WARN, seen)


def absent(seen: str) -> Verdict:
    """Return that there is nothing here that the item is about."""
    return Verdict(Result.NOT_APPLICABLE, seen)


def judged(good: bool, seen: str) -> Verdict:
    """Return pass or fail."""
    return passed(seen) if good else failed(seen)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the worst verdict, the first of equals."""
    return max(verdicts, key=lambda verdict: _RANK[verdict.result])


def named(names: Iterable[str]) -> str:
    """Return names as a part of a sentence, sorted; of many only the first."""
    found = sorted(set(names))
    more = f" and {len(found) - _MOST_NAMES} more" if len(found) > _MOST_NAMES else ""
    return ", ".join(found[:_MOST_NAMES]) + more


def item(
    number: str, title: str, probe: Probe | str, mend: str, *, tenant: Probe | str = "", management: Probe | str = ""
) -> Item:
    """Return an item that is checked by ``probe``; ``tenant`` and ``management`` are checked otherwise if given."""
    return Item(number, title, mend, {"tenant": tenant or probe, "management": management or probe})


def on_flags(program: str, how: str, judge: Callable[[Flags], Verdict]) -> Probe:
    """Judge the flags of every instance of a program; the worst counts."""
    return Probe(how, lambda snapshot: worst(judge(flags) for flags in snapshot.flags_of(program)))


def flag(program: str, name: str, good: Callable[[str | None], bool]) -> Probe:
    """Judge one flag; ``good`` gets None where it is not set."""
    return on_flags(
        program, f"the flag --{name} of {program}", lambda flags: judged(good(flags.get(name)), shown(flags, name))
    )


def flags_set(program: str, *names: str) -> Probe:
    """Ask that flags are set."""
    return on_flags(
        program,
        f"the flag{'s' if len(names) > 1 else ''} {' and '.join(f'--{name}' for name in names)} of {program}",
        lambda flags: judged(all(flags.get(name) for name in names), "; ".join(shown(flags, name) for name in names)),
    )


def flag_is(program: str, name: str, value: str) -> Probe:
    """Ask that a flag has a value."""
    return flag(program, name, lambda found: found == value)


def flag_lists(program: str, name: str, entry: str) -> Probe:
    """Ask that a flag's list has an entry."""
    return flag(program, name, lambda found: entry in entries(found))


def flag_lacks(program: str, name: str, entry: str) -> Probe:
    """Ask that a flag's list lacks an entry; it may be unset."""
    return flag(program, name, lambda found: entry not in entries(found))


def entries(value: str | None) -> list[str]:
    """Return a list that is written with commas."""
    return [entry for entry in (value or "").split(",") if entry]


def shown(flags: Flags, name: str) -> str:
    """Return a flag as it is set."""
    return f"--{name}={flags[name]}" if name in flags else f"--{name} is not set"


def strong_ciphers(program: str) -> Probe:
    """Ask that TLS before 1.3 is off, or that only strong suites of it are on."""

    def judge(flags: Flags) -> Verdict:
        return ciphers_judged(flags.get("tls-min-version", ""), entries(flags.get("tls-cipher-suites")))

    return on_flags(program, f"the flags --tls-cipher-suites and --tls-min-version of {program}", judge)


def ciphers_judged(oldest: str, suites: Sequence[str]) -> Verdict:
    """Judge suites; TLS 1.3 has strong ones only, and Go lets nobody choose among them."""
    if oldest == "VersionTLS13":
        return passed("nothing before TLS 1.3")
    weak = [suite for suite in suites if suite not in STRONG_CIPHERS]
    if weak:
        return failed(f"weak suites: {named(weak)}")
    return judged(bool(suites), f"{len(suites)} suites, all strong" if suites else "the suites are left to the program")


def file_modes(what: str, most: int) -> Probe:
    """Ask that no file has a permission beyond ``most``."""
    return _on_files(
        what,
        f"permissions of {what}: {most:o} at most",
        lambda seen: not seen.mode & ~most,
        lambda seen: f"{seen.mode:o}",
    )


def file_owners(what: str, owner: str = "root", group: str = "root") -> Probe:
    """Ask that files belong to somebody."""
    return _on_files(
        what,
        f"owner of {what}: {owner}:{group}",
        lambda seen: (seen.owner, seen.group) == (owner, group),
        lambda seen: f"{seen.owner}:{seen.group}",
    )


def _on_files(what: str, how: str, good: Callable[[FileSeen], bool], said: Callable[[FileSeen], str]) -> Probe:
    def judge(snapshot: Snapshot) -> Verdict:
        found = snapshot.files_of(what)
        bad = [f"{seen.path} ({said(seen)})" for seen in found if not good(seen)]
        if not found:
            return absent(f"there are no {what}")
        return failed(named(bad)) if bad else passed(f"{found[0].path} ({said(found[0])}), {len(found)} in all")

    return Probe(how, judge)


def kubelet(field: str, good: Callable[[Any], bool]) -> Probe:
    """Judge a field of every kubelet's configuration, such as ``authentication.anonymous.enabled``."""

    def judge(snapshot: Snapshot) -> Verdict:
        found = [(one, field_of(one, field)) for one in snapshot.all_kubelets()]
        bad = [f"{one.node} ({_text(value)})" for one, value in found if not good(value)]
        if bad:
            return failed(f"{field} of {named(bad)}")
        return passed(f"{field} is {_text(found[0][1])} on {len(found)} node{'s' if len(found) > 1 else ''}")

    return Probe(f"{field} in the configuration in effect of every kubelet", judge)


def field_of(one: Kubelet, path: str) -> Any:
    """Return a field of a kubelet's configuration; None if it is not there."""
    found: Any = one.configuration
    for step in path.split("."):
        found = found.get(step) if isinstance(found, dict) else None
    return found


def _text(value: Any) -> str:
    return "not set" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
