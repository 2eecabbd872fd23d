# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nginx_upstream_info
short_description: Read the weights of slots in nginx and who answers
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - Reads the include file of M(signalbox.runbook.nginx_upstream) and asks through the router, once.
  - The file says what was last written. After a crash nginx may not have loaded it, so only the answers say where the
    traffic goes.
  - Changes nothing, and a probe that fails is a result, not a failure.
attributes:
  check_mode:
    support: full
    description: Changes nothing in any mode.
  diff_mode:
    support: none
    description: Changes nothing.
options:
  path:
    description: The include file.
    type: path
    required: true
  ask:
    description: Probes to ask through the router, one try each.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What the probe is called in messages; its URL when left out.
        type: str
      url:
        description: Address asked, on the router. Redirects are not followed.
        type: str
        required: true
      method:
        description: HTTP method.
        type: str
        choices: [GET, HEAD, OPTIONS]
        default: GET
      status:
        description: HTTP statuses that pass.
        type: list
        elements: int
        default: [200]
      expect:
        description: Dotted JSON paths of the body and the values that they must have.
        type: dict
        default: {}
      body:
        description: Regular expression that must be found in the body.
        type: str
      headers:
        description: Request headers, for example V(Host) for a virtual server.
        type: dict
        default: {}
      secret_headers:
        description: Request headers that are never shown, for example V(Authorization).
        type: dict
        default: {}
      expect_headers:
        description: Answer headers and the regular expressions that must be found in them.
        type: dict
        default: {}
      version:
        description: Version that must answer.
        type: str
      versions:
        description: Versions of which any may answer, for example while two slots share the traffic.
        type: list
        elements: str
        default: []
      version_path:
        description: Dotted JSON path of the version in the body; empty when the whole body is the version.
        type: str
        default: ""
      within_ms:
        description: Milliseconds within which the answer must be complete.
        type: int
      successes:
        description: How many answers in a row must pass, each on a new connection.
        type: int
        default: 1
      timeout_seconds:
        description: Seconds one request may take.
        type: float
        default: 5
      validate_certs:
        description: Whether the TLS certificate must be trusted and fit the name.
        type: bool
        default: true
      ca_path:
        description: File of the certificate authorities to trust instead of the system's.
        type: path
"""

EXAMPLES = r"""
- name: See where the traffic goes
  signalbox.runbook.nginx_upstream_info:
    path: /etc/nginx/conf.d/shop.conf
    ask:
      - name: shop through the router
        url: http://127.0.0.1/version
        version_path: version
  register: router
"""

RETURN = r"""
exists:
  description: Whether the file exists.
  type: bool
  returned: success
ours:
  description: Whether it was written by this collection.
  type: bool
  returned: success
intact:
  description: Whether it is as it was written; V(false) when it was edited by hand, absent or not ours.
  type: bool
  returned: success
weights:
  description: Weight per slot, the highest of its members.
  type: dict
  returned: success
  sample: {blue: 0, green: 100}
note:
  description: What the last shift noted in the file.
  type: dict
  returned: success
upstreams:
  description: Upstreams of the file with their members.
  type: list
  elements: dict
  returned: success
answers:
  description: One result per probe.
  type: list
  elements: dict
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._nginx import inspect
from ansible_collections.signalbox.runbook.plugins.module_utils._probe import PROBE_OPTIONS, ask, endpoint


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "ask": {"type": "list", "elements": "dict", "default": [], "options": PROBE_OPTIONS},
        },
        supports_check_mode=True,
    )
    try:
        probes = [endpoint(raw) for raw in module.params["ask"]]
        state = inspect(module.params["path"])
    except RunbookError as error:
        module.fail_json(msg=str(error), **error.details)
    except OSError as error:
        module.fail_json(msg=f"path: the include file cannot be read: {error}")
    module.exit_json(changed=False, **state, answers=[one.to_dict() for one in ask(probes)])


if __name__ == "__main__":
    main()
