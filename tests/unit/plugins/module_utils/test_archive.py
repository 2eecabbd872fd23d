# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import tempfile
from pathlib import Path
from typing import Callable, Optional

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils._archive import Extracted, extract, file_sha256
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from hypothesis import given, settings
from hypothesis import strategies as st

Entry = tuple[tarfile.TarInfo, bytes]


def a_file(name: str, content: bytes = b"content\n", mode: int = 0o644) -> Entry:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(content), mode, 1_700_000_000
    return info, content


def a_directory(name: str, mode: int = 0o755) -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, mode
    return info, b""


def a_link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def a_special(name: str, kind: bytes) -> Entry:
    info = tarfile.TarInfo(name)
    info.type = kind
    return info, b""


def write_tar(path: Path, entries: list[Entry], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return path


def tree(root: Path) -> dict[str, str]:
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[name] = path.read_text()
    return found


@pytest.fixture
def unpack(tmp_path: Path) -> Callable[..., Path]:
    def do(*entries: Entry, mode: str = "w:gz", **options: int) -> Path:
        path = write_tar(tmp_path / "a.tar", list(entries), mode)
        into = tmp_path / "into"
        extract(path, into, file_sha256(path), **options)
        return into

    return do


def refused(path: Path, tmp_path: Path, sha256: Optional[str] = None, **options: int) -> str:
    """The refusal, after making sure that nothing but the archive is there, inside or outside of ``into``."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunbookError) as caught:
        extract(path, tmp_path / "into", sha256, **options)
    assert sorted(tmp_path.rglob("*")) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_unpacks_files_directories_and_links_inside(tmp_path: Path, mode: str) -> None:
    path = write_tar(
        tmp_path / "app.tar",
        [
            a_directory("./"),
            a_directory("./bin"),
            a_file("./bin/web", b"#!/bin/sh\n", 0o755),
            a_file("./lib/deep/data.txt", b"data"),
            a_link("./current", "lib/deep"),
            a_link("./lib/up", "../bin/web"),
            a_link("./lib/dangling", "not-there"),
            a_link("./copy", "bin/web", tarfile.LNKTYPE),
        ],
        mode,
    )
    into = tmp_path / "into"
    assert extract(path, into, file_sha256(path)) == Extracted(bytes=14, files=3)
    assert tree(into) == {
        "bin/web": "#!/bin/sh\n",
        "copy": "#!/bin/sh\n",
        "current": "-> lib/deep",
        "lib/dangling": "-> not-there",
        "lib/deep/data.txt": "data",
        "lib/up": "-> ../bin/web",
    }
    assert os.access(into / "bin/web", os.X_OK)
    assert (into / "bin/web").stat().st_mtime == 1_700_000_000


def test_permissions_are_ours_not_the_archives(unpack: Callable[..., Path]) -> None:
    into = unpack(
        a_file("setuid", mode=0o6755), a_file("open", mode=0o666), a_file("shut", mode=0), a_directory("d", mode=0o1777)
    )
    modes = {name: stat.S_IMODE((into / name).stat().st_mode) for name in ("setuid", "open", "shut", "d")}
    assert modes == {"setuid": 0o755, "open": 0o644, "shut": 0o600, "d": 0o755}


def test_strip_components_applies_to_hard_links_too(unpack: Callable[..., Path]) -> None:
    into = unpack(
        a_directory("app-1.0"),
        a_file("app-1.0/run", b"x"),
        a_link("app-1.0/same", "app-1.0/run", tarfile.LNKTYPE),
        a_link("app-1.0/l", "run"),
        a_file("README", b"left out"),
        strip_components=1,
    )
    assert tree(into) == {"run": "x", "same": "x", "l": "-> run"}


def test_the_last_of_two_files_of_one_name_wins(unpack: Callable[..., Path]) -> None:
    assert tree(unpack(a_file("f", b"old"), a_file("./f", b"new"))) == {"f": "new"}


@pytest.mark.parametrize(
    "entries, named",
    [
        ([a_file("/etc/passwd")], "'/etc/passwd' with an absolute path"),
        ([a_file("../evil")], "'../evil' with '..'"),
        ([a_file("a/../../evil")], "'a/../../evil' with '..'"),
        ([a_directory("../dir")], "'../dir' with '..'"),
        ([a_link("l", "/etc")], "'l' to the absolute path '/etc'"),
        ([a_link("l", "../x")], "'l' to '../x', which leads out"),
        ([a_link("a/b/l", "../../../x")], "'a/b/l' to '../../../x', which leads out"),
        ([a_link("d/l", "."), a_link("m", "d/l/../../x")], "'m' to 'd/l/../../x', which leads out"),
        ([a_link("deep/a", "../."), a_link("b", "deep/a/..")], "'b' to 'deep/a/..', which leads out"),
        ([a_link("x", "y"), a_link("y", "x")], "in circles"),
        ([a_link("l", "d"), a_directory("d"), a_file("l/f")], "'l/f' below 'l', which is a link"),
        ([a_file("l/f"), a_link("l", "d")], "'l/f' below 'l', which is a link"),
        ([a_file("f"), a_file("f/g")], "'f/g' below 'f', which is a file"),
        ([a_link("h", "/etc/passwd", tarfile.LNKTYPE)], "'h' with an absolute path"),
        ([a_link("h", "../f", tarfile.LNKTYPE)], "'h' with '..'"),
        ([a_link("h", "nothing", tarfile.LNKTYPE)], "hard link 'h' to 'nothing'"),
        ([a_link("s", "f"), a_link("h", "s", tarfile.LNKTYPE)], "hard link 'h' to 's'"),
        ([a_special("null", tarfile.CHRTYPE)], "'null', which is a device file"),
        ([a_special("disk", tarfile.BLKTYPE)], "'disk', which is a device file"),
        ([a_special("pipe", tarfile.FIFOTYPE)], "'pipe', which is a FIFO"),
        ([a_file("new\nline")], "contains a newline"),
        ([a_link("l", "new\nline")], "contains a newline"),
        ([a_file("x"), a_link("x", "f")], "'x' twice"),
        ([a_link("x", "f"), a_link("x", "g")], "'x' twice"),
        ([a_directory("x"), a_file("x")], "'x' twice"),
        ([a_file(".")], "no name"),
    ],
)
def test_a_member_that_could_do_harm_is_refused(tmp_path: Path, entries: list[Entry], named: str) -> None:
    # Good members around it: nothing of them may remain either.
    path = write_tar(tmp_path / "evil.tar.gz", [a_file("good"), *entries, a_file("good2")])
    message = refused(path, tmp_path, file_sha256(path))
    assert named in message and "evil.tar.gz" in message


def test_limits_on_members_and_size(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [a_file("f", b"0" * 600), a_file("g", b"0" * 600)])
    assert "more than 1 members" in refused(path, tmp_path, max_members=1)
    assert "more than 1199 bytes (at the member 'g')" in refused(path, tmp_path, max_bytes=1199)
    assert "unpacks to 1200 bytes, but only 1199" in refused(path, tmp_path, free_bytes=1199)
    assert extract(path, tmp_path / "into", max_members=2, max_bytes=20_000, free_bytes=1200).bytes == 1200


def test_a_bomb_after_the_end_of_the_archive_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [a_file("f")], "w")
    path.write_bytes(gzip.compress(path.read_bytes() + b"\0" * 5_000_000))
    assert "after its end" in refused(path, tmp_path, max_bytes=4_000_000)


def test_a_bomb_is_refused_by_what_its_header_claims(tmp_path: Path) -> None:
    info = tarfile.TarInfo("zeros")
    info.size = 1024**4
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(info.tobuf()))
    assert "(at the member 'zeros')" in refused(path, tmp_path)


def test_a_giant_name_is_refused_before_it_is_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1024**4
    path = tmp_path / "name.tar"
    path.write_bytes(info.tobuf())
    assert "not a whole tar archive" in refused(path, tmp_path)


def test_a_long_chain_of_name_headers_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2
    path = tmp_path / "chain.tar"
    path.write_bytes((info.tobuf(tarfile.GNU_FORMAT) + b"x\0".ljust(512, b"\0")) * 5000 + b"\0" * 1024)
    assert "not a whole tar archive" in refused(path, tmp_path)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_truncated_archive_is_refused_wherever_it_ends(tmp_path: Path, mode: str) -> None:
    whole = write_tar(tmp_path / "whole.tar", [a_file(f"f{i}", os.urandom(700)) for i in range(4)], mode).read_bytes()
    (tmp_path / "whole.tar").unlink()
    # A plain tar ends with padding of which only the first block matters; a compressed one with its checksum.
    end = 4 * (512 + 1024) if mode == "w" else len(whole) - 1
    for size in sorted({0, 1, 511, 512, 600, 1536, 2000, end // 2, end - 512, end}):
        cut = tmp_path / "cut.tar"
        cut.write_bytes(whole[:size])
        assert "not a whole tar archive" in refused(cut, tmp_path), size


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [a_file("first"), a_file("second")], "w")
    content = bytearray(path.read_bytes())
    content[1024 + 148 : 1024 + 156] = b"7777777\0"  # checksum of the second header
    path.write_bytes(content)
    assert "not a whole tar archive" in refused(path, tmp_path)


def test_something_else_than_an_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "page.tar.gz"
    path.write_text("<html>404 not found</html>" * 100)
    assert "page.tar.gz is not a whole tar archive (plain, gz, xz or bz2)" in refused(path, tmp_path)
    assert "missing.tar" in refused(tmp_path / "missing.tar", tmp_path)


def test_an_archive_without_a_file_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [a_directory("d")])
    assert "contains no file" in refused(path, tmp_path)
    path = write_tar(tmp_path / "a.tar", [a_file("d/f")])
    assert "no file left after strip_components=2" in refused(path, tmp_path, strip_components=2)


def test_another_sha256_is_refused_with_both_named(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [a_file("f")])
    message = refused(path, tmp_path, "0" * 64)
    assert file_sha256(path) in message and "0" * 64 in message
    assert extract(path, tmp_path / "into", file_sha256(path).upper()).files == 1


def test_what_is_there_already_is_not_touched(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [a_file("f")])
    (tmp_path / "into").mkdir()
    (tmp_path / "into" / "mine").write_text("mine")
    assert "exists already" in refused(path, tmp_path)


def test_nothing_remains_when_writing_fails(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [a_file("good"), a_file("x" * 300)])
    assert "cannot unpack" in refused(path, tmp_path)


component = st.sampled_from(["a", "b", "..", ".", "", "c"])
names = st.lists(component, min_size=1, max_size=5).map("/".join)
entries = st.lists(
    st.one_of(
        names.filter(bool).map(a_file),
        names.filter(bool).map(a_directory),
        st.builds(a_link, names.filter(bool), names.filter(bool)),
        st.builds(a_link, names.filter(bool), names.filter(bool), st.just(tarfile.LNKTYPE)),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=300, deadline=None)
@given(entries)
def test_whatever_the_members_nothing_ends_up_outside(members: list[Entry]) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        path = write_tar(root / "a.tar", members, "w")
        try:
            extract(path, root / "into")
        except RunbookError:
            assert not (root / "into").exists()
        else:
            for found in (root / "into").rglob("*"):
                assert found.resolve() == root / "into" or (root / "into") in found.resolve().parents
        assert {entry.name for entry in root.iterdir()} <= {"a.tar", "into"}
