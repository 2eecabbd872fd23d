# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What apt and dpkg of Debian 12 say, and the real ones over a root of their own: this machine is not changed."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils import _apt
from ansible_collections.signalbox.runbook.plugins.module_utils._apt import Apt, Installed, Package
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from apt_world import build_deb

# -- what the tools say -----------------------------------------------------------------------------------------

MADISON = """\
      curl | 7.88.1-10+deb12u15 | http://debian.test/debian bookworm/main amd64 Packages
      curl | 7.88.1-10+deb12u5 | http://debian.test/debian-security bookworm-security/main amd64 Packages
      curl | 7.88.1-10+deb12u5 | http://debian.test/debian bookworm/main amd64 Packages
      curl | 7.88.1-10+deb12u16 | http://debian.test/debian bookworm/main Sources
"""
SHOW = """\
Package: hello
Version: 2.10-3
Installed-Size: 277
Architecture: amd64
Depends: libc6 (>= 2.34)
Description-en: example package based on GNU hello
 The GNU hello program produces a familiar, friendly greeting.  It
 .
 Version: 9
Filename: pool/main/h/hello/hello_2.10-3_amd64.deb
Size: 53080
SHA256: 2e6e2f1a0007dc43bc91c273fd36e91e40a4f1c2765a03eca68b70a42103878a

Package: hello
Version: 2.10-2
SHA256: 00

Package: hello
Status: install ok installed
Version: 2.10-3

"""


def test_versions_that_can_be_installed():
    assert _apt.madison(MADISON) == ["7.88.1-10+deb12u15", "7.88.1-10+deb12u5"]
    assert _apt.madison("  shop-lib |  1:1.0~rc1 | file:/srv/repo ./ Packages\n") == ["1:1.0~rc1"]
    assert _apt.madison("") == []


def test_checksums_of_one_version():
    known = {"2e6e2f1a0007dc43bc91c273fd36e91e40a4f1c2765a03eca68b70a42103878a"}
    assert _apt.checksums(SHOW, "2.10-3") == known
    assert _apt.checksums(SHOW, "9") == _apt.checksums("", "9") == set()


def test_states_of_packages():
    text = "libc6\tinstall ok installed\t2.36-9+deb12u14\ndemo\thold ok installed\t1.0.0-1\n"
    text += "gone\tdeinstall ok config-files\t1.0\nnever\tunknown ok not-installed\t\n"
    text += "old\tinstall reinstreq half-installed\t2\n"
    found = _apt.states(text)
    assert found == {
        "libc6": Installed("install", "ok", "installed", "2.36-9+deb12u14"),
        "demo": Installed("hold", "ok", "installed", "1.0.0-1"),
        "gone": Installed("deinstall", "ok", "config-files", "1.0"),
        "never": Installed("unknown", "ok", "not-installed", ""),
        "old": Installed("install", "reinstreq", "half-installed", "2"),
    }
    assert [name for name, state in found.items() if state.held] == ["demo"]
    assert [name for name, state in found.items() if state.is_whole(state.version)] == ["libc6", "demo"]
    assert not found["demo"].is_whole("1.0.0-2")


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (Installed("hold", "ok", "installed", "1-1"), ""),
        (Installed("install", "ok", "triggers-pending", "1-1"), ""),
        (Installed("hold", "ok", "installed", "2-1"), "shop 2-1 is installed, not 1-1"),
        (Installed("install", "ok", "half-configured", "2-1"), "shop 2-1 is installed, not 1-1"),
        (Installed("install", "ok", "half-configured", "1-1"), "shop 1-1 is half-configured"),
        (Installed("install", "reinstreq", "half-installed", "1-1"), "shop 1-1 is half-installed and reinstreq"),
        (Installed("deinstall", "ok", "config-files", "1-1"), "shop 1-1 is config-files"),
        (Installed(), "the package shop is not installed any more"),
    ],
)
def test_differences(state, said):
    assert _apt.difference(Package("shop", "1-1"), state) == said


