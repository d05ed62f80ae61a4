"""The one table of base images: packages, settings and what people should know. The reference pages are made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: Who runs in an image, by default and by number, so that Kubernetes' runAsNonRoot can see it.
USER: Final = "nonroot"
USER_ID: Final = 65532
HOME: Final = f"/home/{USER}"


@dataclass(frozen=True)
class Setting:
    """A variable of an image's environment, and the reason for its value."""

    name: str
    value: str
    why: str


@dataclass(frozen=True)
class BaseImage:
    """A base image.

    ``version`` is the tag that moves with updates, and how the version of the package ``main`` begins. ``packages``
    are asked for by name; what they depend on comes along, but for ``without``. An image that has a ``base`` begins
    with that one's layers. ``leave_out`` are patterns of paths, ``links`` paths and targets of symbolic links.
    Files below ``components/base-images/<name>/files`` are copied into it. ``megabytes`` is what a first pull
    transfers, measured; ``house`` says what else is set here and why, ``advice`` how it is used. With ``java_trust``
    Java gets the authorities in its own form; what is below ``python_library`` is compiled.
    """

    name: str
    version: str
    main: str
    title: str
    description: str
    packages: tuple[str, ...]
    command: tuple[str, ...]
    megabytes: float
    example: str
    without: tuple[str, ...] = ()
    environment: tuple[Setting, ...] = ()
    leave_out: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    port: int = 0
    stop_signal: str = "SIGTERM"
    base: str = ""
    java_trust: bool = False
    python_library: str = ""
    house: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()


#: What every image is started by: it passes signals on and buries orphans, which process 1 has to.
ENTRYPOINT: Final = ("/usr/bin/tini", "--")

# Packages that serve installing, configuring and removing other packages, or alternatives between them.
_INSTALLING: Final = (
    "debconf",
    "debianutils",
    "dpkg",
    "init-system-helpers",
    "libdebconfclient0",
    "lsb-base",
    "mawk",
    "openssl",
    "perl-base",
)

#: Paths that no image has. Licences stay: who passes an image on owes them.
LEAVE_OUT: Final = (
    "boot",
    "etc/apt/*",
    "etc/ca-certificates*",
    "etc/cron.*",
    "etc/default/*",
    "etc/init.d*",
    "etc/logrotate.d*",
    "etc/ufw*",
    "etc/update-motd.d*",
    "usr/games",
    "usr/include",
    "usr/lib/binfmt.d*",
    "usr/lib/systemd*",
    "usr/sbin/update-ca-certificates",
    "usr/sbin/update-passwd",
    "usr/share/applications*",
    "usr/share/apport*",
    "usr/share/bash-completion*",
    "usr/share/binfmts*",
    "usr/share/bug*",
    "usr/share/doc-base*",
    "usr/share/gdb*",
    "usr/share/info*",
    "usr/share/lintian*",
    "usr/share/locale*",
    "usr/share/man*",
    "usr/share/menu*",
    "usr/share/pixmaps*",
    "usr/share/systemtap*",
    "usr/share/vim*",
    # Time with leap seconds, which no clock here shows.
    "usr/share/zoneinfo/right*",
    "var/cache/*",
)

