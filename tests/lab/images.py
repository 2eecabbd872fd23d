# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images of the demo application for the Docker Engine of this machine, out of Debian and PyPI packages.

Usage: images.py VERSION [--fault KEY=VALUE]... [--name demo-app]

No registry is asked: the base is made once with mmdebstrap (tests/lab/docker.sh installs it). A container listens on
$PORT (8080) and takes the environment of tests/apps/demo/server.py; its faults are in the image, or in $FAULTS.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent / "apps")]

import build as app
import local

SUITE, PYTHON = "bookworm", "3.11"
PACKAGES = ["python3", "dash"]
NEEDED = ("aiohttp", "asyncpg", "redis")  # by the demo application, in the versions of requirements-demo.txt
ALSO = ["async-timeout==5.0.1"]  # redis needs it with Debian's 3.11.2, but pip looks at the Python that it runs with
SITE = "/opt/site"
BASE_FILE = f"""\
FROM {{root}}
COPY site {SITE}
ENV PYTHONPATH={SITE} PYTHONUNBUFFERED=1
RUN ["python3", "-m", "compileall", "-q", "{SITE}", "/usr/lib/python{PYTHON}"]
"""
APP_FILE = """\
FROM {base}
COPY app /app
WORKDIR /app
CMD ["sh", "-c", "exec python3 server.py {options}--port ${{PORT:-8080}}"]
"""


def run(*command: str, **options: Any) -> str:
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
    done = subprocess.run(command, capture_output=True, check=False, timeout=600, env=environment, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.decode(errors='replace')[-2000:]}")
    return done.stdout.decode().strip()


def there(reference: str) -> bool:
    command = ["docker", "image", "inspect", reference]
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


def base() -> str:
    """The image that every release is built on; made when it is not there."""
    lines = (CHECKOUT / "requirements-demo.txt").read_text(encoding="utf-8").splitlines()
    pins = sorted([*ALSO, *(line for line in lines if line.split("==")[0] in NEEDED)])
    made_of = json.dumps([SUITE, PACKAGES, pins, BASE_FILE])
    tag = hashlib.sha256(made_of.encode()).hexdigest()[:12]
    name, root = f"runbook-demo-base:{tag}", f"runbook-demo-root:{tag}"
    if there(name):
        return name
    with tempfile.TemporaryDirectory() as scratch:
        if not there(root):
            tar = f"{scratch}/root.tar"
            chosen = f"--include={','.join(PACKAGES)}"
            run("mmdebstrap", "--quiet", "--variant=extract", chosen, SUITE, tar, mirror())
            run("docker", "import", "--change", "ENV LC_ALL=C.UTF-8", tar, root)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
        target = ["--target", f"{scratch}/site", "--only-binary=:all:", "--python-version", PYTHON]
        platforms = ["--platform", "manylinux_2_28_x86_64", "--platform", "manylinux2014_x86_64"]
        run(*pip, *target, "--implementation", "cp", *platforms, *pins)
        (Path(scratch) / "Dockerfile").write_text(BASE_FILE.format(root=root), encoding="utf-8")
        (Path(scratch) / ".dockerignore").write_text("root.tar\n", encoding="utf-8")
        run("docker", "build", "--quiet", "--tag", name, scratch)
    return name


def mirror() -> str:
    """Where the machine's own apt takes the packages of its release from."""
    found = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", f"Codename: {SUITE}")
    return found.splitlines()[0]


def build(
    version: str, faults: Mapping[str, Any] | None = None, name: str = "demo-app", tag: str = "", source: Path = app.APP
) -> str:
    """Build ``name:version`` and return its id. The version must be one that an image tag can be."""
    with tempfile.TemporaryDirectory() as scratch:
        archive, _digest = app.build(version, faults or {}, Path(scratch), source)
        context = io.BytesIO()
        with tarfile.open(archive) as packed, tarfile.open(fileobj=context, mode="w") as out:
            for member in packed:
                member.name = f"app/{member.name}"
                out.addfile(member, packed.extractfile(member))
            options = "--host 0.0.0.0 " if source == app.APP else ""
            add(out, "Dockerfile", APP_FILE.format(base=base(), options=options).encode())
        reference = f"{name}:{tag or version}"
        run("docker", "build", "--quiet", "--tag", reference, "-", input=context.getvalue())
    return run("docker", "image", "inspect", "--format", "{{.Id}}", reference)


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


class Registry:
    """Debian's docker-registry on a port of the loopback, which Docker trusts without TLS."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = next(port for port in range(28500, 28600) if local.is_free(port))
        self.address = f"127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        config = self.directory / "config.yml"
        storage = f"{{filesystem: {{rootdirectory: {self.directory}/data}}, delete: {{enabled: true}}}}"
        config.write_text(f"version: 0.1\nstorage: {storage}\nhttp: {{addr: '{self.address}'}}\n", encoding="utf-8")
        with (self.directory / "log").open("ab") as log:
            command = ["docker-registry", "serve", str(config)]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(urllib.error.URLError, OSError):
                urllib.request.urlopen(f"http://{self.address}/v2/", timeout=5).close()
                return
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"docker-registry did not start, see {self.directory}/log")
            time.sleep(0.1)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=30)
            self._process = None

    def push(self, image: str, name: str) -> str:
        """Push ``image`` as ``name`` (repository:tag) and return the reference by digest."""
        reference = f"{self.address}/{name}"
        run("docker", "tag", image, reference)
        run("docker", "push", "--quiet", reference)
        found = json.loads(run("docker", "image", "inspect", "--format", "{{json .RepoDigests}}", reference))
        return next(str(digest) for digest in found if digest.startswith(f"{self.address}/"))


@contextlib.contextmanager
def registry(directory: Path) -> Iterator[Registry]:
    made = Registry(directory)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description="Build an image of the demo application.")
    parser.add_argument("version")
    parser.add_argument("--fault", type=app.fault, action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--name", default="demo-app")
    arguments = parser.parse_args()
    print(build(arguments.version, dict(arguments.fault), arguments.name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
