"""Kills in earnest, at length (PUFFERJAX_NIGHTLY=1): of workers on a PostgreSQL server, of the server, of real runs."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import test_trials as fakes

pytestmark = pytest.mark.skipif(
    os.environ.get("PUFFERJAX_NIGHTLY") != "1", reason="minutes of kills and restarts: PUFFERJAX_NIGHTLY=1"
)


class Server:
    """A PostgreSQL server of this test on loopback; what Debian's package `postgresql` brings."""

    def __init__(self, folder):
        found = [shutil.which("initdb"), *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")))]
        programs = [Path(path).resolve().parent for path in found if path]
        if not programs:
            pytest.skip("no PostgreSQL server here (Debian: apt-get install postgresql)")
        pytest.importorskip("psycopg", reason="no driver: pip install 'pufferjax[postgresql]'")
        self._bin, self._data = programs[-1], folder / "data"
        # It refuses to run as root.
        self._user = {"user": "postgres"} if os.getuid() == 0 else {}
        if self._user:
            shutil.chown(folder, "postgres")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._call("initdb", "-D", self._data, "-U", "me", "--auth", "trust")
        self.url = f"postgresql://me@127.0.0.1:{self._port}/postgres"
        self.start()

    def _call(self, program, *arguments):
        done = subprocess.run([self._bin / program, *arguments], capture_output=True, text=True, cwd="/", **self._user)
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self):
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._data}"
        self._call("pg_ctl", "-D", self._data, "-w", "-l", self._data / "log", "-o", options, "start")

    def kill(self):
        """With all that it has started, at once."""
        pid = int((self._data / "postmaster.pid").read_text().split()[0])
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
        for number in [pid, *map(int, children.split())]:
            os.kill(number, signal.SIGKILL)
        time.sleep(1)
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def stop(self):
        self._call("pg_ctl", "-D", self._data, "-m", "immediate", "stop")


@pytest.fixture
def server():
    folder = Path(tempfile.mkdtemp(prefix="pufferjax-pg-"))
    found = Server(folder)
    yield found
    found.stop()
    shutil.rmtree(folder, ignore_errors=True)


def test_two_workers_on_postgresql_one_of_which_is_killed(tmp_path, server):
    output, sweep = fakes.kill_one_of_two(tmp_path, server.url)
    fakes.check_that_all_were_run_once(tmp_path, 6, sweep)
    assert "6 trials of demo: 6 finished" in output


def test_a_server_that_is_killed_and_comes_back_costs_nothing(tmp_path, server):
    began = tmp_path / "runs" / "demo" / "began.txt"
    arguments = ["--storage", server.url, "--grace-seconds", "60"]
    sweep = fakes.start(tmp_path, 1.0, "sweep", "maze", *fakes.FLAGS.split(), "--trials", 8, *arguments)
    fakes.wait_for(lambda: len(fakes.lines(began)) >= 2 or sweep.poll() is not None)
    assert sweep.poll() is None, sweep.stdout.read()
    server.kill()
    time.sleep(4)
    assert sweep.poll() is None, sweep.stdout.read()
    server.start()
    output = sweep.communicate(timeout=180)[0]
    assert sweep.returncode == 0 and "8 trials of demo: 8 finished" in output, output
    ended = fakes.lines(tmp_path / "runs" / "demo" / "ended.txt")
    assert Counter(name for name, *_ in ended) == {f"trial-{i:04d}": 1 for i in range(8)}


REAL = (
    "--num-envs 16 --horizon 16 --ppo.minibatch-size 64 --devices 1 --policy.hidden-size 8 --eval-episodes 16 "
    "--max-seconds 25 --checkpoint-interval-seconds 1 --sweep.ppo.learning-rate 1e-3 0.1 log --sweep-only "
    "ppo.learning-rate --trials 2 --name demo --grace-seconds 4"
)


def command(folder, *arguments):
    arguments = [sys.executable, "-m", "pufferjax", *map(str, arguments)]
    return subprocess.Popen(arguments, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_run_whose_sweep_is_killed_goes_on_from_its_checkpoint(tmp_path):
    runs = tmp_path / "runs" / "demo"
    sweep = command(tmp_path, "sweep", "chain_mdp", *REAL.split())
    checkpoints = runs / "trial-0000" / "checkpoints"
    fakes.wait_for(lambda: any(path.name.isdigit() and path.name != "0" for path in checkpoints.glob("*")))
    os.kill(sweep.pid, signal.SIGKILL)
    # Nothing of it goes on: its run ends with it, with a checkpoint.
    fakes.wait_for(lambda: (runs / "trial-0000" / "summary.json").exists(), 60)
    again = command(tmp_path, "sweep", "chain_mdp", *REAL.split())
    output = again.communicate(timeout=300)[0]
    assert again.returncode == 0 and "2 trials of demo: 2 finished" in output, output
    log = (runs / "logs" / "trial-0000.log").read_text()
    assert "stopped by SIGTERM" in log and "resumed after" in log and log.count("warm-up") <= 2
    assert sorted(path.name for path in runs.glob("trial*")) == ["trial-0000", "trial-0001"]
    # And its best is the run that its command trains.
    flags = output.splitlines()[-1].split()[3:]
    assert command(tmp_path, "train", "chain_mdp", *flags, "--run-dir", "best").wait(300) == 0
    best = output.split("The best, trial ")[1].split(",")[0]
    texts = [(path / "config.toml").read_text() for path in (tmp_path / "best", runs / f"trial-{int(best):04d}")]
    assert texts[0] == texts[1]
