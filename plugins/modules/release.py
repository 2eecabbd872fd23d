# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release
short_description: Make a release on a target, once and whole
author:
  - The signalbox.runbook authors (@signalbox)
version_added: 0.1.0
description:
  - Makes C(releases/<id>) below O(home) from the artifact, configuration and environment of every service.
  - The release appears by one rename when it is complete, with a manifest that has the checksum of every file.
    A half-made release is never visible.
  - A release that is there with the same O(digest) and whole is left alone. With another digest the task fails,
    because a release is never changed. A damaged one is made again, unless a slot runs it.
  - Archives and wheels are files on the controller. Their checksums are compared there first, then they are
    uploaded, unless the connection is local.
  - A package of apt is downloaded from the repositories of the target, in just the version that is given, and kept in
    the release; M(signalbox.runbook.slot) installs it from there. What it depends on is downloaded into the cache of
    apt. The target must be Debian or a relative of it, and the task must run as root.
  - An image is pulled, unless the target has one of that name. What the name means then is recorded and kept, so that a
    tag that moves changes nothing; when it is gone, the very same is pulled by its digest.
  - Archives with absolute paths, C(..), links that lead out of the tree, or device files are refused before
    anything is written.
attributes:
  check_mode:
    support: full
    description: Predicts the change; nothing is uploaded or written.
  diff_mode:
    support: full
    description: Shows the state of the release before and after.
extends_documentation_fragment: [signalbox.runbook.container]
options:
  home:
    description: Directory of the application on the target.
    type: path
    required: true
  fence:
    description: Fencing number of the run's lease. A number lower than the highest seen on the host is refused.
    type: int
    required: true
  id:
    description: Name of the release; letters, digits and C(._+-) after a letter or digit.
    type: str
    required: true
  version:
    description: Version of the application that this is, for example V(2.4.1).
    type: str
  digest:
    description:
      - Digest of everything that the release is made from; recorded in the manifest.
      - Computed from the other options when it is not given.
    type: str
  in_use:
    description: Ids of the releases that slots run now. They are never replaced, not even when damaged.
    type: list
    elements: str
    default: []
  present:
    description:
      - Says that the release is known to be on the target, so that artifacts are uploaded only when it turns out
        to be missing or damaged.
    type: bool
    default: false
  build_timeout_seconds:
    description: Time in seconds that the commands which make the release (git, venv, pip, apt) may take together.
      It includes the waiting for another program that changes packages.
    type: float
    default: 600
  apt_update:
    description: Whether C(apt-get update) is called when the target does not know a version of a package, or its index
      names a file that is gone.
    type: bool
    default: true
  container_prefix:
    description:
      - Beginning of the names of our own, C(runbook/prefix-service:id), by which images stay on the target.
      - Needed where a service has an image.
    type: str
    default: ""
  user:
    description:
      - User that the services run as, by default the one who makes the release. It owns what only it may read, which
        is the environment and the files of configuration; everything else it may read and not change.
    type: str
    default: ""
  services:
    description: What the release consists of.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the service.
        type: str
        required: true
      artifact:
        description: Exactly one of an archive, a Python installation (O(services[].artifact.python),
          O(services[].artifact.wheel) or both), a git commit, or a package of apt. Needed unless there is
          O(services[].image).
        type: dict
        suboptions:
          archive:
            description: A tar archive (plain, gz, xz or bz2) on the controller.
            type: path
          wheel:
            description: A Python wheel on the controller, installed into the service's own venv.
            type: path
          sha256:
            description: The 64 hex digits that the archive or wheel must have. Required with either.
            type: str
          strip_components:
            description: Number of leading path components to remove from every member of the archive.
            type: int
            default: 0
          python:
            description: Requirements to install into the service's own venv, for example V(datasette==0.65.1).
              They may carry C(--hash=sha256:...).
            type: list
            elements: str
          git:
            description: URL or path of a git repository, without credentials. The tree is exported with
              C(git archive), so its C(.gitattributes) count and submodules are left out.
            type: str
          ref:
            description: Tag or commit. A branch is refused because it moves.
            type: str
          apt:
            description:
              - A Debian package in one exact version, from the repositories that the target has.
              - The SHA-256 that their index has for it is recorded in the manifest, and the file has it.
              - Services of one release may share a package, described alike.
            type: dict
            suboptions:
              package:
                description: Name of the package.
                type: str
                required: true
              version:
                description: The exact version, with epoch and revision, for example V(1.3.0-1).
                type: str
                required: true
              conffiles:
                description:
                  - What becomes of a configuration file of the package that was changed on the host, when the package
                    brings a changed one too.
                  - V(keep) leaves the one of the host, V(replace) takes the one of the package. dpkg leaves the other
                    beside it, as C(.dpkg-dist) or C(.dpkg-old).
                type: str
                choices: [keep, replace]
                default: keep
      command:
        description: What the service runs, as sh words after C(exec). It sees E(PORT), E(SLOT),
          E(DEPLOYED_VERSION), E(DEPLOYED_COMMIT), E(DEPLOYED_AT) and E(RELEASE). Needed unless there is
          O(services[].image).
        type: str
      image:
        description:
          - An image, in place of O(services[].artifact) and O(services[].command). O(version) is its tag, unless it has
            a tag or a digest.
          - The environment reaches the container through the command line, so variables that would change that are
            refused, C(PATH), C(HOME) and those that begin with C(DOCKER_), C(CONTAINER_), C(LD_) or C(XDG_).
        type: str
      container_port:
        description: The port that the image listens on, in the container. Needed with O(services[].image).
        type: int
      environment:
        description: Environment variables of the service.
        type: dict
        default: {}
      secrets:
        description: More environment variables, whose values are kept out of every output.
        type: dict
        default: {}
      files:
        description: Rendered configuration. Relative paths below the service's C(app) directory and their content,
          written with mode 0600 and kept out of every output.
        type: dict
        default: {}
      python_executable:
        description: Python on the target that makes the venv. Without it, the Python that Ansible uses there.
        type: path
      commit:
        description: Commit that the artifact was built from, recorded. With O(services[].artifact.git) it is known.
        type: str
