"""Everything libvirt, and nothing else: the only layer that imports it.

``open_hypervisor`` gives a connection whose every call runs in a worker thread, and whose events
arrive on the asyncio loop. What leaves this layer is values of ``model`` and errors of ``errors``.
"""

from virtbackup_async.hypervisor.connection import Hypervisor, open_hypervisor
from virtbackup_async.hypervisor.domain import Domain

__all__ = ["Domain", "Hypervisor", "open_hypervisor"]
