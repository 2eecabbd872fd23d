"""The Docker Engine of this machine, for tests. Everything made here has a prefix of its own.

Usage: engine.py remove PREFIX
"""

from __future__ import annotations

import secrets
import subprocess
import sys

PREFIX = f"rbt{secrets.token_hex(3)}"


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True, timeout=120).stdout.strip()


def why_not() -> str:
    """Why these tests can't run here; empty when they can."""
    for words in (["info"], ["compose", "version"]):
        try:
            done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=60, check=False)
        except FileNotFoundError:
            return "there is no Docker on this machine; as root, tests/lab/docker.sh installs it"
        if done.returncode != 0:
            return f"Docker can't be used here: {done.stderr.strip().splitlines()[-1]}"
    return ""


def remove_ours(prefix: str = PREFIX) -> None:
    """Containers, networks and images with the prefix, and nothing else."""
    for kind, remove in (("container", ["rm", "--force", "--volumes"]), ("network", ["rm"])):
        words = ["ls", "--quiet", "--filter", f"name={prefix}", *(["--all"] if kind == "container" else [])]
        for found in docker(kind, *words).split():
            docker(kind, *remove, found)
    for name in docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split():
        if prefix in name and not name.endswith("<none>"):
            docker("image", "rm", "--force", name)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] != "remove" or len(sys.argv[2]) < 8:
        sys.exit("usage: engine.py remove PREFIX (of 8 characters at least)")
    remove_ours(sys.argv[2])
