"""The connection to libvirt; no other layer imports libvirt.

``open_hypervisor`` opens a connection whose every call runs in a worker thread, and whose events
arrive on the asyncio loop. This layer returns values of ``model`` and raises errors of ``errors``.
"""

from virtbackup_async.hypervisor.domain import Domain
from virtbackup_async.hypervisor.hypervisor import Hypervisor, open_hypervisor

__all__ = ["Domain", "Hypervisor", "open_hypervisor"]