seealso:
  - module: signalbox.runbook.release_prune
"""

EXAMPLES = r"""
- name: Stage a release with an archive and a Python application
  signalbox.runbook.release:
    home: /srv/shop
    fence: 12
    id: 2.4.1-9c56cc51
    version: 2.4.1
    services:
      - name: web
        artifact:
          archive: files/web-2.4.1.tar.gz
          sha256: "{{ web_sha256 }}"
          strip_components: 1
        command: ./bin/web --port $PORT
        files:
          config.toml: "{{ lookup('ansible.builtin.template', 'config.toml.j2') }}"
        secrets:
          DATABASE_URL: "{{ vault_database_url }}"
      - name: data
        artifact:
          python: ["datasette==0.65.1"]
        command: datasette serve --port $PORT

- name: Stage a tagged commit
  signalbox.runbook.release:
    home: /srv/shop
    fence: 13
    id: 2.4.2-1b6453892
    version: 2.4.2
    services:
      - name: web
        artifact:
          git: https://git.example.com/shop/web.git
          ref: v2.4.2
        command: ./serve

- name: Stage a package of the target's repositories
  signalbox.runbook.release:
    home: /srv/shop
    fence: 14
    id: 2.4.3-55e0c1aa
    version: 2.4.3
    services:
      - name: web
        artifact:
          apt: {package: shop-web, version: 2.4.3-1}
          command: /usr/bin/shop-web --port $PORT

- name: Stage an image
  signalbox.runbook.release:
    home: /srv/shop
    fence: 15
    id: 2.4.4-1f0b6d21
    version: 2.4.4
    container_prefix: shop
    services:
      - name: web
        image: registry.example.com/shop/web
        container_port: 8080
