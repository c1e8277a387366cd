"""A domain of the lab, and the installed command on it."""

import json
from pathlib import Path

from e2e.command import virtbackup, write_config
from lab.domains import LabDomain
from lab.libvirt_root import Daemon


class LabSite:
    """One domain, its target, and a configuration with both."""

    def __init__(self, daemon: Daemon, domain: LabDomain, root: Path, **group):
        self.daemon = daemon
        self.domain = domain
        self.name = domain.name
        self.restored = root / "restored"
        self.target = root / "target"
        self.config = write_config(root, daemon.uri, [self.name], packager="directory", **group)

    def attempt(self, *words):
        """Run the command, which may fail."""
        return virtbackup("-c", self.config, *words)

    def run(self, *words):
        done = self.attempt(*words)
        assert done.returncode == 0, done.stderr
        return done

    def restore(self, *words):
        return self.run("restore", "all", self.name, *words)

    @property
    def definition_path(self):
        """The one definition."""
        (path,) = (self.target / self.name).glob("*.json")
        return path

    def definition(self):
        return json.loads(self.definition_path.read_text())

    def undefine(self, *flags):
        self.domain.destroy()
        self.daemon.virsh("undefine", self.name, *flags)
