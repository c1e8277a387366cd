"""config/target_value.py: what a target may be, and what no message repeats."""

from pathlib import Path

import pytest

from virtbackup_async.config.loading import examine_text
from virtbackup_async.config.saved_copy import dumps
from virtbackup_async.errors import StorageError
from virtbackup_async.model.storage_location import StorageLocation

GROUP = "groups: {{g: {{packager: repository, target: {}}}}}"


def examined(target):
    config, problems = examine_text(GROUP.format(target).encode(), Path("c.yml"))
    return config.groups["g"].target, [str(error) for error in problems.errors]


def located(target):
    location, errors = examined(target)
    assert errors == []
    return location


def refusal(target):
    """Return the one line that refuses a target."""
    _, (line,) = examined(target)
    assert "\n" not in line
    return line


def test_a_directory_is_one():
    assert located("/srv/backup") == StorageLocation.of("/srv/backup")
    assert located("/srv//backup/") == StorageLocation.of("/srv/backup")
    assert located("/srv/s3://x").directory == Path("/srv/s3:/x")


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("s3://backups", "backups"),
        ("s3://backups/", "backups"),
        ("s3://backups/berlin/kvm-1", "backups/berlin/kvm-1"),
        ("s3://back.ups-1/...", "back.ups-1/..."),
    ],
)
def test_a_url_is_a_bucket_and_a_prefix(url, path):
    location = located(url)
    assert location == StorageLocation("s3", path)
    assert not location.is_local
    with pytest.raises(StorageError, match="not a local directory"):
        _ = location.directory


@pytest.mark.parametrize("kind", ["gs", "az"])
def test_a_bucket_may_be_of_another_provider(kind):
    assert located(f"{kind}://backups/berlin/") == StorageLocation(kind, "backups/berlin")
    endpoint = "http://127.0.0.1:10000"
    assert located(f"{{url: {kind}://backups, endpoint: '{endpoint}'}}") == StorageLocation(
        kind, "backups", endpoint=endpoint
    )
    assert "profile, region: only an s3:// target has that" in refusal(
        f"{{url: {kind}://backups, region: a, profile: b}}"
    )


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("ssh://nas/srv/backups", "nas/srv/backups"),
        ("ssh://backup@nas.example.org:2222/srv/", "backup@nas.example.org:2222/srv"),
        ("'ssh://[2001:db8::1]/srv'", "[2001:db8::1]/srv"),
        ("{url: ssh://backup@nas/srv, region: }", "backup@nas/srv"),
    ],
)
def test_a_url_is_a_directory_on_a_host(url, path):
    assert located(url) == StorageLocation("ssh", path)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("ssh://nas", "ssh://[USER@]HOST[:PORT]/DIRECTORY"),
        ("ssh://-oProxyCommand=x/srv", "ssh://[USER@]HOST[:PORT]/DIRECTORY"),
        ("ssh://nas/srv/../etc", "ssh://[USER@]HOST[:PORT]/DIRECTORY"),
        ("ssh://backup@nas/a b", "ssh://[USER@]HOST[:PORT]/DIRECTORY"),
        ("{url: ssh://nas/srv, region: eu-1}", "region: only a target in an object store"),
        ("{url: ssh://nas/srv, create_bucket: true}", "create_bucket: only a target in an object"),
    ],
)
def test_no_other_host_is_one(target, words):
    assert words in refusal(target)


@pytest.mark.parametrize("target", ["ssh://backup:hunter2@nas/srv", "ssh://a@hunter2@nas/srv"])
def test_a_password_of_a_host_is_not_repeated(target):
    assert "hunter2" not in refusal(target)


def test_a_mapping_says_more():
    location = located(
        "{url: s3://backups/a, endpoint: 'http://127.0.0.1:8333', region: eu-1, profile: kvm, "
        "create_bucket: true}"
    )
    assert location == StorageLocation(
        "s3", "backups/a", "http://127.0.0.1:8333", "eu-1", "kvm", create_bucket=True
    )
    assert str(location) == "s3://backups/a"


def test_a_key_without_a_value_is_as_if_it_were_not_there():
    assert located("{url: s3://backups, endpoint: , region: null}") == StorageLocation(
        "s3", "backups"
    )


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("ftp://host/x", "found 'ftp://host/x', expected s3://BUCKET"),
        ("S3://backups", "found 'S3://backups', expected s3://BUCKET"),
        ("s3://", "expected s3://BUCKET"),
        ("s3://UPPER", "expected s3://BUCKET"),
        ("s3://backups/../other", "expected s3://BUCKET"),
        ("s3://backups//x", "expected s3://BUCKET"),
        ("'s3://backups/x?versionId=1'", "expected s3://BUCKET"),
        ("s3://backups/a b", "expected s3://BUCKET"),
        ("'s3://backups/a#b'", "expected s3://BUCKET"),
        (r'"s3://backups/a\nb"', "expected s3://BUCKET"),
        (r'"s3://backups\n"', "expected s3://BUCKET"),
        ("[s3://backups]", "found a list"),
        ("{}", "url is missing, expected s3://BUCKET"),
        ("{url: 5}", "url is missing"),
        ("{url: /srv/backup}", "url: found '/srv/backup', expected s3://BUCKET"),
        ("{url: s3://backups, bucket: x}", "unknown key 'bucket', expected only url, endpoint"),
        ("{url: s3://backups, 5: x}", "unknown key '5'"),
        ("{url: s3://backups, endpoint: host}", "endpoint: found 'host', expected the URL of a"),
        ("{url: s3://backups, create_bucket: 'yes'}", "create_bucket: found 'yes', expected true"),
        ("{url: s3://backups, region: ''}", "region: found '', expected a name"),
    ],
)
def test_what_names_no_target_is_refused(target, words):
    assert words in refusal(target)


@pytest.mark.parametrize(
    "target",
    [
        "s3://AKIA:hunter2@backups/x",
        "{url: 's3://AKIA:hunter2@backups'}",
        "{url: s3://backups, secret_access_key: hunter2}",
        "{url: s3://backups, access_key_id: hunter2}",
        "{url: s3://backups, session_token: hunter2}",
        "{url: s3://backups, endpoint: 'https://me:hunter2@host'}",
        "{url: s3://backups, profile: 'me:hunter2@host'}",
    ],
)
def test_credentials_are_refused_and_not_repeated(target):
    line = refusal(target)
    assert "hunter2" not in line
    assert "AKIA" not in line
    assert "credentials are not written here" in line


@pytest.mark.parametrize("packager", ["tar", "zstd", "directory"])
def test_only_a_repository_can_be_elsewhere(packager):
    text = f"default: {{target: s3://backups}}\ngroups: {{g: {{packager: {packager}}}}}"
    _, problems = examine_text(text.encode(), Path("c.yml"))
    (error,) = problems.errors
    assert error.message == (
        f"groups.g.target: {packager} packages need a directory: write `packager: repository` for "
        "s3://backups"
    )


def test_the_copy_of_the_configuration_names_the_same_target():
    text = (
        "groups: {g: {packager: repository, target: {url: s3://backups, profile: kvm, "
        "create_bucket: true}}, h: {target: /srv/backup}}"
    )
    config, _ = examine_text(text.encode(), Path("/c.yml"))
    again, problems = examine_text(dumps(config, "host"), Path("/copy.yml"))
    assert problems.errors == ()
    assert [group.target for group in again.groups.values()] == [
        group.target for group in config.groups.values()
    ]
