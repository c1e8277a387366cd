"""A bucket that cannot be used: exit code 22, one line on stderr, and what to do."""

import pytest
from command import virtbackup

from faults.lossy_proxy import Answer, lossy_proxy
from object_server import set_credentials
from object_stores import new_location


def assert_refused(url, *words):
    done = virtbackup("list", "--target", url)
    assert done.returncode == 22, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("virtbackup: ")
    for word in words:
        assert word in line


@pytest.fixture
def url(object_server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", object_server.endpoint)
    return str(new_location(object_server.endpoint))


def test_credentials_that_are_refused(url, object_server, monkeypatch):
    set_credentials(monkeypatch, ("no-such-key", "x"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", object_server.endpoint)
    assert_refused(url, "the store ", "credentials")


def test_a_bucket_that_is_missing(url):
    assert_refused("s3://no-such-bucket/x", "the bucket is missing", "create_bucket")


def test_a_server_without_tls(url, object_server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", object_server.endpoint.replace("http:", "https:"))
    assert_refused(url, "it does not speak TLS", "http://")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(403, "RequestTimeTooSkewed"), ("clocks", "timedatectl")),
        (Answer(301, "PermanentRedirect"), ("another region", "`region`")),
    ],
)
def test_a_clock_or_a_region_that_is_wrong(url, object_server, monkeypatch, answer, words):
    with lossy_proxy(object_server.endpoint) as proxy:
        proxy.plan = lambda _method, _path: answer
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        assert_refused(url, *words)
