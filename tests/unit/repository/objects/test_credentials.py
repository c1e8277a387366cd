"""Which credentials are used, and that no message shows them."""

import pytest
from msgspec.structs import replace

from object_server import KEYS, set_credentials
from object_stores import IMPATIENT, new_location
from virtbackup_async.errors import StorageError
from virtbackup_async.repository.storage.objects.connecting import (
    open_object_storage,
    shared_object_storage,
)
from virtbackup_async.repository.storage.objects.credentials import s3_options

SECRET = "never-to-be-shown"  # noqa: S105
FILE = f"""
[default]
aws_access_key_id = default-key
aws_secret_access_key = {SECRET}
[backup]
aws_access_key_id = backup-key
aws_secret_access_key = {SECRET}
aws_session_token = {SECRET}-token
[empty]
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The files of AWS's tools, and nothing in the environment."""
    set_credentials(monkeypatch)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for variable, name in (
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
        ("AWS_CONFIG_FILE", "config"),
    ):
        monkeypatch.setenv(variable, str(tmp_path / name))
    return tmp_path


def write(path, text, mode=0o600):
    path.write_text(text)
    path.chmod(mode)


def test_the_environment_comes_first(files, monkeypatch):
    write(files / "credentials", FILE)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "own-key")
    assert s3_options("s3://b", None, has_endpoint=True) == {}


def test_without_it_the_default_section_is_used(files):
    write(files / "credentials", FILE)
    write(files / "config", "[default]\nregion = eu-west-1\n[profile backup]\nregion = eu-west-3\n")
    found = s3_options("s3://b", None, has_endpoint=True)
    assert found == {
        "access_key_id": "default-key", "secret_access_key": SECRET, "region": "eu-west-1",
    }  # fmt: skip


def test_a_profile_is_used_whatever_the_environment_has(files, monkeypatch):
    write(files / "credentials", FILE)
    write(files / "config", "[profile backup]\nregion = eu-west-3\nendpoint_url = http://h:1\n")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "own-key")
    assert s3_options("s3://b", "backup", has_endpoint=True) == {
        "access_key_id": "backup-key", "secret_access_key": SECRET,
        "session_token": f"{SECRET}-token", "region": "eu-west-3", "endpoint": "http://h:1",
    }  # fmt: skip


@pytest.mark.parametrize("profile", ["none", "empty"])
def test_a_profile_without_credentials_is_refused(files, profile):
    write(files / "credentials", FILE)
    with pytest.raises(StorageError, match=f"cannot open s3://b: profile '{profile}' has no"):
        s3_options("s3://b", profile, has_endpoint=True)


def test_a_server_of_ones_own_needs_credentials(files):
    with pytest.raises(StorageError, match="cannot open s3://b: no credentials") as error:
        s3_options("s3://b", None, has_endpoint=True)
    assert "AWS_ACCESS_KEY_ID" in error.value.hint
    assert s3_options("s3://b", None, has_endpoint=False) == {}


@pytest.mark.parametrize("text", ["aws_secret_access_key = SECRET", "[a\nSECRET", "\udcff\nSECRET"])
def test_a_file_that_is_no_such_file_is_not_quoted(files, text):
    (files / "credentials").write_bytes(
        text.replace("SECRET", SECRET).encode(errors="surrogateescape")
    )
    (files / "credentials").chmod(0o600)
    with pytest.raises(StorageError, match="credentials cannot be understood") as error:
        s3_options("s3://b", None, has_endpoint=True)
    assert SECRET not in f"{error.value} {error.value.__cause__}"
    assert error.value.__suppress_context__


def test_a_file_that_everybody_can_read_is_refused(files):
    write(files / "credentials", FILE, 0o644)
    with pytest.raises(StorageError, match="can be read by everybody") as error:
        s3_options("s3://b", None, has_endpoint=True)
    assert error.value.hint.startswith("Run `chmod 600 ")


def test_a_file_that_cannot_be_read_is_reported(files):
    (files / "credentials").mkdir(mode=0o700)
    with pytest.raises(StorageError, match="cannot read"):
        s3_options("s3://b", None, has_endpoint=True)


def test_a_profile_opens_a_store(files, object_server, monkeypatch):
    key, secret = KEYS
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(files / "credentials"))
    write(
        files / "credentials",
        f"[backup]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n",
    )
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    bucket, _, prefix = new_location("").path.partition("/")
    location = new_location(object_server.endpoint)
    with_profile = type(location)(
        "s3", f"{bucket}/{prefix}", endpoint=location.endpoint, profile="backup"
    )
    storage = open_object_storage(with_profile)
    storage.put_new("d/a", b"x")
    assert storage.read("d/a", 10) == b"x"
    assert secret not in f"{storage!r} {with_profile!r} {vars(storage)} {storage.where()}"


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_a_url_alone_is_enough_with_the_server_in_the_environment(
    files, object_server, monkeypatch, name
):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEYS[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS[1])
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv(name, object_server.endpoint)
    named = new_location(object_server.endpoint)
    open_object_storage(named).put_new("d/a", b"x")
    assert open_object_storage(replace(named, endpoint=None)).read("d/a", 10) == b"x"
    elsewhere = replace(named, endpoint="http://127.0.0.1:1")
    with pytest.raises(StorageError, match="cannot reach the store"):
        open_object_storage(elsewhere, replace(IMPATIENT, first_s=0.1)).read("d/a", 10)


def test_a_process_opens_a_target_once_for_each_of_its_credentials(files):
    write(files / "credentials", FILE)
    location = new_location("http://127.0.0.1:1")
    first = shared_object_storage(location)
    assert shared_object_storage(location) is first
    assert shared_object_storage(new_location("http://127.0.0.1:1")) is not first
    write(files / "credentials", FILE.replace("default-key", "rotated-key"))
    rotated = shared_object_storage(location)
    assert rotated is not first
    assert rotated == first
    assert shared_object_storage(location) is rotated
    write(files / "credentials", "[empty]")
    with pytest.raises(StorageError, match="no credentials"):
        shared_object_storage(location)


def test_few_targets_stay_open(files):
    write(files / "credentials", FILE)
    first = new_location("http://127.0.0.1:1")
    opened = shared_object_storage(first)
    for _ in range(20):
        shared_object_storage(new_location("http://127.0.0.1:1"))
    assert shared_object_storage(first) is not opened
