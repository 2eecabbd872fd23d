# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Adds up what the suites of `make test` left in build/results. Usage: summary.py EXIT_STATUS_OF_MAKE"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "build" / "results"


def main() -> int:
    passed = failed = skipped = 0
    for path in sorted(RESULTS.glob("*.xml")):
        for suite in ET.parse(path).getroot().iter("testsuite"):
            bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            out = int(suite.get("skipped", 0))
            good = int(suite.get("tests", 0)) - bad - out
            print(f"{path.stem}: {good} passed, {bad} failed, {out} skipped")
            passed, failed, skipped = passed + good, failed + bad, skipped + out
    if sys.argv[1] != "0":
        failed = max(failed, 1)  # lint, sanity and a suite that did not even start leave no results
        print("make test failed; see above")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
