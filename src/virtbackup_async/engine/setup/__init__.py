"""Sets this host up: looks around, proposes a configuration, writes it; and the systemd units."""
