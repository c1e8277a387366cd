"""What people read when an object store cannot be used: one line, and what to do."""

import re
import ssl
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from threading import Thread

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from faults.lossy_proxy import Answer, Fault, lossy_proxy
from object_server import KEYS, READER_KEYS, set_credentials
from object_stores import new_location
from virtbackup_async.errors import StorageError, StorageFullError
from virtbackup_async.model.storage_location import StorageLocation
from virtbackup_async.repository.storage.interface import Kind
from virtbackup_async.repository.storage.objects.connecting import open_object_storage
from virtbackup_async.repository.storage.objects.requests import Patience

# One try, which waits for its answer as long as a busy machine takes for it.
AT_ONCE = Patience(answer_s=60, first_s=0, gone_s=0, pause_s=0, longest_pause_s=0)
CALLS = {
    "read": lambda storage: storage.read("d/a", 10),
    "open": lambda storage: storage.open("d/a"),
    "names": lambda storage: storage.names("d", {Kind.FILE}),
    "sizes": lambda storage: storage.sizes(["d/a"]),
    "exists": lambda storage: storage.exists("d/a"),
    "put_new": lambda storage: storage.put_new("d/a", b"x"),
    "replace": lambda storage: storage.replace("d/a", b"x"),
    "remove": lambda storage: storage.remove("d/a"),
    "take_lease": lambda storage: storage.take_lease("d/a", b"x", ()),
    "clock": lambda storage: storage.clock("d"),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())


def storage_at(endpoint, bucket="tests"):
    location = new_location(endpoint, bucket)
    return open_object_storage(location, AT_ONCE)


@contextmanager
def refused(reason, hint):
    with pytest.raises(StorageError) as error:
        yield
    assert error.value.exit_code == 22
    assert re.search(reason, error.value.message), error.value.message
    assert "\n" not in error.value.message
    assert hint in error.value.hint
    shown = f"{error.value} {error.value!r} {error.value.__cause__!r}"
    assert not any(secret in shown for _, secret in (KEYS, READER_KEYS))


@each_call
def test_an_unknown_key_is_refused(object_server, monkeypatch, call):
    set_credentials(monkeypatch, ("no-such-key", "x"))
    with refused("cannot .*: the store (refuses the credentials|denies access)", "credentials"):
        call(storage_at(object_server.endpoint))


@each_call
def test_a_wrong_secret_is_refused(object_server, monkeypatch, call):
    set_credentials(monkeypatch, (KEYS[0], "wrong"))
    with refused("cannot .*: the store (refuses the credentials|denies access)", "credentials"):
        call(storage_at(object_server.endpoint))


@each_call
def test_a_missing_bucket_is_not_an_empty_one(object_server, call):
    with refused("the bucket is missing", "create_bucket"):
        call(storage_at(object_server.endpoint, "no-such-bucket"))


@pytest.mark.parametrize("verb", ["put_new", "replace", "remove", "take_lease", "clock"])
def test_credentials_that_may_only_read_cannot_write(object_server, monkeypatch, verb):
    set_credentials(monkeypatch, READER_KEYS)
    storage = storage_at(object_server.endpoint)
    assert storage.names("d", {Kind.FILE}) == []
    with refused("the store denies access", "Allow these credentials"):
        CALLS[verb](storage)


@each_call
@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [("http://127.0.0.1:1", "no connection"), ("http://no-such-host.invalid", "name is unknown")],
)
def test_a_host_that_is_not_there_is_reported(monkeypatch, call, endpoint, reason):
    set_credentials(monkeypatch)
    with refused(f"cannot reach the store: .*{reason}", "Check the endpoint"):
        call(storage_at(endpoint))


@each_call
def test_a_store_without_tls_is_reported(object_server, call):
    with refused("cannot reach the store: it does not speak TLS", "http://"):
        call(storage_at(object_server.endpoint.replace("http:", "https:")))


@pytest.fixture
def untrusted_server(tmp_path):
    """A TLS server whose certificate no authority has signed; returns its URL."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem.write_bytes(secret + certificate.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.handle_error = lambda *_: None
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = Thread(target=server.serve_forever, name="untrusted")
        thread.start()
        yield f"https://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@each_call
def test_a_certificate_that_nobody_signed_is_refused(untrusted_server, monkeypatch, call):
    set_credentials(monkeypatch)
    with refused("cannot reach the store: its TLS certificate is not trusted", "Install the"):
        call(storage_at(untrusted_server))


ANSWERS = {
    "skew": (Answer(403, "RequestTimeTooSkewed"), "the clocks .* differ", "timedatectl"),
    "region": (Answer(301, "PermanentRedirect"), "in another region", "Set `region`"),
    "malformed": (Answer(400, "AuthorizationHeaderMalformed"), "in another region", "Set `region`"),
    "expired": (Answer(400, "ExpiredToken"), "refuses the credentials", "Check these"),
    "unknown": (Answer(400, "SomethingElse"), r"answers 400 \(SomethingElse\)", "log of the store"),
    "busy": (Answer(503, "SlowDown"), r"answers 503 \(SlowDown\)", "log of the store"),
}


@pytest.mark.parametrize("verb", ["read", "names", "put_new", "replace", "remove"])
@pytest.mark.parametrize(("answer", "reason", "hint"), ANSWERS.values(), ids=ANSWERS.keys())
def test_an_answer_of_the_store_is_put_into_words(object_server, verb, answer, reason, hint):
    with lossy_proxy(object_server.endpoint) as proxy:
        proxy.plan = lambda _method, _path: answer
        with refused(reason, hint):
            CALLS[verb](storage_at(proxy.endpoint))


@each_call
@pytest.mark.parametrize("status", [405, 412, 418, 501])
def test_an_answer_that_fits_no_call_is_an_error(object_server, call, status):
    with lossy_proxy(object_server.endpoint) as proxy:
        proxy.plan = lambda _method, _path: Answer(status, "Whatever")
        with pytest.raises(StorageError) as error:
            call(storage_at(proxy.endpoint))
        assert "\n" not in error.value.message


@pytest.mark.parametrize("answer", [Answer(507), Answer(403, "QuotaExceeded")], ids=str)
@pytest.mark.parametrize("verb", ["put_new", "replace"])
def test_a_full_store_is_full(object_server, verb, answer):
    with lossy_proxy(object_server.endpoint) as proxy:
        proxy.plan = lambda method, _path: answer if method == "PUT" else None
        with pytest.raises(StorageFullError, match="no space left"):
            CALLS[verb](storage_at(proxy.endpoint))


def test_a_silent_store_is_given_up_after_the_time_for_an_answer(object_server):
    patience = Patience(answer_s=0.2, first_s=0, gone_s=0)
    with lossy_proxy(object_server.endpoint) as proxy:
        proxy.plan = lambda _method, _path: Fault.STALL
        storage = open_object_storage(new_location(proxy.endpoint), patience)
        with refused("it does not answer in time", "Check the endpoint"):
            storage.read("d/a", 10)


def test_a_target_needs_a_bucket(monkeypatch):
    set_credentials(monkeypatch)
    with pytest.raises(StorageError, match="names no bucket"):
        open_object_storage(StorageLocation.of("s3:///path"))
