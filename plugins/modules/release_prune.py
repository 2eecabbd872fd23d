# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_prune
short_description: Remove releases from a target, and name the live one
author:
  - The signalbox.runbook authors (@signalbox)
version_added: 0.1.0
description:
  - Removes the named releases below O(home). Each disappears by one rename before its files are deleted.
  - Lets the links C(current) and C(previous) name the releases in O(links) first, each by one rename.
  - Images that were pulled for them go with them, unless another release here needs them.
  - Only releases with a readable manifest are removed. Anything else is not ours and makes the task fail before
    anything is removed.
attributes:
  check_mode:
    support: full
    description: Predicts what would be removed.
  diff_mode:
    support: full
    description: Shows the releases that are there before and after.
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
  remove:
    description: Ids of the releases to remove. Those that are not there are passed over.
    type: list
    elements: str
    required: true
  keep:
    description: Ids that must stay, such as those that slots run. The task fails when one of them is in O(remove).
    type: list
    elements: str
    default: []
  container_prefix:
    description: Beginning of the names of our own by which images stay on the target. Needed where there are images.
    type: str
    default: ""
  links:
    description:
      - The releases that links below O(home) are to lead to. A link that is not named here is left alone.
      - What is there under that name and is no link to a release makes the task fail before anything is changed.
    type: dict
    suboptions:
      current:
        description: The id of the release that is live.
        type: str
        required: true
      previous:
        description: The id of the release that a rollback goes to; empty for none.
        type: str
        default: ""
seealso:
  - module: signalbox.runbook.release
"""

EXAMPLES = r"""
- name: Remove an old release
  signalbox.runbook.release_prune:
    home: /srv/shop
    fence: 14
    remove: [2.3.0-77aa01c4]
    keep: [2.4.1-9c56cc51, 2.4.0-0d4be1f2]
    links: {current: 2.4.1-9c56cc51, previous: 2.4.0-0d4be1f2}
"""

RETURN = r"""
removed:
  description: Ids of the releases that were (in check mode, would be) removed.
  returned: success
  type: list
  elements: str
  sample: [2.3.0-77aa01c4]
images_removed:
  description: Names of images that were removed, with the image where it was its last one.
  returned: success
  type: list
  elements: str
  sample: ["runbook/shop-web:2.3.0-77aa01c4"]
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.signalbox.runbook.plugins.module_utils._answer import give, refusal
from ansible_collections.signalbox.runbook.plugins.module_utils._container import CONTAINER_OPTIONS, engine
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._links import read_links, set_links
from ansible_collections.signalbox.runbook.plugins.module_utils._release import changing, manifests, prune

ARGUMENTS: dict[str, Any] = {
    "home": {"type": "path", "required": True},
    "fence": {"type": "int", "required": True},
    "remove": {"type": "list", "elements": "str", "required": True},
    "keep": {"type": "list", "elements": "str", "default": []},
    **CONTAINER_OPTIONS,
    "links": {
        "type": "dict",
        "options": {"current": {"type": "str", "required": True}, "previous": {"type": "str", "default": ""}},
    },
}
REQUIRED_IF: list[Any] = []


def answer(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    home, wanted = Path(params["home"]), params["links"] or {}
    try:
        docker = engine(params["container_command"])
        with changing(home, params["fence"], check=check_mode):
            before = [release["id"] for release in manifests(home)[0]]
            links = read_links(home) if wanted else {}
            linked = set_links(home, wanted, check=check_mode)
            pruned = prune(home, docker, params["container_prefix"], params["remove"], params["keep"], check_mode)
    except RunbookError as error:
        return refusal(str(error), **error.details)
    except OSError as error:
        return refusal(f"cannot change {error.filename}: {error.strerror}")
    after = [release_id for release_id in before if release_id not in pruned["removed"]]
    return {
        **pruned,
        "changed": pruned["changed"] or linked,
        "diff": {"before": {"releases": before, **links}, "after": {"releases": after, **wanted}},
    }


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, required_if=REQUIRED_IF, supports_check_mode=True)
    give(module, answer(module.params, module.check_mode))


if __name__ == "__main__":
    main()
