"""Run the image without a container engine: its runtime stage on a Debian root, by runc, which engines use as well.

    python deploy/run_image.py --root /var/tmp/latentmill-image --user 10001:10001 worker

What is the image's: the packages of the source as a wheel in /opt/venv, and all that the stage ``runtime`` of the
Dockerfile states (ENV, RUN, USER, WORKDIR, ENTRYPOINT, CMD, HEALTHCHECK). What is not: the base is Debian 12 by
debootstrap, and Python and the other packages are those that run this script, mounted read-only, so that no gigabytes
are copied. The root is read-only, no capability is left, the network is that of the machine. Needs root, Linux, runc
and debootstrap.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import uuid
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[1]
DOCKERFILE = SOURCE / "deploy/Dockerfile"
PYTHON_AT, PACKAGES_AT = "/opt/python", "/opt/packages"
_PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
_SITE = f"opt/venv/lib/{_PYTHON}/site-packages"
_DEBIAN = ("bookworm", "http://deb.debian.org/debian")
_INCLUDE = "ca-certificates,libssl3,libffi8,libsqlite3-0"  # of Python; its own libraries are mounted with it
_TIMES = ("ENV", "RUN", "USER", "WORKDIR", "ENTRYPOINT", "CMD", "HEALTHCHECK")


@dataclass(frozen=True)
class Stage:
    """What the runtime stage of the Dockerfile says."""

    environment: Mapping[str, str]
    commands: tuple[str, ...]
    user: str
    directory: str
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    health: tuple[str, ...]


def runtime_stage(dockerfile: str) -> Stage:
    """The stage ``runtime`` with what it has from ``base``. Raises ``ValueError`` for instructions it does not know."""
    text = re.sub(r"\\\n\s*", " ", re.sub(r"^\s*#.*\n", "", dockerfile, flags=re.MULTILINE))
    stages = re.split(r"^FROM .* AS (\w[\w-]*)\s*$", text, flags=re.MULTILINE)[1:]
    bodies = dict(zip(stages[::2], stages[1::2], strict=True))
    found: dict[str, list[str]] = {name: [] for name in _TIMES}
    for line in filter(None, map(str.strip, f"{bodies['base']}\n{bodies['runtime']}".splitlines())):
        name, _, rest = line.partition(" ")
        if name not in found:
            raise ValueError(f"expected one of {', '.join(_TIMES)} in the stage runtime, got {name}")
        found[name].append(rest)
    environment: dict[str, str] = {}
    for assignments in found["ENV"]:
        for name, value in (each.split("=", 1) for each in shlex.split(assignments)):
            environment[name] = value.replace("$PATH", "/usr/local/bin:/usr/bin:/bin")
    health = found["HEALTHCHECK"][-1].partition("CMD ")[2]
    return Stage(
        environment=environment,
        commands=tuple(found["RUN"]),
        user=found["USER"][-1],
        directory=found["WORKDIR"][-1],
        entrypoint=tuple(json.loads(found["ENTRYPOINT"][-1])),
        command=tuple(json.loads(found["CMD"][-1])),
        health=tuple(json.loads(health)),
    )


def make_root(root: Path, stage: Stage) -> None:
    """Make the root file system at ``root``, 0.3 GB, unless it is there; the packages of the source are always new."""
    if not (root / "etc/debian_version").exists():
        suite, mirror = _DEBIAN
        debootstrap = ["debootstrap", "--variant=minbase", f"--include={_INCLUDE}", suite, str(root), mirror]
        subprocess.run(debootstrap, check=True, stdout=sys.stderr)
        for command in stage.commands:
            subprocess.run(["chroot", str(root), "/bin/sh", "-e", "-c", command], check=True)
    _make_environment(root)


def _make_environment(root: Path) -> None:
    """A virtual environment as the build stages leave it, with the wheel of the source."""
    site, binaries = root / _SITE, root / "opt/venv/bin"
    shutil.rmtree(root / "opt/venv", ignore_errors=True)
    for directory in (site, binaries, root / PYTHON_AT[1:], root / PACKAGES_AT[1:], root / "run/secrets"):
        directory.mkdir(parents=True, exist_ok=True)
    (root / "opt/venv/pyvenv.cfg").write_text(f"home = {PYTHON_AT}/bin\n")
    (binaries / "python").symlink_to(f"{PYTHON_AT}/bin/{_PYTHON}")
    script = binaries / "latentmill"
    script.write_text("#!/opt/venv/bin/python\nimport sys\nfrom workers.cli import main\nsys.exit(main())\n")
    script.chmod(0o755)
    (site / "packages.pth").write_text(f"{PACKAGES_AT}\n")
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "src"
        source.mkdir()
        for name in ("pyproject.toml", "README.md", "LICENSE"):  # what the Dockerfile copies
            shutil.copy2(SOURCE / name, source)
        for name in ("generator", "workers"):
            shutil.copytree(SOURCE / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", scratch, str(source)]
        subprocess.run(pip, check=True, stdout=sys.stderr)
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)


def container(
    root: Path,
    stage: Stage,
    arguments: Iterable[str],
    *,
    user: str,
    environment: Mapping[str, str],
    volumes: Iterable[tuple[Path, str, bool]] = (),
    groups: Iterable[int] = (),
) -> dict[str, Any]:
    """The OCI configuration of one container.

    ``user``: ``uid:gid``. ``volumes``: directory of the machine, where it is mounted, whether it may be written.
    ``groups``: further groups of the process, as Kubernetes gives with ``fsGroup``. HOME is not set here: runc takes it
    from the image's passwd file, and no home can be written.
    """
    uid, _, gid = user.partition(":")
    plain = ["nosuid", "noexec", "nodev"]
    python, packages = Path(sys.base_prefix).resolve(), Path(sysconfig.get_path("purelib")).resolve()
    binds = [(python, PYTHON_AT, False), (packages, PACKAGES_AT, False), *volumes]
    variables = {**stage.environment, **environment, "LD_LIBRARY_PATH": f"{PYTHON_AT}/lib"}
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(root), "readonly": True},
        "hostname": "latentmill",
        "process": {
            "terminal": False,
            "user": {"uid": int(uid), "gid": int(gid or uid), "additionalGids": list(groups)},
            "args": [*stage.entrypoint, *(arguments or stage.command)],
            "env": [f"{name}={value}" for name, value in variables.items()],
            "cwd": stage.directory,
            "noNewPrivileges": True,
            "capabilities": {},
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": plain},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": [*plain, "mode=1777"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]},
            *(
                {
                    "destination": at,
                    "type": "bind",
                    "source": str(path),
                    "options": ["bind", "rw" if writable else "ro"],
                }
                for path, at, writable in binds
            ),
        ],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]},
    }


def start(bundle: Path, config: dict[str, Any], name: str, **options: Any) -> subprocess.Popen[Any]:
    """Start a container from the directory ``bundle``; its output and exit code are those of the process returned."""
    bundle.mkdir(parents=True, exist_ok=True)
    (bundle / "config.json").write_text(json.dumps(config))
    command = ["runc", "--root", str(bundle / "state"), "run", "--bundle", str(bundle), name]
    return subprocess.Popen(command, **options)


def missing_tools() -> list[str]:
    """What this machine lacks."""
    lacking = [name for name in ("runc", "debootstrap", "chroot") if shutil.which(name) is None]
    return lacking + (["root"] if os.geteuid() != 0 else [])


def main() -> int:
    """Run one container in the foreground; the settings of this environment go into it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, required=True, help="directory of the root file system; made if missing")
    parser.add_argument("--user", help="uid:gid (default: as the Dockerfile says)")
    parser.add_argument("--work", type=Path, help="directory for /var/lib/latentmill that the user may write")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    if lacking := missing_tools():
        sys.stderr.write(f"needs {', '.join(lacking)} (Debian: runc, debootstrap)\n")
        return 2
    stage = runtime_stage(DOCKERFILE.read_text())
    root = given.root.resolve()
    make_root(root, stage)
    settings = {name: value for name, value in os.environ.items() if name.startswith("LATENTMILL_")}
    volumes = [(given.work.resolve(), stage.directory, True)] if given.work else []
    config = container(
        root,
        stage,
        given.arguments,
        user=given.user or stage.user,
        environment=settings,
        volumes=volumes,
    )
    with tempfile.TemporaryDirectory() as bundle:
        return start(Path(bundle), config, f"latentmill-{uuid.uuid4().hex[:8]}").wait()


if __name__ == "__main__":
    sys.exit(main())
