import json
import sys

import dask
import pytest

from mri_jax.cluster.address import Cluster, connected
from mri_jax.errors import UserError


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("local:2", Cluster("local", workers=2)),
        ("slurm:40", Cluster("slurm", workers=40)),
        ("tcp://127.0.0.1:8786", Cluster("scheduler", "tcp://127.0.0.1:8786")),
        ("127.0.0.1:8786", Cluster("scheduler", "tcp://127.0.0.1:8786")),
        ("localhost:8786", Cluster("scheduler", "tcp://localhost:8786")),
        ("tcp://[::1]:8786", Cluster("scheduler", "tcp://[::1]:8786")),
        ("tls://node7:8786", Cluster("scheduler", "tls://node7:8786")),
    ],
)
def test_reads_every_form(text, meant):
    assert Cluster.parse(text) == meant


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "is not an existing file"),
        ("local", "needs a number of workers"),
        ("local:0", "needs a number of workers"),
        ("local:x", "needs a number of workers"),
        ("local:1000", "at most 256"),
        ("slurm:-1", "needs a number of workers"),
        ("scheduler.json", "is not an existing file"),
        ("node7", "is not an existing file"),
        ("tcp://node7", "is not an existing file"),
        ("http://127.0.0.1:8786", "is not an existing file"),
        ("kubernetes:4", "is not an existing file"),
    ],
)
def test_refuses_what_it_cannot_mean(text, rule):
    with pytest.raises(UserError, match=f"^--cluster: .*{rule}"):
        Cluster.parse(text)


@pytest.mark.parametrize("text", ["tcp://node7:8786", "10.0.0.7:8786", "localhost.evil.org:8786"])
def test_a_scheduler_that_anyone_could_use_needs_a_word(text):
    with pytest.raises(UserError, match="anyone who reaches a scheduler without TLS"):
        Cluster.parse(text)
    assert Cluster.parse(text, anyone=True).address.endswith(text.removeprefix("tcp://"))


def test_reads_the_file_of_a_scheduler(tmp_path):
    path = tmp_path / "scheduler.json"
    path.write_text(json.dumps({"address": "tls://10.0.0.7:8786"}), encoding="utf-8")
    assert Cluster.parse(str(path)) == Cluster("scheduler", "tls://10.0.0.7:8786")
    path.write_text(json.dumps({"address": "tcp://10.0.0.7:8786"}), encoding="utf-8")
    with pytest.raises(UserError, match="without TLS"):
        Cluster.parse(str(path))
    for wrong in ("", "[]", '{"address": 7}', "{}"):
        path.write_text(wrong, encoding="utf-8")
        with pytest.raises(UserError, match="is not a file that `dask scheduler` wrote"):
            Cluster.parse(str(path))


def test_no_scheduler_is_one_line(monkeypatch):
    monkeypatch.setattr("mri_jax.cluster.address._SCHEDULER_TIMEOUT", 0.5)
    cluster = Cluster.parse("tcp://127.0.0.1:9")
    with (
        pytest.raises(UserError, match=r"^--cluster: tcp://127\.0\.0\.1:9: no scheduler answers"),
        connected(cluster, print),
    ):
        pass


def test_a_certificate_that_is_not_there_is_named(monkeypatch, tmp_path):
    cluster, config = Cluster.parse("tls://127.0.0.1:9"), "distributed.comm.tls."

    def refused(told):
        with pytest.raises(UserError, match=told), connected(cluster, print):
            pass

    refused("needs a certificate, and DASK_DISTRIBUTED__COMM__TLS__CA_FILE is not set")
    there, absent = tmp_path / "cert.pem", tmp_path / "key.pem"
    there.touch()
    with dask.config.set({config + "ca-file": str(there)}):
        refused("TLS__CLIENT__CERT is not set")
        with dask.config.set({config + "client.cert": str(there)}):
            refused("TLS__CLIENT__KEY is not set")
        with dask.config.set({config + "client.cert": str(absent)}):
            refused(f"DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT: {absent}: no such file")


def test_absent_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"dask is not installed"), connected(Cluster("local"), id):
        pass
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    cluster = Cluster("slurm", workers=1)
    with pytest.raises(UserError, match=r"slurm:N needs dask-jobqueue"), connected(cluster, id):
        pass
