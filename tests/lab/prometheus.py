# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real Prometheus for tests: the one that is installed, or Debian's package unpacked in a cache directory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Optional

CACHE = Path(__file__).resolve().parents[2] / "build" / "prometheus"
START_SECONDS = 30.0
UNPACK_SECONDS = 120.0


class MissingError(RuntimeError):
    """Why there is none here."""


def binary() -> Path:
    """The program. MissingError says in one sentence why there is none."""
    for found in (shutil.which("prometheus"), CACHE / "root" / "usr" / "bin" / "prometheus"):
        if found and Path(found).is_file():
            return Path(found)
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise MissingError("Prometheus is not installed, and without apt its package can't be had")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        try:
            run(["apt-get", "download", "prometheus"], scratch)
            (package,) = Path(scratch).glob("prometheus_*.deb")
            run(["dpkg", "-x", str(package), f"{scratch}/root"], scratch)
        except (subprocess.SubprocessError, ValueError) as error:
            raise MissingError(f"Debian's package of Prometheus can't be had: {error}") from None
        if not (CACHE / "root").exists():
            os.replace(f"{scratch}/root", CACHE / "root")
    return CACHE / "root" / "usr" / "bin" / "prometheus"


def run(command: Sequence[str], directory: str) -> None:
    subprocess.run(
        command, cwd=directory, check=True, timeout=UNPACK_SECONDS, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


class Prometheus:
    """``with Prometheus(directory, port, {"demo": ["127.0.0.1:80"]}) as server`` scrapes every ``scrape_seconds``."""

    def __init__(
        self,
        directory: Path,
        port: int,
        jobs: Mapping[str, Sequence[str]],
        scrape_seconds: float = 0.5,
        rules: Optional[Mapping[str, Any]] = None,
        users: Optional[Mapping[str, str]] = None,
    ) -> None:
        """``users`` have the bcrypt hash of their passwords; without any, who asks is answered."""
        self.directory = directory
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        milliseconds = f"{scrape_seconds * 1000:.0f}ms"
        directory.mkdir(parents=True, exist_ok=True)
        config: dict[str, Any] = {
            "global": {
                "scrape_interval": milliseconds,
                "scrape_timeout": milliseconds,
                "evaluation_interval": milliseconds,
            },
            "scrape_configs": [
                {"job_name": name, "static_configs": [{"targets": list(targets)}]} for name, targets in jobs.items()
            ],
        }
        if rules:
            config["rule_files"] = ["rules.yml"]
            (directory / "rules.yml").write_text(json.dumps(rules), encoding="utf-8")
        self.options: list[str] = []
        if users:
            self.options = ["--web.config.file=web.yml"]
            (directory / "web.yml").write_text(json.dumps({"basic_auth_users": dict(users)}), encoding="utf-8")
        (directory / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML too
        self.process: Optional[subprocess.Popen[bytes]] = None

    def start(self) -> None:
        """Up, and ready to answer."""
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(binary()),
                    "--config.file=prometheus.yml",
                    "--storage.tsdb.path=data",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                    *self.options,
                ],
                cwd=self.directory,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2):
                    return
            except urllib.error.HTTPError as error:
                if error.code == 401:
                    return
                time.sleep(0.1)
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        self.stop()
        raise RuntimeError(f"Prometheus is not ready: {(self.directory / 'log').read_text()[-500:]}")

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def __enter__(self) -> Prometheus:
        self.start()
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.stop()

    def value(self, query: str) -> Optional[float]:
        """What a query gives, asked past the collection; None where it gives nothing."""
        with urllib.request.urlopen(f"{self.url}/api/v1/query?query={urllib.parse.quote(query)}", timeout=5) as answer:
            found = json.load(answer)["data"]["result"]
        return float(found[0]["value"][1]) if found else None