def test_altered_files_are_told_without_conffiles_and_what_is_missing():
    text = "??5?????? c /etc/demo/demo.conf\n??5??????   /opt/demo/VERSION\nmissing     /usr/share/doc/demo/copyright\n"
    assert _apt.altered(text) == ["/opt/demo/VERSION"]
    assert _apt.altered("") == []


@pytest.mark.parametrize(
    ("out", "err", "said"),
    [
        (
            "Reading package lists...\n",
            "E: Version '9.9' for 'demo' was not found\n",
            "E: Version '9.9' for 'demo' was not found",
        ),
        (
            "The following packages have unmet dependencies:\n"
            " shop : Depends: lib (>= 1) but it is not going to be installed\n"
            "        Depends: nowhere but it is not installable\n",
            "E: Unable to correct problems, you have held broken packages.\n",
            "shop : Depends: lib (>= 1) but it is not going to be installed; Depends: nowhere but it is not installable"
            "; E: Unable to correct problems, you have held broken packages.",
        ),
        (
            "Setting up demo (1.2.0-1) ...\noh no\ndpkg: error processing package demo (--configure):\n"
            " installed demo package post-installation script subprocess returned error exit status 3\n"
            "Errors were encountered while processing:\n demo\n",
            "E: Sub-process /usr/bin/dpkg returned an error code (1)\n",
            "dpkg: error processing package demo (--configure):; installed demo package post-installation script "
            "subprocess returned error exit status 3; E: Sub-process /usr/bin/dpkg returned an error code (1)",
        ),
        (
            "",
            "E: Failed to fetch https://ci:hunter22@repo.test/shop.deb  404  Not Found\n",
            "E: Failed to fetch https://***@repo.test/shop.deb  404  Not Found",
        ),
        ("", "", "it gave no reason"),
    ],
)
def test_complaints(out, err, said):
    assert _apt.complaint(out, err) == said


def test_the_packages_of_a_release():
    raw = {"package": "shop", "version": "1-1", "conffiles": "replace"}
    services = {"a": {"artifact": {"apt": raw, "sha256": "00"}}, "b": {"artifact": {"git": "x"}}, "c": {}}
    assert _apt.packages({"services": services}) == {"a": Package("shop", "1-1", "replace")}
    assert _apt.packages(None) == {}
    assert Package("shop", "1-1", "replace").identity() == raw


# -- the real ones over a root of their own ----------------------------------------------------------------------


def fails(call, *arguments, **more):
    with pytest.raises(RunbookError) as caught:
        call(*arguments, **more)
    return str(caught.value)


HELD = Installed("hold", "ok", "installed", "1.0.0-1")


@pytest.mark.requirement("REL-04")
def test_first_an_upgrade_and_the_way_back_each_held(world):
    old, new = world.package("1.0.0-1"), world.package("1.1.0-1")
    assert world.start(old, "1.0.0-1") is True
    assert (world.state(), world.says("opt/demo/VERSION")) == (HELD, "1.0.0-1\n")
    assert world.start(new, "1.1.0-1") is True
    assert (world.state(), world.says("opt/demo/VERSION")) == (HELD._replace(version="1.1.0-1"), "1.1.0-1\n")
    assert world.start(old, "1.0.0-1") is True
    assert (world.state(), world.says("opt/demo/VERSION")) == (HELD, "1.0.0-1\n")
    assert world.start(old, "1.0.0-1") is False
    assert not [call for call in world.calls if call.startswith(("apt", "dpkg --configure"))]


