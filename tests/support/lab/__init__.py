"""The lab: real guests on a real, private libvirt, for tests, the demo and the benchmarks.

Nothing is simulated and nothing of the host's libvirt is touched. A guest boots in four seconds
under TCG, with ext4 disks and the QEMU guest agent. Usage (``PYTHONPATH=tests/support``)::

    from lab.disks import DiskSpec
    from lab.domains import define, running
    from lab.libvirt_root import open_daemon

    with open_daemon() as daemon:                  # daemon.uri, daemon.images, daemon.virsh("list")
        disks = [DiskSpec("vda"), DiskSpec("vdb", format="raw"), DiskSpec("vdc", backing=2)]
        with running(daemon, "web-1", disks, writer="vda") as domain:     # started, agent answers
            domain.guest_exec("echo hello >/mnt/vda/file; sync")          # shell in the guest
            domain.qemu_io("vdb", "write -P 9 5M 128k")                   # writes without the guest
            domain.agent("guest-fsfreeze-status")                         # "thawed"
            domain.images(); domain.images(inactive=True)                 # {"vda": Path(...), ...}
            daemon.kill(); daemon.start()                                 # the guest runs on
            domain.guest_shutdown(); domain.state()                       # "shut off"
        shut_off = define(daemon, "web-2", [DiskSpec("vda")])             # defined, not started

All of it blocks; from an async test use ``anyio.to_thread.run_sync``. It drives libvirt through
``virsh`` processes, so it needs no event loop and shares nothing with the code under test.
``open_embedded()`` gives ``qemu:///embed?root=...`` instead: one client process at a time.
By hand: ``python -m lab shell``; see docs/contributing/lab.md.
"""
