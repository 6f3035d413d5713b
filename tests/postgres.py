"""A real PostgreSQL server of the tests' own: thrown away at the end, a fresh schema for each test."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from pathlib import Path

USER, PASSWORD = "gainful", "s@cret:/?#%"
ADDRESS = "postgresql://gainful:s%40cret%3A%2F%3F%23%25@127.0.0.1:{port}/{database}"
MISSING = "there is no PostgreSQL server on this machine; install one (Debian: postgresql)"


def binaries() -> Path | None:
    """Return the folder of the newest server's programs that is installed here, ``None`` where there is none."""
    debian = sorted(glob("/usr/lib/postgresql/*/bin/initdb"), key=lambda path: int(path.split("/")[4]))
    found = shutil.which("initdb") or (debian[-1] if debian else None)
    return Path(found).resolve().parent if found else None


class Cluster:
    """A server that runs, on loopback with a password and on a socket in its *folder* for whoever is here."""

    def __init__(self, folder: Path, programs: Path, owner: str | None) -> None:
        self.folder, self.programs, self.owner = folder, programs, owner
        self.data = folder / "data"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._made = 0

    def make(self) -> None:
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        if self.owner:
            shutil.chown(self.folder, self.owner)
            shutil.chown(secret, self.owner)
        options = ["--username", USER, "--auth-local=trust", "--auth-host=scram-sha-256", "--pwfile", secret]
        self._do("initdb", "--pgdata", self.data, "--encoding=UTF8", "--locale=C", "--no-sync", *options)

    def start(self, *settings: str) -> None:
        """Start it, and wait until it answers; a test server needs no disk to be waited for."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=60"
        chosen = " ".join([options, *(f"-c {setting}" for setting in settings)])
        self._do("pg_ctl", "start", "-w", "-D", self.data, "-l", self.folder / "log", "-o", chosen)

    def stop(self, mode: str = "immediate") -> None:
        self._do("pg_ctl", "stop", "-w", "-D", self.data, "-m", mode)

    def sql(self, *statements: str, database: str = "postgres") -> str:
        """Do *statements* as the server's owner; return what they found, a row a line."""
        commands = [word for statement in statements for word in ("-c", statement)]
        return self._do("psql", "-h", self.folder, "-p", self.port, "-U", USER, "-XAtq", *commands, database)

    def database(self, options: str = "") -> str:
        """Make a database and return its address, password and all."""
        self._made += 1
        name = f"store_{self._made}"
        self.sql(f"CREATE DATABASE {name} {options}")
        return self.address(name)

    def store(self) -> str:
        """Return the address of a new store, in a schema of its own: a database of its own would take 8 MB."""
        self._made += 1
        schema = f"store_{self._made}"
        self.sql(f"CREATE SCHEMA {schema}")
        return f"{self.address('postgres')}?options=-csearch_path%3D{schema}"

    def address(self, database: str) -> str:
        return ADDRESS.format(port=self.port, database=database)

    def _do(self, program: str, *arguments: object) -> str:
        command = [str(self.programs / program), *map(str, arguments)]
        with tempfile.TemporaryFile("w+") as told:  # a pipe would be held open by the server that outlives pg_ctl
            ran = subprocess.run(command, user=self.owner, cwd=self.folder, stdout=told, stderr=told, check=False)
            told.seek(0)
            said = told.read()
        assert ran.returncode == 0, f"{program}: {said}"
        return said.strip()


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A server, stopped and removed in the end; PostgreSQL does not run as root."""
    programs = binaries()
    assert programs is not None, MISSING
    folder = Path(tempfile.mkdtemp(prefix="gainful-postgres-", dir=_disk()))
    os.chmod(folder, 0o755)
    made = Cluster(folder, programs, _owner() if os.geteuid() == 0 else None)
    try:
        made.make()
        made.start()
        try:
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(folder)


def _disk() -> str | None:
    """Return where memory is a disk, if enough of it is free: thousands of small files come and go."""
    memory = "/dev/shm"
    return memory if os.path.isdir(memory) and shutil.disk_usage(memory).free > 2 << 30 else None


def _owner() -> str:
    names = {user.pw_name for user in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


class Wire:
    """The way to a server on this machine, which can be cut between a commit and its answer."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._is_cutting = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_next_answer(self) -> None:
        """Let the next thing that is asked arrive, and cut the connection in place of passing on what comes back."""
        self._is_cutting = True

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
                for source, target, is_answer in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._pass_on, args=(source, target, is_answer), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with source, target, contextlib.suppress(OSError):
            while data := source.recv(65536):
                if is_answer and self._is_cutting:
                    self._is_cutting = False
                    break
                target.sendall(data)
            for end in (source, target):
                end.shutdown(socket.SHUT_RDWR)
