"""A real object store for the tests: SeaweedFS, one for all processes of a run.

The first test that needs it starts it; most runs of few tests never do. A process that uses it
holds a shared lock on a file. The server's keeper, a process of its own, waits for the exclusive
lock: it gets it when the last user has ended, however it ended, and then stops the server and
removes its files. All is on the loopback interface, on ports that are free at the moment, and
nothing is reported to anybody.
"""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

BUCKET = "tests"
KEYS = ("test-key", "test-secret")
READER_KEYS = ("reader-key", "reader-secret")
# The server's heap would grow to three times this by large objects.
MEMORY_LIMIT = "256MiB"
START_S = 60
TRIES = 3
PORTS = (
    "master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port",
    "filer.port.grpc", "s3.port", "s3.port.grpc", "admin.port", "admin.port.grpc",
    "metricsPort",
)  # fmt: skip


class ObjectServer(NamedTuple):
    """A running server."""

    endpoint: str
    pid: int
    metrics_port: int


@contextmanager
def shared_object_server(run: Path) -> Iterator[ObjectServer]:
    """Use the server of a run, which begins if need be.

    Args:
        run: a directory that all processes of the run share, and no other run.
    """
    run.mkdir(parents=True, exist_ok=True)
    with (run / "starting").open("w") as starting, (run / "users").open("w") as users:
        fcntl.flock(starting, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_SH)  # waits for a keeper that is stopping its server
        if not (run / "server.json").exists():
            _start_keeper(run)
        server = ObjectServer(**json.loads((run / "server.json").read_text()))
        fcntl.flock(starting, fcntl.LOCK_UN)
        yield server


def set_credentials(monkeypatch: Any, keys: tuple[str, str] = KEYS) -> None:
    """Set credentials in the environment, and let none of this host's own be found."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys[1])


def _start_keeper(run: Path) -> None:
    with (run / "keeper.log").open("w") as log:
        keeper = subprocess.Popen(
            [sys.executable, __file__, str(run)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the tests, which end first
        )
    assert keeper.stdout
    with keeper.stdout as answer:
        if answer.readline() != b"ready\n":
            raise AssertionError((run / "keeper.log").read_text())
    keeper.returncode = 0  # it outlives this process, and nobody waits for it


def keep(run: Path) -> None:
    """Run a server until nobody uses it."""
    directory = Path(tempfile.mkdtemp(prefix="virtbackup-seaweed-"))
    process = None
    try:
        process, server = _started(directory)
        part = run / "server.part"
        part.write_text(json.dumps(server._asdict()))
        part.rename(run / "server.json")
        os.write(1, b"ready\n")
        os.close(1)
        with (run / "users").open("w") as users:
            fcntl.flock(users, fcntl.LOCK_EX)
            (run / "server.json").unlink()
            _stop(process)
    finally:
        if process is not None:
            _stop(process)
        shutil.rmtree(directory, ignore_errors=True)


def _started(directory: Path) -> tuple[subprocess.Popen, ObjectServer]:
    for _ in range(TRIES):
        process, endpoint, metrics_port = _start(directory)
        until = time.monotonic() + START_S
        while process.poll() is None and time.monotonic() < until:
            if _answers(endpoint):
                return process, ObjectServer(endpoint, process.pid, metrics_port)
            time.sleep(0.05)
        _stop(process)  # another process has taken a port meanwhile
    raise AssertionError((directory / "log").read_text())


def _start(directory: Path) -> tuple[subprocess.Popen, str, int]:
    data, keys = directory / "data", directory / "keys.json"
    data.mkdir(exist_ok=True)
    keys.write_text(json.dumps(_identities()))
    ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
    options = {
        **ports, "dir": data, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "bucket": BUCKET,
        "master.telemetry": "false", "admin.ui": "false", "webdav": "false",
        "s3.port.iceberg": 0, "s3.port.lance": 0, "s3.config": keys,
        "s3.autoCreateBucket": "false", "s3.iam.readOnly": "false",
        "s3.localSocket": directory / "s3", "filer.localSocket": directory / "filer",
    }  # fmt: skip
    weed = Path(sys.executable).parent / "weed"
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(
            [weed, "mini", *(f"-{key}={value}" for key, value in options.items())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=directory,
            env={"PATH": os.environ["PATH"], "HOME": str(directory), "TMPDIR": str(directory),
                 "GOMEMLIMIT": MEMORY_LIMIT, "GOGC": "50"},
        )  # fmt: skip
    return process, f"http://127.0.0.1:{ports['s3.port']}", ports["metricsPort"]


def _identities() -> dict:
    names = {
        "writer": (KEYS, ["Admin", "Read", "Write", "List", "Tagging"]),
        "reader": (READER_KEYS, ["Read", "List"]),
    }
    return {
        "identities": [
            {
                "name": name,
                "credentials": [{"accessKey": key, "secretKey": secret}],
                "actions": actions,
            }
            for name, ((key, secret), actions) in names.items()
        ]
    }


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [free.getsockname()[1] for free in sockets]
    finally:
        for free in sockets:
            free.close()


def _answers(endpoint: str) -> bool:
    key, secret = KEYS
    store = obstore.store.S3Store(
        BUCKET,
        config={"endpoint": endpoint, "access_key_id": key, "secret_access_key": secret},
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
    try:
        obstore.list_with_delimiter(store)
    except obstore.exceptions.BaseError:
        return False
    return True


def _stop(process: subprocess.Popen) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    # In its own process alone: a run that needs no server does not load the library.
    import obstore.exceptions
    import obstore.store

    keep(Path(sys.argv[1]))
