"""What core/local promises, once more between processes: its own tests, through frames."""

import asyncio
import os
from types import SimpleNamespace

import msgspec
import pytest

from openqmail.core.control import Home, Users
from openqmail.core.local import LocalDeliveries
from openqmail.core.queue import FileBody
from openqmail.core.service.frames.local_client import LocalClient
from openqmail.core.world import PosixDisk
from spawned import Spawner, descriptors, left_open, load, others_tests

OWNER = (7, 7)


class Rig(load("local/conftest.py").Rig):
    """Its home's deliveries are asked for through sockets."""

    def run(self, story):
        async def life():
            local = LocalDeliveries(Home(str(self.root)), self.settings, self.disk, self.clock)
            spawner = Spawner(lambda uid, gid: local, lambda _: OWNER)
            client = LocalClient(Users(str(self.root / "users" / "cdb")), (8, 8), OWNER)
            client.attach(spawner.connection)
            try:
                return await story(
                    SimpleNamespace(
                        deliver=lambda job: client.deliver(self._on_disk(job)),
                        sync=client.sync,
                        check=client.check,
                        reconfigure=local.reconfigure,
                    )
                )
            finally:
                await client.close()
                await local.close()
                spawner.close()

        return asyncio.run(life())

    def _on_disk(self, job):
        """A large body has a file, as the queue's have."""
        if job.body.data is not None:
            return job
        path = self.root / f"body-{job.delivery}"
        path.write_bytes(b"".join(job.body.chunks()))
        return msgspec.structs.replace(job, body=FileBody(PosixDisk(), os.fsencode(path), 0, job.body.size))


@pytest.fixture
def rig(tmp_path):
    before = descriptors()
    yield Rig(tmp_path)
    assert not left_open(before)


ELSEWHERE = {
    "local/test_deliveries.py": ("test_a_small_message_is_there_when_deliver_returns",),  # a turn later
    # A client does not ask for files that it knows nothing of, or has asked for.
    "local/test_durability.py": (
        "test_a_slow_or_failed_sync_makes_the_file_system_sync_singly_for_a_minute",
        "test_a_folder_that_was_never_met_is_synced_singly",
    ),
    "local/test_again.py": (),
    "local/test_synced.py": (),
    "local/test_plans.py": (),
    "local/test_check.py": (),
}
for path, without in ELSEWHERE.items():
    globals().update(others_tests(path, without))
