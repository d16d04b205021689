"""Locks of a bucket, on a file system in memory and, where many race, on the local bucket."""

import contextlib
import itertools
import json
import threading
import time

import pytest
from filelock import Timeout
from fsspec.implementations.memory import MemoryFileSystem
from gcsfs.core import GCSFileSystem

from mri_jax import leases
from mri_jax.errors import UserError
from mri_jax.leases import LEASE, Lease
from tests.bucket import served

_PLACES = itertools.count()


class Storage(MemoryFileSystem):
    """Memory that can be out of reach, and does things before and after an object is created."""

    cachable = False

    def __init__(self):
        super().__init__()
        self.gone = False
        self.before = self.after = lambda: None

    def ls(self, path, detail=True, **more):
        if self.gone:
            raise OSError("no route to host")
        return super().ls(path, detail, **more)

    def pipe_file(self, path, value, mode="overwrite", **more):
        if mode == "create":
            self.before()
        super().pipe_file(path, value, mode, **more)
        if mode == "create":
            self.after()


@pytest.fixture
def storage():
    return Storage()


@pytest.fixture
def path():
    return f"/leases/{next(_PLACES)}"


class Clock:
    """Time that passes while something sleeps, and what else happens then."""

    def __init__(self):
        self.now = 1000.0
        self.meanwhile = lambda: None

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.meanwhile()


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """The clock of all leases. Their threads, which wait by another one, come to nothing."""
    clock = Clock()
    monkeypatch.setattr(leases, "time", clock)
    return clock


def numbers(storage, path):
    return [int(name[-6:]) for name in storage.ls(path, detail=False)]


def put(storage, path, number, **content):
    """What another process would write that holds a lease."""
    data = json.dumps({"host": "elsewhere", "process": 7, "released": False, **content})
    storage.pipe_file(f"{path}/{number:06d}", data.encode())


def test_one_holds_it_and_the_next_when_it_is_released(storage, path):
    one, other = Lease(path, storage), Lease(path, storage)
    with one.acquire(timeout=0):
        with pytest.raises(Timeout):
            other.acquire(timeout=0)
        one.require()
    with other.acquire(timeout=0), pytest.raises(Timeout):
        one.acquire(timeout=0)
    with one.acquire(timeout=0):
        pass
    assert numbers(storage, path) == [3]  # the last one stays, so that no number comes twice


def test_a_holder_that_lives_keeps_it_and_one_that_waits_gets_it_when_it_is_released(
    storage, path, clock
):
    with Lease(path, storage).acquire() as held:
        clock.meanwhile = held.require
        with pytest.raises(Timeout):
            Lease(path, storage).acquire(timeout=5 * LEASE)
        said, begun = [], clock.now
        with pytest.raises(Timeout):
            Lease(path, storage).claim(said.append)
        assert clock.now - begun < LEASE / 4  # as soon as it was renewed
        assert len(said) == 1
        assert "holds it; waiting 60 s" in said[0]
        begun = clock.now
        clock.meanwhile = lambda: held.release() if clock.now > begun + LEASE / 2 else None
        with Lease(path, storage).acquire():
            assert LEASE / 2 < clock.now - begun < 0.6 * LEASE


@pytest.mark.parametrize("content", [b"{", b'{"released": false, "renewed": 3}'])
def test_a_silent_holder_is_followed_after_the_lease_and_no_sooner(storage, path, clock, content):
    storage.pipe_file(f"{path}/000012", content)
    begun = clock.now
    with pytest.raises(Timeout):
        Lease(path, storage).acquire(timeout=LEASE / 2)
    with Lease(path, storage).claim(lambda line: None):  # goes on watching what the first one saw
        assert LEASE <= clock.now - begun < 1.1 * LEASE
        assert numbers(storage, path) == [12, 13]
    assert numbers(storage, path) == [13]


def test_watching_several_takes_as_long_as_watching_one(storage, path, clock):
    several = [Lease(f"{path}/{name}", storage) for name in "abc"]
    for name in "abc":
        put(storage, f"{path}/{name}", 1)
    begun = clock.now
    for lease in several:
        lease.watch()
    for lease in several:
        lease.acquire().release()
    assert LEASE <= clock.now - begun < 1.1 * LEASE


