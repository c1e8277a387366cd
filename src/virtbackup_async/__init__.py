"""Concurrent backup and restore of libvirt/KVM virtual machines.

The folders are the layers, from the admin down to plain values: ``cli``, ``engine``, then side by
side ``config``, ``catalog``, ``hypervisor`` and ``packagers``, then ``images``, ``processes``,
``compat``, and at the bottom ``model``, ``events`` and ``errors``. A layer imports only what stands
below it; the import linter enforces that.
"""

__version__ = "1.1.0"