"""

RETURN = r"""
outcome:
  description:
    - Whether the release was V(present), or has been V(made) or V(rebuilt) (in check mode, would be).
    - V(pulled), an image of it was gone.
  returned: success
  type: str
  sample: made
same:
  description:
    - The digests and the id of each image of the release.
    - Targets of one release must have one of them in common, otherwise nothing is started.
  returned: success
  type: dict
  sample: {}
path:
  description: Directory of the release.
  returned: success
  type: str
  sample: /srv/shop/releases/2.4.1-9c56cc51
id:
  description: Id of the release.
  returned: success
  type: str
  sample: 2.4.1-9c56cc51
digest:
  description: Digest that the manifest records.
  returned: success
  type: str
bytes:
  description: Size of the release in bytes; null in check mode.
  returned: success
  type: int
  sample: 48211
commits:
  description: Commit by service; empty text where none is known.
  returned: success
  type: dict
  sample: {"web": "9c56cc51b374c3ba189210d5b6d4bf57790d351c"}
problems:
  description: What is wrong with a damaged release that a slot runs.
  returned: failure because of it
  type: list
  elements: str
artifacts_needed:
  description: True when O(present) was said of a release that is missing or damaged.
  returned: failure because of it
  type: bool
"""

import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.signalbox.runbook.plugins.module_utils._container import CONTAINER_OPTIONS, engine
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._release import changing, stage

APT = {
    "package": {"type": "str", "required": True},
    "version": {"type": "str", "required": True},
    "conffiles": {"type": "str", "choices": ["keep", "replace"], "default": "keep"},
}
ARTIFACT = {
    "archive": {"type": "path"},
    "wheel": {"type": "path"},
    "sha256": {"type": "str"},
    "strip_components": {"type": "int", "default": 0},
    "python": {"type": "list", "elements": "str"},
    "git": {"type": "str"},
    "ref": {"type": "str"},
    "apt": {"type": "dict", "options": APT},
}
SERVICE = {
    "name": {"type": "str", "required": True},
    "artifact": {"type": "dict", "options": ARTIFACT},
    "command": {"type": "str"},
    "image": {"type": "str"},
    "container_port": {"type": "int"},
    "environment": {"type": "dict", "default": {}},
    "secrets": {"type": "dict", "default": {}, "no_log": True},
    "files": {"type": "dict", "default": {}, "no_log": True},
    "python_executable": {"type": "path"},
    "commit": {"type": "str"},
}
ARGUMENTS: dict[str, Any] = {
    "home": {"type": "path", "required": True},
    "fence": {"type": "int", "required": True},
    "id": {"type": "str", "required": True},
    "version": {"type": "str"},
    "digest": {"type": "str"},
    "in_use": {"type": "list", "elements": "str", "default": []},
    "present": {"type": "bool", "default": False},
    "build_timeout_seconds": {"type": "float", "default": 600},
    "apt_update": {"type": "bool", "default": True},
    **CONTAINER_OPTIONS,
    "user": {"type": "str", "default": ""},
    "services": {"type": "list", "elements": "dict", "required": True, "options": SERVICE},
}


class UnloggedModule(AnsibleModule):
    """Writes no line to the target's syslog: there a secret of several lines would escape its masking."""

    def _log_invocation(self) -> None:
        pass


def main() -> None:
    module = UnloggedModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    home = Path(module.params["home"])
    if module.params["user"]:
        os.umask(0o022)  # another user has to get to its files
    try:
        docker = engine(module.params["container_command"])
        with changing(home, module.params["fence"], check=module.check_mode):
            result = stage(
                module.params,
                home,
                check=module.check_mode,
                build_timeout_seconds=module.params["build_timeout_seconds"],
                user=module.params["user"],
                apt_update=module.params["apt_update"],
                docker=docker,
            )
    except RunbookError as exc:
        module.fail_json(msg=str(exc), **exc.details)
    before = result.pop("before")
    module.exit_json(diff={"before": {result["id"]: before}, "after": {result["id"]: "whole"}}, **result)


if __name__ == "__main__":
    main()