@pytest.mark.requirement("REL-04")
@pytest.mark.parametrize(("conffiles", "left"), [("keep", "mine\n"), ("replace", "of 1.1.0-1\n")])
def test_what_becomes_of_a_conffile_that_both_changed(world, conffiles, left):
    old, new = world.package("1.0.0-1"), world.package("1.1.0-1")
    world.start(old, "1.0.0-1", conffiles)
    (world.root / "etc/demo.conf").write_text("mine\n")
    world.start(new, "1.1.0-1", conffiles)
    assert world.says("etc/demo.conf") == left
    world.start(old, "1.0.0-1", conffiles)
    assert world.says("etc/demo.conf") == ("mine\n" if conffiles == "keep" else "of 1.0.0-1\n")


def test_a_way_back_needs_no_repository(world):
    old, new = world.package("1.0.0-1"), world.package("1.1.0-1")
    kept = world.fetched("1.0.0-1")[0]
    world.start(new, "1.1.0-1")
    shutil.rmtree(world.repository)
    assert world.start(kept, "1.0.0-1") is True
    assert world.state() == HELD
    assert not old.exists()


@pytest.mark.requirement("REL-09")
def test_what_is_fetched_has_the_checksum_of_the_index(world):
    made = world.package("1.0.0-1")
    world.package("1.1.0-1")
    path, digest = world.fetched("1.0.0-1")
    assert path.read_bytes() == made.read_bytes()
    assert digest == hashlib.sha256(made.read_bytes()).hexdigest()
    assert world.calls.count("apt-get update --quiet") == 1, "it was not known before"
    world.fetched("1.1.0-1")
    assert world.calls.count("apt-get update --quiet") == 1, "it was known"
    made.write_bytes(made.read_bytes()[:-1] + b"x")
    assert "demo 1.0.0-1 could not be downloaded: E: " in fails(world.fetched, "1.0.0-1")


def test_a_version_that_is_not_there_is_refused_with_those_that_are(world):
    world.package("1.0.0-1")
    world.package("1.10.0-1")
    world.package("1.9.0-1")
    assert fails(world.fetched, "2.0.0-1", update=False) == "no repository of this host has a package demo"
    said = "no repository of this host has demo 2.0.0-1; there are 1.10.0-1, 1.9.0-1, 1.0.0-1"
    assert fails(world.fetched, "2.0.0-1") == said
    (world.root / "etc/apt/sources.list.d/broken.list").write_text("deb [trusted=yes] http://127.0.0.1:9/debian ./\n")
    assert f"{said} (apt-get update said: " in fails(world.fetched, "2.0.0-1")


def test_an_index_that_is_out_of_date_is_read_anew(world):
    world.package("1.0.0-1").unlink()
    world.apt()._call("apt-get", "update")
    (world.repository / "Packages").write_text("")
    world.package("1.1.0-1")
    assert fails(world.fetched, "1.0.0-1") == "no repository of this host has demo 1.0.0-1; there are 1.1.0-1"


def test_what_cannot_be_installed_is_said_before_anything_is(world):
    shop = world.package("1.0.0-1", "shop", Depends="demo (>= 1), nowhere", Conflicts="other")
    world.package("1.0.0-1")
    world.apt()._call("apt-get", "update")
    said = fails(world.apt().prepare, [shop])
    assert "the packages of this release can't be installed here: " in said
    assert "Depends: nowhere but it is not installable" in said
    other = world.package("1.0.0-1", "other")
    world.start(other, "1.0.0-1", name="other")
    shop = world.package("1.0.0-1", "shop", Conflicts="other")
    world.apt()._call("apt-get", "update")
    assert "Conflicts: other" in fails(world.apt().prepare, [shop])
    assert world.state("other") == HELD and world.state("demo") == world.state("shop") == Installed()


def test_dependencies_are_downloaded_first_and_installed_with_it(world):
    shop = world.package("1.0.0-1", "shop", Depends="demo")
    demo = world.package("1.0.0-1")
    world.apt()._call("apt-get", "update")
    world.apt().prepare([shop])
    assert world.state("shop") == world.state("demo") == Installed()
    assert world.start(shop, "1.0.0-1", name="shop") is True
    assert world.state("shop") == HELD
    assert world.state("demo") == HELD._replace(want="install"), "only what was asked for is held"
    world.calls.clear()
    world.apt().prepare([shop, demo])
    assert len(world.calls) == 1, "everything is there"


