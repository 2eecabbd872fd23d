# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Values checked, converted and completed by a role's argument specification: the documentation is the schema.

``ansible-core`` checks argument specs but neither converts nor fills in, and names no key path; an AWX survey
and ``-e`` give strings. Private: may change at any time.
"""

from __future__ import annotations

import copy
import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any, Optional

Spec = Mapping[str, Any]

SHOWN = 56  # so much of a long value is quoted

_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")


class Problems(list[str]):
    """All that is wrong, each one sentence that begins with the key's path."""

    def say(self, path: str, problem: str) -> None:
        self.append(f"{path}: {problem}")


def closest(word: str, known: Iterable[str]) -> str:
    match = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {match[0]}?" if match else ""


def _shown(value: Any) -> str:
    if isinstance(value, (Mapping, list, tuple)):  # a secret may be deep in it
        return "a mapping" if isinstance(value, Mapping) else "a list"
    text = repr(value) if not isinstance(value, str) else repr(str(value))
    return text if len(text) <= SHOWN + 4 else text[: SHOWN + 1] + "..."


def _hides(value: Any, spec: Spec) -> bool:
    """Whether a text stands where a structure was wanted: secrets of the whole structure may be in it."""
    return isinstance(value, str) and "options" in spec


def convert(value: Any, spec: Spec, path: str, problems: Problems) -> Any:
    """``value`` as the type the spec says, or None after a problem was noted."""
    kind = spec.get("type", "str")
    # A secret in the wrong place must not be quoted in the message.
    shown = "the value" if spec.get("no_log") else "text" if _hides(value, spec) else _shown(value)
    if kind == "dict":
        if not isinstance(value, Mapping):
            problems.say(path, f"must be a mapping, not {shown}")
            return None
        return check(value, spec["options"], path, problems) if "options" in spec else {str(k): value[k] for k in value}
    if kind == "list":
        if isinstance(value, str) or not isinstance(value, (list, tuple)):
            problems.say(path, f"must be a list, not {shown}")
            return None
        element = {**spec, "type": spec.get("elements", "str")}
        return [convert(item, element, f"{path}[{i}]", problems) for i, item in enumerate(value)]
    converted = _scalar(value, kind)
    if converted is None:
        wanted = {"int": "a whole number", "float": "a number", "bool": "true or false"}.get(kind, "a string")
        problems.say(path, f"must be {wanted}, not {shown}")
        return None
    choices = spec.get("choices")
    if choices and converted not in choices:
        problems.say(path, f"must be one of {', '.join(map(str, choices))}, not {shown}")
        return None
    return converted


def _scalar(value: Any, kind: str) -> Any:
    if isinstance(value, (Mapping, list, tuple)) or value is None:
        return value if kind == "raw" else None
    if kind == "bool":
        word = str(value).lower()
        return True if word in _TRUE else False if word in _FALSE else None
    if kind in ("int", "float"):
        if isinstance(value, bool):
            return None
        try:
            number = float(value)
        except (ValueError, OverflowError):
            return None
        if kind == "float":
            return number if math.isfinite(number) else None
        if not number.is_integer():
            return None
        return int(value) if isinstance(value, int) else int(number)
    if kind == "raw":
        return value
    # YAML reads 1.10 as a number and loses the zero: only a string is a string here, except whole numbers.
    if isinstance(value, str):
        return str(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def check(values: Mapping[str, Any], options: Mapping[str, Spec], path: str, problems: Problems) -> dict[str, Any]:
    """The options of one mapping: unknown keys refused, missing ones filled in from ``default``."""
    prefix = f"{path}." if path else ""
    for key in values:
        if key not in options:
            problems.say(f"{prefix}{key}", f"unknown key{closest(str(key), options)}")
    done: dict[str, Any] = {}
    for key, spec in options.items():
        value = values.get(key)
        if value is None:
            if spec.get("required"):
                problems.say(f"{prefix}{key}", f"is missing; give {_wanted(spec)}")
            done[key] = copy.deepcopy(spec.get("default"))
            if done[key] is None and "options" in spec and spec.get("type") == "dict" and spec.get("apply_defaults"):
                done[key] = check({}, spec["options"], f"{prefix}{key}", problems)
        else:
            done[key] = convert(value, spec, f"{prefix}{key}", problems)
    return done


def _wanted(spec: Spec) -> str:
    description: Any = spec.get("description", "")
    first: Optional[str] = description[0] if isinstance(description, list) and description else description
    return (first or f"a {spec.get('type', 'str')}").split(". ")[0].rstrip(".").replace("C(", "").replace(")", "")
