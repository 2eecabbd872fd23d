# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a release of Compose is made of, the same on the controller and on a target. Private: may change at any time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Optional


def texts(values: Optional[Mapping[str, Any]]) -> dict[str, str]:
    """Values of environment variables."""
    return {key: _text(value) for key, value in (values or {}).items()}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def digest(
    services: Sequence[Mapping[str, Any]], files: Sequence[Mapping[str, str]], variables: Mapping[str, str]
) -> str:
    """Digest of all that makes a release. Where a file lies does not matter, its content does."""
    made_of = [list(services), [file["content"] for file in files], dict(variables)]
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