def test_another_build_under_the_same_version_and_altered_files_are_installed_again(world):
    path = world.package("1.0.0-1")
    world.start(path, "1.0.0-1")
    (world.root / "opt/demo/VERSION").write_text("altered")
    assert world.start(path, "1.0.0-1") is True
    assert world.says("opt/demo/VERSION") == "1.0.0-1\n"
    again = build_deb(world.path, "demo", "1.0.0-1", {"/opt/demo/VERSION": b"rebuilt\n"})
    assert world.start(again, "1.0.0-1") is True
    assert world.says("opt/demo/VERSION") == "rebuilt\n"
    assert world.start(again, "1.0.0-1") is False


def test_a_package_that_does_not_configure_is_refused_and_the_old_one_comes_back(world):
    old, bad = world.package("1.0.0-1"), world.package("1.1.0-1", scripts={"postinst": "exit 3"})
    world.start(old, "1.0.0-1")
    said = fails(world.start, bad, "1.1.0-1")
    assert "demo 1.1.0-1 could not be installed: " in said and "returned error exit status 3" in said
    assert world.state().status == "half-configured"
    assert world.start(old, "1.0.0-1") is True
    assert world.state() == HELD


@pytest.mark.requirement("REL-04")
@pytest.mark.parametrize("script", ["preinst", "postinst"])
def test_killed_in_the_middle_of_dpkg_the_next_start_converges(world, script):
    """In the preinst nothing is unpacked yet, in the postinst all is: apt, dpkg and the script are killed at once."""
    old, lib = world.package("1.0.0-1"), world.package("1.0.0-1", "lib")
    bad = world.package("1.1.0-1", scripts={script: f"test -e {world.path}/again || kill -9 $PPID"}, Depends="lib")
    world.start(old, "1.0.0-1")
    world.apt()._call("apt-get", "update")
    fails(world.start, bad, "1.1.0-1")
    assert not world.state().is_whole("1.1.0-1")
    (world.path / "again").touch()
    assert world.start(bad, "1.1.0-1") is True
    assert world.state() == HELD._replace(version="1.1.0-1")
    assert world.state("lib").is_whole("1.0.0-1") and lib.exists()
    assert world.start(old, "1.0.0-1") is True
    assert world.state() == HELD


def test_what_is_half_done_under_the_same_version_is_finished_or_made_anew(world):
    path = world.package("1.0.0-1", scripts={"postinst": f"test -e {world.path}/again"})
    said = fails(world.start, path, "1.0.0-1")
    assert "returned error exit status 1" in said and world.state().status == "half-configured"
    (world.path / "again").touch()
    assert world.start(path, "1.0.0-1") is True
    assert world.state() == HELD
    status = (world.admin / "status").read_text()
    (world.admin / "status").write_text(status.replace("hold ok installed", "install reinstreq half-installed"))
    (world.root / "opt/demo/VERSION").unlink()
    assert world.start(path, "1.0.0-1") is True
    assert (world.state(), world.says("opt/demo/VERSION")) == (HELD, "1.0.0-1\n")
    again = build_deb(world.path, "demo", "1.0.0-1", {"/opt/demo/VERSION": b"rebuilt\n"})
    (world.admin / "status").write_text(status.replace("hold ok installed", "install ok half-configured"))
    assert world.start(again, "1.0.0-1") is True
    assert (world.state(), world.says("opt/demo/VERSION")) == (HELD, "rebuilt\n")


def test_dpkg_that_was_interrupted_is_finished_first(world):
    old, new = world.package("1.0.0-1"), world.package("1.1.0-1")
    world.start(old, "1.0.0-1")
    (world.admin / "updates/0001").write_text("")
    assert world.start(new, "1.1.0-1") is True
    assert "dpkg --force-confdef --force-confold --configure --pending" in world.calls
    assert list((world.admin / "updates").iterdir()) == []
    assert world.state() == HELD._replace(version="1.1.0-1")


