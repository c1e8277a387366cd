"""The example alerts: they parse, and watch metrics that there are."""

import re
from pathlib import Path

import yaml

from virtbackup_async.reporting.metrics import HELP

RULES = Path(__file__).parents[3] / "contrib" / "prometheus" / "virtbackup.rules.yml"


def rules():
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return group["rules"]


def test_each_alert_watches_metrics_that_there_are():
    for rule in rules():
        names = re.findall(r"virtbackup_\w+", rule["expr"])
        assert names, rule["alert"]
        assert set(names) <= set(HELP), rule["alert"]


def test_each_alert_has_a_name_of_its_own_a_severity_and_a_summary():
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    for rule in rules():
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert "{{ $" in rule["annotations"]["summary"]


def test_each_metric_is_documented():
    page = (RULES.parents[2] / "docs" / "how-to" / "operations.md").read_text()
    assert re.findall(r"^\| `(virtbackup_\w+)` \|", page, re.MULTILINE) == list(HELP)
