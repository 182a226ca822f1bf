"""What core/remote promises, once more between two processes: its own tests, through frames."""

import contextlib
import os
import socket
from types import SimpleNamespace

import msgspec
import pytest

from openqmail.core.queue import FileBody
from openqmail.core.service.frames.remote import RemoteClient, RemoteServer
from openqmail.core.world import PosixDisk
from spawned import descriptors, left_open, load, others_tests, until


@pytest.fixture
def scene(tmp_path, request):
    """The module scene, with remotes that are asked through a socket."""
    direct = load("remote/scene.py")
    before = descriptors()

    def on_disk(job):
        """A large body has a file, as the queue's have."""
        if job.body.data is not None:
            return job
        path = tmp_path / "body"
        path.write_bytes(b"".join(job.body.chunks()))
        return msgspec.structs.replace(
            job, body=FileBody(PosixDisk(), os.fsencode(path), 0, path.stat().st_size)
        )

    @contextlib.asynccontextmanager
    async def remote(given, **more):
        async with direct.remote(given, **more) as real:
            ours, theirs = socket.socketpair()
            client, server = RemoteClient(), RemoteServer(real)
            server.serve(theirs)
            client.attach(ours)
            yield SimpleNamespace(
                deliver=lambda job: client.deliver(on_disk(job)), reconfigure=real.reconfigure, log=real.log
            )
            await real.close()
            await until(lambda: not server.active)
            await until(lambda: not client._newest._under_way)
            await client.close()
            await until(lambda: server.idle)

    yield SimpleNamespace(**{**vars(direct), "remote": remote})
    libuvs_own = 2 * ("uvloop" in request.node.name)
    assert left_open(before) <= libuvs_own


globals().update(others_tests("remote/test_delivery.py"))
globals().update(others_tests("remote/test_vectors.py"))
globals().update(
    others_tests(
        "remote/test_large.py",
        (  # these watch how a body in this process is read
            "test_a_large_body_arrives_whole_and_is_never_read_on_the_loop",
            "test_a_peer_that_stops_reading_is_given_up_and_memory_does_not_grow",
            "test_a_body_that_cannot_be_read_to_its_end_is_deferred_and_never_looks_whole",
        ),
    )
)