def test_who_has_lost_it_is_told_and_leaves_it_alone(storage, path, clock):
    lease = Lease(path, storage).acquire()
    put(storage, path, 2)
    with pytest.raises(UserError, match="process 7 on elsewhere holds it since") as told:
        lease.require()
    assert "\n" not in str(told.value)
    lease.release()
    assert json.loads(storage.cat_file(f"{path}/000002"))["released"] is False
    with pytest.raises(Timeout):
        Lease(path, storage).acquire(timeout=0)


def test_without_the_network_it_lasts_for_a_lease_and_no_longer(storage, path, clock):
    with Lease(path, storage).acquire() as lease:
        storage.gone = True
        clock.sleep(0.9 * LEASE)
        lease.require()
        clock.sleep(0.2 * LEASE)
        with pytest.raises(UserError, match=r"not be renewed in time \(no route to host\)"):
            lease.require()
        storage.gone = False
        lease.require()  # nobody took it: it is taken anew, as anyone could
        assert numbers(storage, path) == [1, 2]
        clock.sleep(1.1 * LEASE)
        storage.before = lambda: put(storage, path, 3)  # another one is faster
        with pytest.raises(UserError, match="could not be taken anew"):
            lease.require()


def test_a_lease_is_renewed_beside_the_work(storage, path, monkeypatch):
    monkeypatch.setattr(leases, "time", time)
    monkeypatch.setattr(leases, "LEASE", 2.0)

    def renewed():
        return json.loads(storage.cat_file(f"{path}/000001"))["renewed"]

    with Lease(path, storage).acquire():
        deadline = time.monotonic() + 60
        while renewed() < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert renewed() >= 2
    left = storage.cat_file(f"{path}/000001")
    time.sleep(leases.LEASE / 2)
    assert storage.cat_file(f"{path}/000001") == left  # and no longer when it is released


def test_an_answer_that_was_lost_does_not_lose_the_lease(storage, path):
    def repeated():
        raise FileExistsError

    storage.after = repeated
    with Lease(path, storage).acquire(timeout=0) as lease:
        lease.require()


def test_a_number_that_was_used_and_removed_meanwhile_is_none(storage, path):
    def others():  # came, went, and one of them holds it now
        storage.before = lambda: None
        put(storage, path, 3)

    storage.before = others
    with pytest.raises(Timeout):
        Lease(path, storage).acquire(timeout=0)
    assert numbers(storage, path) == [3]


def test_of_many_at_once_exactly_one_gets_it_each_time():
    many, rounds = 6, 8
    together = threading.Barrier(many)
    won: list[list[Lease]] = [[] for _ in range(rounds)]

    def race(storage):
        lease = Lease("bucket/lock", storage)
        for winners in won:
            together.wait()
            with contextlib.suppress(Timeout):
                winners.append(lease.acquire(timeout=0))
            together.wait()
            if lease in winners:
                lease.release()

    with served() as bucket:
        storages = [
            GCSFileSystem(
                endpoint_url=bucket.address, token="anon", use_listings_cache=False,
                skip_instance_cache=True,
            )
            for _ in range(many)
        ]  # fmt: skip
        threads = [threading.Thread(target=race, args=(storage,)) for storage in storages]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [len(winners) for winners in won] == [1] * rounds
        assert bucket.names("lock/.*") == [f"lock/{rounds:06d}"]
        assert bucket.unknown == []


def test_who_comes_second_to_a_number_leaves_the_first_one_s_object(storage, path):
    winner, slower = Lease(path, Storage()), Lease(path, storage)

    def taken_meanwhile():
        storage.before = lambda: None
        winner.acquire(timeout=0)

    storage.before = taken_meanwhile
    with pytest.raises(Timeout):
        slower.acquire(timeout=0)
    winner.require()
    assert storage.ls(path, detail=False) == [f"{path}/000001"]
