# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs ansible-test sanity on the files of the checkout; `make test-sanity` runs it. Arguments go to ansible-test.

ansible-test wants the path .../ansible_collections/<namespace>/<name>. So it gets a copy of what git knows or would
know, as a repository of its own: in the checkout's, the copy is ignored. There are no ignore files.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
COPY = CHECKOUT / "build" / "sanity" / "ansible_collections" / "signalbox" / "runbook"
# ansible-test downloads get-pip.py once. Where it has not, pip comes out of Python itself, without a network.
GET_PIP = Path.home() / ".ansible" / "test" / "cache" / "get_pip_24_2.py"
NEEDS = {"shellcheck": "shellcheck", "pslint": "pwsh"}


def copy_files() -> None:
    shutil.rmtree(COPY, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (CHECKOUT / name).is_file():  # not one that is deleted and not committed yet
            (COPY / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, COPY / name, follow_symlinks=False)
    subprocess.run(["git", "init", "--quiet"], cwd=COPY, check=True)


def main() -> int:
    copy_files()
    if not GET_PIP.exists():
        GET_PIP.parent.mkdir(parents=True, exist_ok=True)
        GET_PIP.write_text("import ensurepip\n\nensurepip.bootstrap(default_pip=True)\n", encoding="utf-8")
    skipped = [test for test, program in NEEDS.items() if not shutil.which(program)]
    command = [str(Path(sys.executable).with_name("ansible-test")), "sanity", "--color", "no"]
    command += ["--python", f"{sys.version_info[0]}.{sys.version_info[1]}", "--local"]
    for test in skipped:
        command += ["--skip-test", test]
    status = subprocess.run([*command, *sys.argv[1:]], cwd=COPY, stdin=subprocess.DEVNULL, check=False).returncode
    for test in skipped:
        print(f"sanity: skipped {test}, because {NEEDS[test]} is not installed")
    print("sanity: passed" if status == 0 else "sanity: failed")
    return status


if __name__ == "__main__":
    sys.exit(main())
