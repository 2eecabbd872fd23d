# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The namespace that a module speaks to; the options are _kubernetes_api.OPTIONS."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
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
    description: Name of the application. The names of all its objects begin with it.
    type: str
    required: true
  environment:
    description: Name of the environment. A namespace holds an application for one environment only.
    type: str
    required: true
"""
