# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Proves that what runs on targets runs with every Python found among 3.9 to 3.13; `make test-compat` runs it.

A module meets a target's Python together with ansible.module_utils and nothing else of Ansible. So with each
interpreter all modules and module_utils are imported beside those alone, and the unit tests that need no more than
that and pytest are run. What is skipped is said, with the reason.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

CHECKOUT = Path(__file__).resolve().parents[1]
COLLECTION = "ansible_collections.signalbox.runbook"
VERSIONS = ["3.9", "3.10", "3.11", "3.12", "3.13"]
BUILD = CHECKOUT / "build" / "compat"
RESULTS = CHECKOUT / "build" / "results"
TEST_SECONDS = 600
TEST_PACKAGES = ["pytest>=8,<10", "hypothesis>=6,<7"]
ALLOWED = {"pytest", "hypothesis", *sys.stdlib_module_names}
ON_TARGETS = (f"{COLLECTION}.plugins.module", "ansible.module_utils")
IMPORT_ALL = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"


def interpreter(version: str) -> Optional[str]:
    """One that starts and is that version: a shim of a version manager may do neither."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"))]
    for candidate in filter(None, found):
        command = [str(candidate), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.stdout.strip() == version:
            return str(candidate)
    return None


def import_path() -> str:
    """A PYTHONPATH with the collection and ansible.module_utils, as a target gets them."""
    ansible = importlib.util.find_spec("ansible")
    if ansible is None or ansible.origin is None:
        sys.exit("compat: run it with a Python that has ansible-core, such as .venv/bin/python")
    tree = BUILD / "path" / "ansible"
    tree.mkdir(parents=True, exist_ok=True)
    (tree / "__init__.py").touch()
    link = tree / "module_utils"
    link.unlink(missing_ok=True)
    link.symlink_to(Path(ansible.origin).parent / "module_utils")
    return os.pathsep.join([str(tree.parent), str(CHECKOUT / "build" / "collections")])


def needs(test: Path) -> Iterator[str]:
    """What a test file uses that no target has: packages, or Ansible as a program."""
    for node in ast.walk(ast.parse(test.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        elif isinstance(node, ast.Constant) and node.value in ("ansible", "ansible-playbook"):
            yield "runs Ansible"
        for name in names:
            if name.split(".")[0] not in ALLOWED and not name.startswith(ON_TARGETS):
                yield f"imports {name}"


def pure_tests() -> tuple[list[str], list[str]]:
    """The test files that a target's Python can run, and why the others are skipped."""
    pure, skipped = [], []
    for test in sorted((CHECKOUT / "tests" / "unit" / "plugins").rglob("test_*.py")):
        name = str(test.relative_to(CHECKOUT))
        reason = next(needs(test), None)
        if reason is None:
            pure.append(name)
        else:
            skipped.append(f"{name} {reason}")
    return pure, skipped


def with_pytest(version: str, python: str) -> Optional[str]:
    """A virtual environment's Python with pytest, or None where it cannot be made."""
    home = BUILD / f"python{version}"
    inside = home / "bin" / "python"
    check = [str(inside), "-c", "import pytest, hypothesis"]
    if inside.exists() and subprocess.run(check, capture_output=True, check=False).returncode == 0:
        return str(inside)
    shutil.rmtree(home, ignore_errors=True)
    install = [str(inside), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *TEST_PACKAGES]
    for command in ([python, "-m", "venv", str(home)], install):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"  {(done.stderr or done.stdout).strip().splitlines()[-1:]}")
            return None
    return str(inside)


def main() -> int:
    names = [
        f"{COLLECTION}.plugins.{kind}.{path.stem}"
        for kind in ("module_utils", "modules")
        for path in sorted((CHECKOUT / "plugins" / kind).glob("*.py"))
    ]
    environment = {**os.environ, "PYTHONPATH": import_path(), "PYTHONDONTWRITEBYTECODE": "1"}
    RESULTS.mkdir(parents=True, exist_ok=True)
    tests, skipped = pure_tests()
    for reason in skipped:
        print(f"compat: skipped with every Python: {reason}")
    failed, found = [], []
    for version in VERSIONS:
        python = interpreter(version)
        if python is None:
            print(f"compat: {version} skipped: no such interpreter on PATH or under pyenv")
            continue
        found.append(version)
        print(f"compat: {version} imports {len(names)} modules and module_utils", flush=True)
        if subprocess.run([python, "-c", IMPORT_ALL, *names], env=environment, check=False).returncode:
            failed.append(f"{version} import")
        if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
            print(f"compat: {version} unit tests skipped: make test-unit runs them with it")
            continue
        runner = with_pytest(version, python)
        if runner is None:
            print(f"compat: {version} unit tests skipped: pytest cannot be installed for it")
            continue
        command = [runner, "-m", "pytest", "-rfEs", "-p", "no:cacheprovider", "-o", "faulthandler_timeout=120"]
        command += [f"--junitxml={RESULTS}/test-compat-{version}.xml", *tests]
        try:
            status = subprocess.run(
                command, cwd=CHECKOUT, env=environment, check=False, timeout=TEST_SECONDS
            ).returncode
        except subprocess.TimeoutExpired:
            print(f"compat: {version} unit tests stopped after {TEST_SECONDS} s")
            status = 1
        if status:
            failed.append(f"{version} unit tests")
    if not found:
        failed.append("no interpreter found")
    print(f"compat: failed: {', '.join(failed)}" if failed else f"compat: passed with {', '.join(found)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
