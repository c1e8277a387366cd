"""A target of definitions with empty packages, and configurations for it."""

import json
import time
from datetime import UTC, datetime

import pytest
import yaml

from virtbackup_async.config.loading import load_config

DATE = 1772331300  # 2026-03-01T02:15:00Z


@pytest.fixture
def berlin(monkeypatch):
    """Local time is an hour ahead of UTC in winter, two in summer."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def configure(tmp_path):
    def configure(**groups):
        (tmp_path / "t").mkdir(exist_ok=True)
        path = tmp_path / "config.yml"
        default = {"target": str(tmp_path / "t")}
        path.write_text(yaml.safe_dump({"default": default, "groups": groups}))
        return load_config(path)

    return configure


@pytest.fixture
def put(tmp_path):
    def put(domain, date=DATE, *, target="t", domain_id=3, **changed):
        stamp = datetime.fromtimestamp(date, UTC).astimezone().strftime("%Y%m%d-%H%M%S")
        name = f"{stamp}_{domain_id}_{domain}"
        directory = tmp_path / target / domain
        directory.mkdir(parents=True, exist_ok=True)
        file = f"{name}_vda.qcow2"
        (directory / file).touch()
        raw = {
            "name": name,
            "domain_id": domain_id,
            "domain_name": domain,
            "domain_xml": "<domain/>",
            "disks": {"vda": file},
            "version": "0.5.6",
            "date": date,
            "packager": {"type": "directory", "opts": {}},
        }
        (directory / f"{name}.json").write_text(json.dumps(raw | changed))
        return name

    return put
