"""Requests of three processes in random order, with delays, lost answers and deaths.

Between any two requests others may go on and time pass, as much as a third of a lease. What a
process is sure of, after `acquire` and after `require`, must hold: nobody else is sure meanwhile.
"""

import random
import threading
from types import SimpleNamespace

from filelock import Timeout

from mri_jax import leases
from mri_jax.errors import UserError
from mri_jax.leases import LEASE, Lease

PROCESSES, ATTEMPTS, WORLDS = 3, 6, 200
DELAYS = (0, 0.1, 1, LEASE / 10, LEASE / 3)


class World:
    """A bucket, a clock, and processes of which one runs at a time."""

    def __init__(self, seed):
        self.random, self.now, self.objects = random.Random(seed), 0.0, {}
        self.sure_until, self.at_once = {}, []
        self.taken = self.lost = 0
        self._turns = [threading.Semaphore(0) for _ in range(PROCESSES)]
        self._yielded, self._running = threading.Semaphore(0), set(range(PROCESSES))

    def run(self):
        threads = [threading.Thread(target=self._process, args=(i,)) for i in range(PROCESSES)]
        for thread in threads:
            thread.start()
        turn = -1
        while self._running:
            if turn not in self._running or self.random.random() < 0.3:  # else it goes on
                turn = self.random.choice(sorted(self._running))
            self.now += self.random.choice(DELAYS)
            self._turns[turn].release()
            self._yielded.acquire()
        for thread in threads:
            thread.join()

    def others_go_on(self, process):
        self._yielded.release()
        self._turns[process].acquire()

    def _process(self, process):
        self._turns[process].acquire()
        for _ in range(ATTEMPTS):
            # Each looks for itself: they share no memory.
            lease = Lease(f"lock/{process}", _Storage(self, process))
            try:
                lease.acquire(timeout=LEASE * self.random.choice((0, 2)))
            except (Timeout, OSError):
                continue
            self.taken += 1
            try:
                for _ in range(self.random.randrange(6)):
                    self._sure(process, lease)
                    for _ in range(self.random.choice((0, 0, 1, 4))):
                        self.others_go_on(process)
                    lease.require()
                self._sure(process, lease)
            except UserError:
                self.lost += 1
            if self.random.random() < 0.7:  # else it dies
                self.sure_until.pop(process, None)
                lease.release()
            self.others_go_on(process)
        self._running.discard(process)
        self._yielded.release()

    def _sure(self, process, lease):
        for other, until in self.sure_until.items():
            if other != process and until > self.now:
                self.at_once.append((process, other, self.now, until))
        self.sure_until[process] = lease._sure_until


class _Storage:
    """The bucket of a world, as one process sees it."""

    def __init__(self, world, process):
        self._world, self._process = world, process

    def ls(self, path, detail):
        self._wait()
        return list(self._world.objects)

    def cat_file(self, path):
        self._wait()
        try:
            return self._world.objects[path[-6:]]
        except KeyError:
            raise FileNotFoundError from None

    def pipe_file(self, path, data, mode="overwrite"):
        self._wait()
        if mode == "create" and path[-6:] in self._world.objects:
            raise FileExistsError
        self._world.objects[path[-6:]] = data
        if self._world.random.random() < 0.03:  # the answer is lost; the request may be repeated
            repeated = mode == "create" and self._world.random.random() < 0.5
            raise FileExistsError if repeated else OSError

    def rm_file(self, path):
        self._wait()
        self._world.objects.pop(path[-6:], None)

    def _wait(self):
        self._world.others_go_on(self._process)
        if self._world.random.random() < 0.02:
            raise OSError("no route to host")


def test_never_are_two_sure_of_one_lease(monkeypatch):
    class NoThread:  # renewals are those of `require`
        def __init__(self, **of):
            pass

        def start(self):
            pass

    own = SimpleNamespace(Lock=threading.Lock, Event=threading.Event, Thread=NoThread)
    monkeypatch.setattr(leases, "threading", own)
    taken = lost = 0
    for seed in range(WORLDS):
        world = World(seed)
        clock = SimpleNamespace(monotonic=lambda world=world: world.now, sleep=lambda _: None)
        monkeypatch.setattr(leases, "time", clock)
        monkeypatch.setattr(leases, "_SEEN", {})
        world.run()
        assert world.at_once == [], seed
        taken, lost = taken + world.taken, lost + world.lost
    assert taken > 3 * WORLDS
    assert lost > WORLDS / 2
