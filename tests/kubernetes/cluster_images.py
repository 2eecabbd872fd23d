# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images of the demo application, made out of Debian's packages: no registry is asked.

Usage: cluster_images.py VERSION [--fault KEY=VALUE]... [--name runbook-kubernetes/demo]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

APPS = Path(__file__).resolve().parents[1] / "apps"
sys.path.insert(0, str(APPS))

from build import fault

BASE = "runbook-kubernetes/base:1"
DEMO = "runbook-kubernetes/demo"
PACKAGES = "python3-minimal,python3-aiohttp,python3-asyncpg,python3-redis,ca-certificates"
SOURCES = ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list")


def base() -> str:
    """Debian with Python and the packages of the demo application; made once."""
    if subprocess.run(["docker", "image", "inspect", BASE], capture_output=True, check=False).returncode == 0:
        return BASE
    sources = next(path for path in SOURCES if Path(path).exists())
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory) / "tree.tar"
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=apt", f"--include={PACKAGES}", "bookworm", str(tree), sources],
            check=True,
        )
        subprocess.run(["docker", "import", str(tree), BASE], check=True, stdout=subprocess.DEVNULL)
    return BASE


def build(version: str, faults: Mapping[str, Any] | None = None, name: str = DEMO) -> str:
    """The reference of an image of the demo application."""
    reference = f"{name}:{version}"
    with tempfile.TemporaryDirectory() as directory:
        app = Path(directory) / "app"
        app.mkdir()
        for name in ("server.py", "faults.py"):
            shutil.copy(APPS / "demo" / name, app / name)
        (app / "VERSION").write_text(f"{version}\n", encoding="utf-8")
        if faults:
            (app / "faults.json").write_text(json.dumps(dict(faults)), encoding="utf-8")
        (Path(directory) / "Dockerfile").write_text(
            f"FROM {base()}\nCOPY app /app\nWORKDIR /app\nENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1\n"
            "USER 65534\n"
            'CMD ["/bin/sh", "-c", "exec python3 server.py --host 0.0.0.0 --without-stores --port $PORT"]\n',
            encoding="utf-8",
        )
        subprocess.run(
            ["docker", "build", "--quiet", "--tag", reference, directory], check=True, stdout=subprocess.DEVNULL
        )
    return reference


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build an image of the demo application for a cluster.")
    parser.add_argument("version")
    parser.add_argument("--fault", type=fault, action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--name", default=DEMO)
    arguments = parser.parse_args()
    print(build(arguments.version, dict(arguments.fault), arguments.name))