BASE_IMAGES: Final[tuple[BaseImage, ...]] = (
    BaseImage(
        "debian",
        "12",
        "base-files",
        "Debian",
        "A small Debian without a package manager: a shell, the C library, authorities, time zones.",
        (
            "base-files",
            "base-passwd",
            "ca-certificates",
            "coreutils",
            "dash",
            "findutils",
            "grep",
            "libc-bin",
            "libgcc-s1",
            "libstdc++6",
            "netbase",
            "sed",
            "tini",
            "tzdata",
        ),
        ("/bin/sh",),
        megabytes=11,
        example="""FROM hub.example.com/base/debian:12
COPY --chmod=755 server /app/server
CMD ["/app/server"]
""",
        without=_INSTALLING,
        leave_out=("usr/bin/localedef", "usr/bin/tini-static", "usr/sbin/iconvconfig", "usr/sbin/zic"),
        environment=(
            Setting("PATH", "/usr/local/bin:/usr/bin:/bin", "nothing that only root needs"),
            Setting("LANG", "C.UTF-8", "one locale everywhere: UTF-8, and an order and formats that never change"),
            Setting("TZ", "Etc/UTC", "one time zone in all logs; all others are in the database"),
            Setting("HOME", HOME, "the one folder, besides `/tmp` and `/var/tmp`, that the user may write to"),
        ),
        house=(
            "There is no `apt`, `dpkg`, `perl` or `openssl`: nothing can be installed into a running container.",
            "No program has a set-user or set-group bit.",
            "There are no services, timers or cron jobs of packages, and no script of a package ever ran.",
        ),
        advice=(
            "For programs that bring everything along, as those of Go, Rust and C++ do.",
            "What has to be compiled or installed is so in an earlier stage of a build, and copied.",
        ),
    ),
    BaseImage(
        "python",
        "3.11",
        "python3",
        "Python",
        "Python and its standard library on base/debian.",
        ("media-types", "python3"),
        ("python3",),
        megabytes=26,
        example="""FROM hub.example.com/mirror/library/python:3.11-slim-bookworm AS build
COPY requirements.txt .
RUN pip install --no-cache-dir --require-hashes --target /site -r requirements.txt

FROM hub.example.com/base/python:3.11
COPY --from=build /site /app
COPY shop /app/shop
CMD ["python3", "-m", "shop"]
""",
        leave_out=(
            "usr/bin/py3clean",
            "usr/bin/py3compile",
            "usr/bin/py3versions",
            "usr/bin/pydoc*",
            "usr/bin/pygettext*",
            "usr/lib/python3.11/lib2to3/tests*",
            "usr/lib/python3.11/pydoc_data*",
            "usr/lib/python3.11/test*",
            "usr/share/python3/*",
        ),
        environment=(
            Setting("PYTHONUNBUFFERED", "1", "a line of the log is there when it is written, also before a crash"),
            Setting("PYTHONDONTWRITEBYTECODE", "1", "a container's files do not change while it runs"),
            Setting("PYTHONPATH", "/app", "packages installed with `pip --target` are found without an environment"),
        ),
        base="debian",
        python_library="usr/lib/python3.11",
        house=(
            "There is no `pip` and no compiler.",
            "The standard library is whole but for Tk and its tests.",
            "The standard library is compiled: a user who cannot write would compile it at every start.",
        ),
        advice=(
            "Python 3.11 of Debian gets security updates from Debian for as long as Debian 12 does.",
            "Packages with compiled parts fit when they are built for Debian 12, or come as `manylinux` wheels.",
        ),
    ),
    BaseImage(
        "node",
        "18",
        "nodejs",
        "Node.js",
        "Node.js on base/debian.",
        ("nodejs",),
        ("node",),
        megabytes=44,
        example="""FROM hub.example.com/mirror/library/node:18-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --omit=dev

FROM hub.example.com/base/node:18
COPY --from=build /app /app
COPY src /app/src
CMD ["node", "src/server.js"]
""",
        environment=(
            Setting("NODE_ENV", "production", "frameworks cache, and show no traces to whoever asks"),
            Setting(
                "NODE_EXTRA_CA_CERTS",
                "/etc/ssl/certs/ca-certificates.crt",
                "it trusts whom all other programs trust, also when another file is mounted there",
            ),
        ),
        base="debian",
        house=("There is no `npm`, and no compiler.",),
        advice=("Node.js 18 of Debian gets security updates from Debian for as long as Debian 12 does.",),
    ),
    BaseImage(
        "java",
        "17",
        "openjdk-17-jre-headless",
        "Java",
        "A Java runtime (OpenJDK, no desktop) on base/debian.",
        ("openjdk-17-jre-headless",),
        ("java",),
        megabytes=77,
        example="""FROM hub.example.com/mirror/library/maven:3-eclipse-temurin-17 AS build
COPY . /src
RUN mvn --file /src/pom.xml --batch-mode package

FROM hub.example.com/base/java:17
COPY --from=build /src/target/shop.jar /app/shop.jar
CMD ["java", "-jar", "/app/shop.jar"]
""",
        # No printers, sound and smart cards in a container; java-common and util-linux serve installing.
        without=("java-common", "libasound2", "libcups2", "libpcsclite1", "util-linux"),
        leave_out=(
            "usr/lib/jvm/*/lib/ct.sym",
            "usr/lib/jvm/*/lib/server/classes_nocoops.jsa",
            "usr/lib/jvm/*/man*",
            "usr/share/ca-certificates-java*",
        ),
        environment=(
            Setting("JAVA_HOME", "/usr/lib/jvm/java-17", "the same path for every update and machine"),
            Setting(
                "JDK_JAVA_OPTIONS",
                "-XX:MaxRAMPercentage=75 -XX:+ExitOnOutOfMemoryError",
                "the heap follows the container's memory limit, of which Java by itself takes a quarter; who is out of "
                "memory ends and is started again. Java says at each start that it read this",
            ),
        ),
        links=(
            ("usr/bin/java", "../lib/jvm/java-17/bin/java"),
            ("usr/bin/keytool", "../lib/jvm/java-17/bin/keytool"),
            ("usr/lib/jvm/java-17", "java-17-openjdk-amd64"),
        ),
        base="debian",
        java_trust=True,
        house=(
            "Java trusts the same authorities as all other programs, from `/etc/ssl/certs/java/cacerts`.",
            "Class data sharing is on: the archive of the standard library's classes is there.",
            "There are fonts, for documents and charts, but no printing, no sound and no smart cards.",
        ),
        advice=(
            "An archive of the application's own classes (`-XX:ArchiveClassesAtExit`) makes starts faster still.",
            "A heap of more than 32 GiB starts more slowly: the second archive of classes, which it would use, is not "
            "there.",
        ),
    ),
    BaseImage(
        "nginx",
        "1.22",
        "nginx",
        "nginx",
        "A web server for static files and as a proxy, on base/debian.",
        ("nginx",),
        ("nginx", "-g", "daemon off;"),
        megabytes=14,
        example="""FROM hub.example.com/base/nginx:1.22
COPY dist /srv/www
""",
        without=("iproute2",),
        leave_out=(
            "etc/nginx/koi-*",
            "etc/nginx/nginx.conf",
            "etc/nginx/sites-*",
            "etc/nginx/snippets*",
            "etc/nginx/win-utf",
            "usr/share/nginx/html*",
            "var/lib/nginx*",
            "var/log/nginx*",
        ),
        links=(("usr/bin/nginx", "../sbin/nginx"),),
        port=8080,
        # nginx answers what it has begun before it ends; at SIGTERM it would not.
        stop_signal="SIGQUIT",
        base="debian",
        house=(
            "It listens on 8080, which needs no right of root, and serves `/srv/www`.",
            "`/healthz` answers 200 and is not in the log.",
            "Access log to standard output, one JSON object a line; errors to standard error.",
            "Everything that it writes is below `/tmp`: the root file system may be read-only.",
            "It ends at `SIGQUIT` after the last answer (`STOPSIGNAL`).",
            "Neither answers nor error pages say its version; answers are compressed where it pays.",
        ),
        advice=(
            "Files in `/etc/nginx/conf.d/*.conf` are read into `http`, those in `/etc/nginx/site.d/*.conf` into the "
            "`server`: mount or copy locations, upstreams and headers there.",
        ),
    ),
)


def base_image(name: str) -> BaseImage:
    """Return a base image's row. Raises KeyError for an unknown one."""
    for row in BASE_IMAGES:
        if row.name == name:
            return row
    raise KeyError(name)


def lineage(row: BaseImage) -> tuple[BaseImage, ...]:
    """Return the images that ``row`` consists of, from the first to itself."""
    return (*lineage(base_image(row.base)), row) if row.base else (row,)


def repository(row: BaseImage, project: str = "base") -> str:
    """Return the name of an image's repository in a project of a hub."""
    return f"{project}/{row.name}"
