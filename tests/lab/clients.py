"""Clients that the collection knows nothing about: what they see is what users see."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import urlsplit


class Answer(NamedTuple):
    version: str
    began: float
    ended: float
    problem: str


class Client(threading.Thread):
    """Asks again and again on one connection, for as long as the server keeps it, and never asks twice.

    http.client opens a new connection only after an answer that said the old one ends; a connection that is lost
    under a request is a failed request. Not ``kept``, each request has a connection of its own.
    """

    def __init__(self, url: str, pause: float, stop: threading.Event, kept: bool = True, patience: float = 20) -> None:
        super().__init__(daemon=True)
        self.connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=patience)
        self.pause = pause
        self.stop = stop
        self.headers = {} if kept else {"Connection": "close"}
        self.answers: list[Answer] = []

    def run(self) -> None:
        while not self.stop.is_set():
            self.answers.append(self.ask())
            self.stop.wait(self.pause)
        self.connection.close()

    def ask(self) -> Answer:
        began = time.time()
        version, problem = "", ""
        try:
            self.connection.request("GET", "/", headers=self.headers)
            answer = self.connection.getresponse()
            body = answer.read()
            if answer.status == 200:
                version = str(json.loads(body)["version"])
            else:
                problem = f"status {answer.status}"
        except (OSError, http.client.HTTPException) as error:
            problem = f"{type(error).__name__}: {error}"
            self.connection.close()
        return Answer(version, began, time.time(), problem)


@contextmanager
def clients(url: str, count: int, pause: float, kept: bool = True, patience: float = 20) -> Iterator[list[Client]]:
    stop = threading.Event()
    running = [Client(url, pause, stop, kept, patience) for _time in range(count)]
    for client in running:
        client.start()
    try:
        yield running
    finally:
        stop.set()
        for client in running:
            client.join(timeout=patience + 10)


def answers_of(running: list[Client]) -> list[Answer]:
    return [answer for client in running for answer in client.answers]


def failed(running: list[Client]) -> list[str]:
    return [answer.problem for answer in answers_of(running) if answer.problem]