def test_a_package_that_waits_for_its_dependency_does_not_block_others(world):
    shop = world.package("1.0.0-1", "shop", Depends="lib")
    world.package("1.0.0-1", "lib")
    path = world.package("1.0.0-1")
    world.apt()._call("apt-get", "update")
    subprocess.run(["dpkg", "--unpack", str(shop)], check=True, capture_output=True)
    assert world.start(path, "1.0.0-1") is True
    assert world.state() == HELD


@pytest.mark.parametrize("lock", ["var/lib/dpkg/lock-frontend", "var/lib/dpkg/lock", "var/cache/apt/archives/lock"])
def test_another_program_is_waited_for_and_named(world, lock):
    path = world.package("1.0.0-1")
    (world.root / lock).touch()
    holder = [
        sys.executable,
        "-c",
        "import fcntl, sys\nfile = open(sys.argv[1], 'r+')\nfcntl.lockf(file, fcntl.LOCK_EX)\n"
        "print(flush=True)\nsys.stdin.read()",
        str(world.root / lock),
    ]
    with subprocess.Popen(holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        said = fails(world.start, path, "1.0.0-1")
        assert "another program changes the packages of this host and did not end in time" in said
        assert world.slept == 6 and world.state() == Installed()
        world.seconds = 60.0
        world.meanwhile = process.communicate
        assert world.start(path, "1.0.0-1") is True
    assert world.slept == 7


def test_what_a_script_leaves_running_neither_delays_nor_keeps_the_lock(world, tmp_path):
    pid = tmp_path / "pid"
    path = world.package("1.0.0-1", scripts={"postinst": f"sleep 300 & echo $! > {pid}"})
    with open(tmp_path / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        Apt(lambda: 60.0, _apt.keeping_open([lock.fileno()])).ensure({path: Package("demo", "1.0.0-1")})
    try:
        assert world.state() == HELD
        with open(tmp_path / "lock") as again:
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)


def test_an_apt_that_outlives_its_parent_keeps_the_lock(world, tmp_path):
    go, ready = tmp_path / "go", tmp_path / "ready"
    wait = f"touch {ready}; while ! test -e {go}; do sleep 0.1; done"
    path = world.package("1.0.0-1", scripts={"postinst": wait})
    child = os.fork()
    if not child:
        with open(tmp_path / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            Apt(lambda: 60.0, _apt.keeping_open([lock.fileno()])).ensure({path: Package("demo", "1.0.0-1")})
        os._exit(1)  # it was to be killed before
    until(ready.exists)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

    def free():
        with open(tmp_path / "lock") as again, contextlib.suppress(BlockingIOError):
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    assert not free() and _apt.is_busy(world.admin)
    go.touch()
    until(free)
    assert world.start(path, "1.0.0-1") is False
    assert world.state() == HELD


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.05)


def test_whether_dpkg_is_at_work(tmp_path):
    assert _apt.is_busy(tmp_path) is False
    (tmp_path / "lock").touch()
    assert _apt.is_busy(tmp_path) is False
    ready, done = os.pipe(), os.pipe()
    child = os.fork()  # locks of the same process do not keep it out
    if not child:
        with open(tmp_path / "lock", "r+b") as stream:
            fcntl.lockf(stream, fcntl.LOCK_EX)
            os.write(ready[1], b"x")
            os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    assert _apt.is_busy(tmp_path) is True
    os.write(done[1], b"x")
    os.waitpid(child, 0)


def test_without_root_or_apt_nothing_is_begun(monkeypatch):
    apt = Apt(lambda: 60.0)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert fails(apt.refuse_host) == "only root can install a package: set ansible_become or connect as root"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "there is no apt-get on this host" in fails(apt.refuse_host)
