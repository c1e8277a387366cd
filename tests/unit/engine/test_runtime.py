"""engine/runtime.py: what a run shares, made from the configuration."""

from pathlib import Path

import pytest

from virtbackup_async.config.schema import Config, Group
from virtbackup_async.engine.runtime import build_environment


async def test_groups_keep_to_the_limit_of_the_run_and_to_their_own():
    groups = {
        "slow": Group("slow", None, rate_limit=1000),
        "other": Group("other", None),
    }
    config = Config(Path("config.yml"), groups=groups, rate_limit=5000)
    environment = build_environment(config, None, lambda _event: None)
    (run,) = environment.limits_of("other")
    assert environment.limits_of("slow")[0] is run
    waits = [limit.reserve(10_000) for limit in environment.limits_of("slow")]
    assert waits == pytest.approx([2, 10])


def test_there_is_no_limit_unless_it_is_asked_for():
    config = Config(Path("config.yml"), groups={"g": Group("g", None)})
    assert build_environment(config, None, lambda _event: None).limits_of("g") == ()
