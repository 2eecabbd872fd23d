# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._supervisor import Supervisor

CONFIGURATION = """\
[unix_http_server]
file={directory}/s.sock
[supervisord]
logfile={directory}/supervisord.log
pidfile={directory}/supervisord.pid
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[include]
files={directory}/conf.d/*.conf
"""


class Supervisord:
    """A real supervisord below one directory."""

    def __init__(self, directory):
        self.directory = directory
        self.socket = directory / "s.sock"
        self.conf_dir = directory / "conf.d"
        self.conf_dir.mkdir()
        self.client = Supervisor(str(self.socket))
        self.process = None
        (directory / "supervisord.conf").write_text(CONFIGURATION.format(directory=directory))

    def start(self):
        configuration = str(self.directory / "supervisord.conf")
        with open(self.directory / "out", "ab") as out:
            command = [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", configuration]
            self.process = subprocess.Popen(command, stdout=out, stderr=out)
        deadline = time.monotonic() + 30
        while True:
            try:
                self.client.version()
                return
            except RunbookError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def supervisord(tmp_path):
    pytest.importorskip("supervisor")
    directory = tmp_path / "d"
    directory.mkdir()
    daemon = Supervisord(directory)
    daemon.start()
    yield daemon
    daemon.stop()


@pytest.fixture
def world(tmp_path, monkeypatch):
    if shutil.which("apt-get") is None or os.geteuid():
        pytest.skip("no apt, or not root")
    from apt_world import World  # this file is read by every Python of test-compat

    return World(tmp_path / "w", monkeypatch)
