# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: journal
short_description: Lease and journal of the runs that change an application
version_added: 0.1.0
author:
  - The signalbox.runbook authors (@signalbox)
description:
  - Runs on the state host. One call reads everything, or takes, renews or releases the lease and writes what belongs
    to it, in one piece.
  - Every line is synced to disk before the call returns, or in the cluster.
  - In a directory there is one lock and the clock of the host. In Kubernetes every object is changed by
    compare-and-swap, and the clock is that of the API server, in whole seconds.
options:
  directory:
    description:
      - Directory of the journal, one per application and environment.
      - One that does not exist is an empty journal; V(opened) makes it.
      - Exactly one of O(directory) and O(kubernetes) is given.
    type: path
  kubernetes:
    description:
      - The namespace that the journal is kept in instead, as a Lease and ConfigMaps named after the application.
      - The host needs kubectl, and the right to get, create and update Leases and to get, list, create, update and
        delete ConfigMaps there.
    type: dict
    suboptions:
      context:
        description: Context of the kubeconfig. The current context is never taken.
        type: str
        required: true
      namespace:
        description: The namespace, which must exist. That of the context is never taken.
        type: str
        required: true
      expected_server:
        description: URL of the API server that the context must lead to, empty for any.
        type: str
        default: ""
      kubeconfig:
        description: The kubeconfig. By default that of E(KUBECONFIG) or C(~/.kube/config).
        type: path
      kubectl:
        description: Words that run kubectl on this host.
        type: list
        elements: str
        default: [kubectl]
      request_seconds:
        description: Longest time for one answer of the API server, in seconds.
        type: float
        default: 10
      application:
        description: Name of the application. The names of all objects begin with it.
        type: str
        required: true
      environment:
        description: Name of the environment. A namespace holds an application for one environment only.
        type: str
        required: true
  state:
    description:
      - V(read) only reads, once no other run holds the lease or O(wait_seconds) are over.
      - V(opened) takes the lease, begins a run and appends O(events).
      - It fails, naming holder, reason and since when, while another run holds the lease.
      - V(written) appends O(events) and renews the lease. It fails when the lease was taken over.
      - V(renewed) only renews the lease.
      - V(closed) appends O(events), adds O(record) to the history and releases the lease.
    type: str
    required: true
    choices: [read, opened, written, renewed, closed]
  wait_seconds:
    description: How long V(read) waits for another run's lease to end, in seconds.
    type: float
    default: 0
  recent:
    description:
      - Number of latest records that V(read) returns whole.
      - Older ones have only what choosing a release needs.
    type: int
    default: 20
  ttl_seconds:
    description: Time after which the lease ends unless renewed, in seconds.
    type: float
    default: 60
  run:
    description: Number of the run, as V(opened) returned it.
    type: int
    default: 0
  fence:
    description: Fencing number of the run, as V(opened) returned it.
    type: int
    default: 0
  holder:
    description: Who runs it. Kept in the lease.
    type: dict
    default: {}
  reason:
    description: Why it is run. Kept in the lease.
    type: str
    default: ""
  basis:
    description: Fencing number that the plan was made from. When another run came between, the run is refused.
    type: int
    default: 0
  dead_fence:
    description: Fencing number of a lease whose holder is known to be dead. It is taken over at once.
    type: int
    default: 0
  plan:
    description: What the run will do. Kept with the run.
    type: dict
    default: {}
  settled:
    description: Records of runs that did not end and that this run settles.
    type: list
    elements: dict
    default: []
  events:
    description: Intents and results.
    type: list
    elements: dict
    default: []
  record:
    description: The deployment record.
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
    description: Nothing is written. RV(run) and RV(fence) are those that were given.
  diff_mode:
    support: none
    description: A journal only grows.
"""

EXAMPLES = r"""
- name: Read the journal
  signalbox.runbook.journal:
    directory: /var/lib/runbook/clickview/production
    state: read

- name: Read the journal that is kept in a namespace
  signalbox.runbook.journal:
    kubernetes: {context: production, namespace: shop, application: shop, environment: production}
    state: read

- name: Take the lease
  signalbox.runbook.journal:
    directory: /var/lib/runbook/clickview/production
    state: opened
    reason: "deploy 1.3.0"
    holder: {user: anna, host: ops1}
    basis: 41
"""

RETURN = r"""
run:
  description: Number of the run.
  returned: when O(state) is not V(read)
  type: int
  sample: 42
fence:
  description: Fencing number of the run, which every change is made under; for V(read) the last one given out.
  returned: success
  type: int
  sample: 42
at:
  description: Time of the state host, or of the API server, in seconds since 1970.
  returned: when O(state) is not V(read)
  type: float
  sample: 1763683200.1
lease:
  description:
    - The lease that is held, with holder, reason, since, expires, expired; null when nobody holds one.
    - On failure, the one that is in the way.
  returned: when O(state) is V(read), or another run holds it
  type: dict
history:
  description: The records of finished runs, oldest first.
  returned: when O(state) is V(read)
  type: list
  elements: dict
unfinished:
  description: Runs that did not end, each with its number and events.
  returned: when O(state) is V(read)
  type: list
  elements: dict
now:
  description: Time of the state host, or of the API server, in seconds since 1970.
  returned: when O(state) is V(read)
  type: float
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.signalbox.runbook.plugins.module_utils._errors import RunbookError
from ansible_collections.signalbox.runbook.plugins.module_utils._journal import ARGUMENTS, ONE_STORE, call


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS, mutually_exclusive=ONE_STORE, required_one_of=ONE_STORE, supports_check_mode=True
    )
    given = module.params
    if module.check_mode and given["state"] != "read":
        module.exit_json(changed=True, at=0.0, run=given["run"], fence=given["fence"])
    try:
        module.exit_json(**call(given))
    except RunbookError as error:
        module.fail_json(msg=str(error), **error.details)


if __name__ == "__main__":
    main()
