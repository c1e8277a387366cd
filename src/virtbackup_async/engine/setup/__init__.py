"""Sets this host up: surveys it, proposes and writes a configuration, installs systemd units."""
