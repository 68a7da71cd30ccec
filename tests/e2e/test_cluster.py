"""Three processes, each of which may be killed, stopped or frozen while clients write."""

import os
import signal

import pytest
from botocore.exceptions import BotoCoreError, ClientError

import harness
from harness import random_bytes
from test_crashes import BUCKET, Load, read


class Cluster:
    """Gateway, metadata and storage on ports that stay, so that each can be started again by itself."""

    def __init__(self, make_server):
        self.ports = {"storage": harness.free_port(), "metadata": harness.free_port()}
        storage, metadata = (f"127.0.0.1:{self.ports[name]}" for name in ("storage", "metadata"))
        common = 'cluster = "three"\n'
        self.storage = make_server(
            name="storage", start=False, config=f'roles = ["storage"]\n{common}[storage]\nlisten = "{storage}"\n'
        )
        self.metadata = make_server(
            name="metadata",
            start=False,
            config=f'roles = ["metadata"]\n{common}[metadata]\nlisten = "{metadata}"\nstorage = ["{storage}"]\n',
        )
        self.gateway = make_server(
            name="gateway",
            start=False,
            config=f'roles = ["gateway"]\n{common}[gateway]\nmetadata = "{metadata}"\nstorage = ["{storage}"]\n',
        )
        self.start_all()

    def start_all(self):
        self.storage.start("storage")
        self.metadata.start("metadata")
        self.gateway.start()

    @property
    def all(self):
        return (self.gateway, self.metadata, self.storage)


@pytest.fixture
def cluster(make_server):
    made = Cluster(make_server)
    made.gateway.s3().create_bucket(Bucket=BUCKET)
    return made


def works(cluster):
    """Whether an object can be written and read."""

    def both():
        s3 = cluster.gateway.s3(connect_timeout=5, read_timeout=30)
        s3.put_object(Bucket=BUCKET, Key="probe", Body=random_bytes(200_000))
        return read(s3, "probe") == random_bytes(200_000)

    return both


def test_every_acknowledged_change_survives_the_kill_of_all_processes_at_once(cluster):
    for seed in (51, 52):
        load = Load(cluster.gateway, seed)
        with load.running():
            load.wait_for(50)
            for server in cluster.all:
                os.killpg(server.process.pid, signal.SIGKILL)
            for server in cluster.all:
                server.process.wait()
        cluster.start_all()
        load.check(cluster.gateway.s3())


@pytest.mark.parametrize("victim", ["metadata", "storage"])
def test_a_gateway_outlives_the_others(cluster, victim):
    """While one is away clients are told so in time; when it is back everything goes on without a new gateway."""
    load = Load(cluster.gateway, seed=61)
    server = getattr(cluster, victim)
    with load.running():
        load.wait_for(30)
        server.kill()
        s3 = cluster.gateway.s3(read_timeout=90)
        with pytest.raises(ClientError) as error:
            s3.put_object(Bucket=BUCKET, Key="while away", Body=random_bytes(200_000))
        assert 500 <= harness.error_status(error.value) < 600, error.value
        server.start(victim)
        harness.wait_until(works(cluster), f"writes after {victim} came back")
        load.wait_for(10)
    load.check(cluster.gateway.s3())
    if victim == "storage":
        cluster.metadata.wait_healthy()
    for server in cluster.all:
        assert server.terminate() == 0


def test_a_frozen_storage_process_delays_but_loses_nothing(cluster):
    """A process that is stopped keeps its connections open and says nothing: deadlines have to notice."""
    s3 = cluster.gateway.s3(read_timeout=120)
    s3.put_object(Bucket=BUCKET, Key="before", Body=random_bytes(300_000))
    os.kill(cluster.storage.process.pid, signal.SIGSTOP)
    try:
        with pytest.raises((ClientError, BotoCoreError)) as error:
            s3.put_object(Bucket=BUCKET, Key="frozen", Body=random_bytes(300_000))
        if isinstance(error.value, ClientError):
            assert harness.error_status(error.value) in (500, 503), error.value
    finally:
        os.kill(cluster.storage.process.pid, signal.SIGCONT)
    harness.wait_until(works(cluster), "writes after the process went on")
    assert read(cluster.gateway.s3(), "before") == random_bytes(300_000)
    assert read(cluster.gateway.s3(), "frozen") in (b"(deleted)", random_bytes(300_000))
