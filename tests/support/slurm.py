"""A real SLURM cluster of one node, this machine, with a key, ports and folders of its own."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
CONFIG = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket,cred_expire=5
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
KillWait=10
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1000
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=32 RealMemory=128000 Gres=gpu:4
PartitionName=tests Nodes={host} Default=YES
"""
"""CPUs, memory and GPUs to hand out, whatever the machine has. A requeued job waits `cred_expire` seconds, 120 where it is not set."""


def lacking() -> str | None:
    """Why there can be no cluster on this machine; None where there can."""
    missing = [name for name in (*DAEMONS, "sbatch") if located(name) is None]
    if missing:
        return f"no {', '.join(missing)}: needs the Debian packages slurm-wlm and munge"
    return None if os.geteuid() == 0 else "slurmd runs as root only"


def located(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


class Cluster:
    """`start` returns once the node takes jobs; `stop` ends the jobs and the daemons. Its folder goes with it.

    Raises RuntimeError, with the end of each daemon's log, where the node is not up within `patience` seconds.
    """

    def __init__(self, patience: float = 60.0) -> None:
        self.patience = patience
        self.daemons: list[subprocess.Popen] = []

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs, to talk to this cluster."""
        return {"SLURM_CONF": str(self.root / "slurm.conf")}

    def start(self) -> Cluster:
        self.root = Path(tempfile.mkdtemp(prefix="slurm-"))  # short: a socket's path has 107 characters
        self.root.chmod(0o755)  # munged wants its socket within reach of everybody
        try:
            self._configure()
            munge = [f"--{name}-file={self.root}/munge.{name}" for name in ("key", "pid", "log", "seed")]
            self._daemon("munged", "--foreground", f"--socket={self.root}/munge.socket", *munge)
            self._wait_for("munged", (self.root / "munge.socket").exists)
            self._daemon("slurmctld", "-D", "-i")
            self._daemon("slurmd", "-D")
            self._wait_for("the node", lambda: self.ask("sinfo", "--noheader", "--format=%T").strip() == "idle")
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        if len(self.daemons) == len(DAEMONS):
            self._end_jobs()
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self.daemons.clear()
        shutil.rmtree(self.root, ignore_errors=True)

    def ask(self, *command: str) -> str:
        """Standard output of one of SLURM's commands; empty where it failed."""
        environment = os.environ | self.environment
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60).stdout

    def jobs(self, *filters: str) -> list[str]:
        """The jobs that are not over, an array's one by one: ["3", "4_0", "4_1"]."""
        return self.ask("squeue", "--noheader", "--array", "--format=%i", *filters).split()

    def describe(self, job: str) -> str:
        """All that SLURM knows of a job, for some minutes after its end too."""
        return self.ask("scontrol", "show", "job", job)

    def logs(self) -> str:
        """The last lines of every daemon's log."""
        tails = ((path.name, path.read_text(errors="replace").splitlines()[-15:]) for path in sorted(self.root.glob("*log")))
        return "\n".join(line for name, lines in tails for line in (f"--- {name}", *lines))

    def _configure(self) -> None:
        host = socket.gethostname().split(".")[0]
        controller, node = free_ports(2)
        for name in ("state", "spool"):
            (self.root / name).mkdir()
        for number in range(4):
            (self.root / f"gpu{number}").touch()
        (self.root / "gres.conf").write_text(f"Name=gpu File={self.root}/gpu[0-3]\n")
        (self.root / "slurm.conf").write_text(CONFIG.format(root=self.root, host=host, controller=controller, node=node))
        key = self.root / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))

    def _daemon(self, name: str, *arguments: str) -> None:
        command = ["setpriv", "--pdeathsig", "TERM", located(name), *arguments]  # none outlives its tests, whatever ends them
        with (self.root / f"{name}.log").open("ab") as log:
            self.daemons.append(
                subprocess.Popen(command, env=os.environ | self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            )

    def _wait_for(self, what: str, up: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self.patience
        while not up():
            if time.monotonic() > deadline or any(daemon.poll() is not None for daemon in self.daemons):
                raise RuntimeError(f"{what} did not come up\n{self.logs()}")
            time.sleep(0.1)

    def _end_jobs(self) -> None:
        deadline = time.monotonic() + 20
        while self.jobs() and time.monotonic() < deadline:
            self.ask("scancel", "--full", "--signal=KILL", "--user=root")
            self.ask("scancel", "--user=root")
            time.sleep(0.2)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on at the moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
