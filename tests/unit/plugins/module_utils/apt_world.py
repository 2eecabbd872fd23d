# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real apt and dpkg over a root of their own, so that nothing is installed on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

from ansible_collections.signalbox.runbook.plugins.module_utils import _apt
from ansible_collections.signalbox.runbook.plugins.module_utils._apt import Apt, Package

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "apps"))

from debs import build_deb, index


class World:
    """An apt with a root, a dpkg and a flat repository of its own. Maintainer scripts run outside of that root."""

    def __init__(self, path, monkeypatch):
        self.path, self.root, self.repository = path, path / "root", path / "repository"
        self.admin = self.root / "var/lib/dpkg"
        path.mkdir()
        for place in ("info", "updates", "triggers", "parts"):
            (self.admin / place).mkdir(parents=True)
        etc = ("etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/sources.list.d", "etc/apt/trusted.gpg.d")
        for place in (*etc, "var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/log/apt"):
            (self.root / place).mkdir(parents=True)
        self.repository.mkdir()
        (self.admin / "status").write_text("")
        (self.root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] copy:{self.repository} ./\n")
        configuration = f"""
            Dir "{self.root}";
            Dir::State::status "{self.admin}/status";
            Dir::Bin::methods "/usr/lib/apt/methods";
            Dir::Bin::dpkg "/usr/bin/dpkg";
            APT::Sandbox::User "root";
            Acquire::Retries "0";
        """
        (path / "apt.conf").write_text(configuration)
        (path / ".dpkg.cfg").write_text(f"root={self.root}\nforce-script-chrootless\nlog={path}/dpkg.log\n")
        monkeypatch.setenv("HOME", str(path))
        monkeypatch.setenv("APT_CONFIG", str(path / "apt.conf"))
        monkeypatch.setenv("DPKG_ROOT", str(self.root))
        monkeypatch.setenv("DPKG_ADMINDIR", str(self.admin))
        self.seconds = 60.0
        self.calls = []
        self.slept = 0
        self.meanwhile = lambda: None

    def package(self, version, name="demo", more_files=(), **more):
        files = {"/opt/demo/VERSION": f"{version}\n".encode(), "/etc/demo.conf": f"of {version}\n".encode()}
        files = {path.replace("demo", name): content for path, content in files.items()}
        files.update(more_files)
        path = build_deb(self.repository, name, version, files, [f"/etc/{name}.conf"], **more)
        (self.repository / "Packages").write_text(index(self.repository))
        return path

    def run(self, argv, cwd, env, timeout):
        self.calls.append(" ".join(argv))
        return _apt.run_bounded(argv, cwd, env, 60)

    def sleep(self, seconds):
        self.slept += 1
        self.seconds -= 10
        self.meanwhile()

    def apt(self, **more):
        return Apt(lambda: self.seconds, self.run, sleep=self.sleep, **more)

    def start(self, path, version, conffiles="keep", name="demo"):
        """What the start of a release does; whether there was something to do."""
        self.calls.clear()
        self.apt().ensure({path: Package(name, version, conffiles)})
        return any(call.startswith("apt-get install") for call in self.calls)

    def state(self, name="demo"):
        return self.apt().states([name])[name]

    def says(self, path):
        return (self.root / path).read_text()

    def fetched(self, version, **more):
        directory = self.path / f"fetched {version} {len(self.calls)}"
        directory.mkdir()
        return self.apt(**more).fetch(Package("demo", version), directory)
