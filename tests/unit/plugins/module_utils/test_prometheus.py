# Copyright: (c) 2026, the signalbox.runbook authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import json
import math
import time
from urllib.parse import parse_qs, urlsplit

import pytest
from ansible_collections.signalbox.runbook.plugins.module_utils._diagnosis import Answer, Failure
from ansible_collections.signalbox.runbook.plugins.module_utils._prometheus import Reading, Server, read
from hypothesis import given
from hypothesis import strategies as st

SERVER = Server("http://metrics.test:9090")
TOKEN = "t0ken-Value"
AT = "Prometheus at metrics.test:9090"


def answering(body, status=200, kind="application/json"):
    text = body if isinstance(body, str) else json.dumps(body)
    return lambda request: Answer(status, {"content-type": kind}, text, 3)


def success(kind, result):
    return {"status": "success", "data": {"resultType": kind, "result": result}}


def vector(*values):
    return success("vector", [{"metric": {"n": str(i)}, "value": [1.5, value]} for i, value in enumerate(values)])


def said(body, status=200, kind="application/json", server=SERVER):
    return read(server, "up", fetch=answering(body, status, kind))


@pytest.mark.parametrize(
    ("body", "reading"),
    [
        (success("scalar", [1.5, "0.25"]), Reading(0.25)),
        (vector("12.5"), Reading(12.5)),
        (vector("0"), Reading(0.0)),
        (vector("+Inf"), Reading(math.inf)),
        (vector("-Inf"), Reading(-math.inf)),
        (vector(), Reading(None, "", "the query has no series")),  # no data, and not 0
        (vector("NaN"), Reading(None, "", "the query is NaN")),
        (success("scalar", [1.5, "NaN"]), Reading(None, "", "the query is NaN")),
        ({**vector("3"), "warnings": ["something"]}, Reading(3.0)),
    ],
)
def test_values(body, reading):
    assert said(body) == reading


@pytest.mark.parametrize(
    ("body", "status", "kind", "problem"),
    [
        (vector("1", "2"), 200, "application/json", "the query gives 2 series, not one; put sum() or max() around it"),
        (success("matrix", []), 200, "application/json",
            "the query gives a matrix, not one number; ask for an instant vector"),
        (success("string", [1, "up"]), 200, "application/json",
            "the query gives a string, not one number; ask for an instant vector"),
        (success("vector", [{"metric": {}, "histogram": [1, {}]}]), 200, "application/json",
            "the query gives a histogram, not one number; take histogram_quantile()"),
        (success("vector", [{"metric": {}, "value": [1, "many"]}]), 200, "application/json",
            "the answer has no number where its value should be"),
        (success("vector", [{"metric": {}, "value": 7}]), 200, "application/json",
            "the answer has no number where its value should be"),
        (success("vector", ["x"]), 200, "application/json", "the answer has no number where its value should be"),
        (success("vector", None), 200, "application/json",
            "the query gives nothing that we know, not one number; ask for an instant vector"),
        ({"status": "success"}, 200, "application/json",
            "the query gives nothing that we know, not one number; ask for an instant vector"),
        ("<html>It works!</html>", 200, "text/html", "the answer is not that of Prometheus (HTTP 200, text/html)"),
        ("[]", 200, "application/json", "the answer is not that of Prometheus (HTTP 200, application/json)"),
        ("", 502, "text/plain", "the answer is not that of Prometheus (HTTP 502, text/plain)"),
        ("[" * 500_000, 200, "application/json", "the answer is not that of Prometheus (HTTP 200, application/json)"),
        ("x" * 1024 * 1024, 200, "application/json",
            "the answer is longer than 1 MiB; the query must give one number"),
    ],
)  # fmt: skip
def test_what_is_no_value(body, status, kind, problem):
    assert said(body, status, kind) == Reading(None, f"{AT}: {problem}")


def test_its_own_words_are_passed_on():
    body = {"status": "error", "errorType": "bad_data", "error": 'invalid parameter "query": 1:4: parse error'}
    assert said(body, 400).problem == f'{AT} says bad_data: invalid parameter "query": 1:4: parse error'
    assert len(said({**body, "error": "x" * 90_000}, 422).problem) < 300


def test_credentials():
    assert said("no", 401, "text/plain").problem == (
        f"{AT} wants credentials (HTTP 401); give a token, or user and password"
    )
    known = Server(SERVER.url, token=TOKEN)
    assert said("no", 403, server=known).problem == (
        f"{AT} refuses our credentials (HTTP 403); give a token, or user and password"
    )
    assert said("", 302).problem == f"{AT} answers with a redirect (HTTP 302); give the URL it leads to"


def test_secrets_are_in_no_message():
    pair = base64.b64encode(f"me:{TOKEN}".encode()).decode()
    for server in (Server(SERVER.url, token=TOKEN), Server(SERVER.url, user="me", password=TOKEN)):
        echo = {"status": "error", "errorType": "x", "error": f"you sent {TOKEN} and {pair}"}
        problem = said(echo, 400, server=server).problem
        assert TOKEN not in problem
        assert TOKEN not in repr(server)
    assert pair not in problem


@pytest.mark.parametrize("kind", ["refused", "timeout", "dns", "tls"])
def test_a_server_that_does_not_answer(kind):
    reading = read(SERVER, "up", fetch=lambda request: Failure(kind, "connection refused"))
    assert reading == Reading(None, f"{AT}: connection refused")


def test_the_request():
    asked = []

    def fetch(request):
        asked.append(request)
        return answering(vector("1"))(request)

    server = Server("https://metrics.test/prometheus/", token=TOKEN, timeout_seconds=3, ca_path="/ca.pem")
    read(server, 'sum(rate(x{code=~"5.."}[1m])) > 0 & "ü"', 1764216963.25, fetch)
    (request,) = asked
    parts = urlsplit(request.url)
    assert parts.path == "/prometheus/api/v1/query"
    assert parse_qs(parts.query) == {
        "query": ['sum(rate(x{code=~"5.."}[1m])) > 0 & "ü"'],
        "timeout": ["3s"],
        "time": ["1764216963.250"],
    }
    assert request.url.isascii()
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert (request.timeout_seconds, request.ca_path, request.validate_certs) == (3, "/ca.pem", True)
    assert TOKEN not in repr(request)
    read(Server("http://x", user="me", password="ü"), "up", fetch=fetch)
    assert base64.b64decode(asked[-1].headers["Authorization"].split()[1]).decode() == "me:ü"


def test_a_bomb_of_digits_costs_no_time():
    begun = time.process_time()
    for body in ('{"status":"success","data":' + "9" * 1_000_000 + "}", '{"status":' + '{"a":' * 100_000):
        assert said(body).problem
    assert time.process_time() - begun < 5  # reading it as a whole number would take a minute


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.sampled_from(["success", "vector", "scalar"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["status", "data", "resultType", "result", "value", "metric"]), inner)
    ),
    max_leaves=12,
)


@given(JSON, st.integers(100, 599))
def test_whatever_comes_is_an_answer(document, status):
    reading = said(document, status)
    assert reading.value is None or not math.isnan(reading.value)
    assert reading.value is not None or reading.problem or reading.text
    assert said({"status": "success", "data": document}, status) is not None
    wrapped = said(success("vector", [document]))
    assert wrapped.value is None or isinstance(wrapped.value, float)
