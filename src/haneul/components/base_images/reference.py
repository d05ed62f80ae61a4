"""The reference pages of base images, written from the table so that the two cannot drift apart. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from haneul.components.base_images.table import (
    ENTRYPOINT,
    USER,
    USER_ID,
    BaseImage,
    lineage,
    repository,
)
from haneul.components.debian import DEBIAN


def base_image_page(row: BaseImage) -> str:
    """Return the page of one image, as Markdown."""
    parts = [
        f"# {repository(row)}\n\n{row.description} Tag `{row.version}`; about {row.megabytes:.0f} MB to pull"
        f"{_shared(row)}.\n",
        f"```Dockerfile\n{row.example}```\n",
        f"## What is inside\n\n{_inside(row)}",
        f"## The house's settings\n\n{_settings(row)}",
        f"## Good to know\n\n{_list(_advice(row))}",
    ]
    return "\n".join(parts)


def _shared(row: BaseImage) -> str:
    if not row.base:
        return ""
    below = lineage(row)[-2]
    return f", of which {below.megabytes:.0f} are shared with [{repository(below)}]({below.name}.md)"


def _inside(row: BaseImage) -> str:
    lines = []
    if row.base:
        lines.append(f"everything of [{repository(lineage(row)[-2])}]({row.base}.md)")
    lines.append(f"Debian {DEBIAN}'s {_names(row.packages)}, and what these need")
    if row.without:
        lines.append(f"done without, though something names it: {_names(row.without)}")
    lines += [
        "dpkg's own record of the packages (`/var/lib/dpkg/status`), which scanners read, and each one's licence "
        "(`/usr/share/doc/*/copyright`); no other documentation, no translations, no caches",
    ]
    return _list(lines)


def _settings(row: BaseImage) -> str:
    settings = [setting for image in lineage(row) for setting in image.environment]
    user = f"`{USER}`, {USER_ID}:{USER_ID}"
    table = [
        ("user", user, "not root; by number, so that `runAsNonRoot` can tell"),
        ("working folder", "`/app`", "root's: what runs cannot change its own program"),
        ("entry point", f"`{' '.join(ENTRYPOINT)}`", "passes signals on and buries orphans, which process 1 has to"),
        ("command", f"`{' '.join(row.command)}`", "replace it"),
    ]
    if row.port:
        table.append(("port", str(row.port), "above those that only root may open"))
    if row.stop_signal != "SIGTERM":
        table.append(("stop signal", f"`{row.stop_signal}`", "ends with grace"))
    table += [(f"`{setting.name}`", f"`{setting.value}`", setting.why) for setting in settings]
    rows = ["| setting | value | why |", "| --- | --- | --- |"]
    rows += [f"| {' | '.join(cells)} |" for cells in table]
    house = [line for image in lineage(row) for line in image.house]
    return "\n".join(rows) + "\n\n" + _list(house)


def _advice(row: BaseImage) -> Iterable[str]:
    yield from row.advice
    yield (
        f"`{row.version}` moves with updates; `{row.version}-DATE-KEY` is one image for ever. DATE is that of its"
        " newest package, KEY a digest of all that went into it."
    )
    yield (
        "The bill of materials (CycloneDX) refers to the image: `oras discover` and `haneul image show` list it. Labels"
        " and annotations are those of the OCI specification."
    )
    if row.base:
        yield "`org.opencontainers.image.base.name` and `.base.digest` say which image it stands on."
    yield (
        "A company's own authority: mount a file with it and the others at `/etc/ssl/certs/ca-certificates.crt`, or"
        " name one with `SSL_CERT_FILE`."
    )
    yield "How to [build, push and update](../../howto/build-base-images.md) it."


def _names(packages: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in packages)


def _list(lines: Iterable[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)
