"""The sandbox around methods: what they try from inside and what they are told, in each way of confining them."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from submitting import submission

from outlearn.artifacts import LocalArtifactStore
from outlearn.errors import PermissionDeniedError
from outlearn.identity import Caller
from outlearn.testing import connect
from outlearn_training import service
from outlearn_training.catalogue import find_method
from outlearn_training.queue.run_queue import RunQueue
from outlearn_training.sandbox import mechanisms
from outlearn_training.sandbox.bubblewrap import has_bubblewrap
from outlearn_training.sandbox.host import max_threads
from outlearn_training.sandbox.landlock import landlock_version
from outlearn_training.sandbox.limits import count_cores, share_of_cores
from outlearn_training.sandbox.mechanisms import check_confinement, describe_mechanisms, find_mechanisms
from outlearn_training.sandbox.seccomp import build_filter, has_seccomp
from outlearn_training.sandbox.syscalls import BY_ARGUMENT, MACHINES, NEVER, ON_ITSELF, Machine
from outlearn_training.server import build
from outlearn_training.service import TrainingService
from outlearn_training.settings import TrainingSettings
from outlearn_training.workers import worker

from .test_method_attacks import Idle, attack, run_attack
from .test_training_server import GOOD, finish, read_text, serving, settings_for, until, write_method

confined = pytest.mark.skipif(
    landlock_version() < 1 or not has_seccomp(), reason="this system has no Landlock, or no seccomp"
)

PREPARE = """
import ctypes, fcntl, mmap, resource, socket, subprocess, threading
held, libc = [], ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    libc.syscall.restype = ctypes.c_long
    numbers = {numbers!r}
    if libc.syscall(ctypes.c_long(numbers[name]), *arguments) < 0:
        raise OSError(ctypes.get_errno(), name)
def signal_by_pipe():
    reader, _ = os.pipe()
    fcntl.fcntl(reader, fcntl.F_SETOWN, {other})
secret, card, other, own = {secret!r}, {card!r}, {other}, out() / "own"
own.touch()
"""
ATTEMPTS = {
    "change a mode": "os.chmod(secret, 0o777)",
    "change a public mode": "os.chmod(card, 0o600)",
    "change a mode by descriptor": "os.fchmod(os.open(own, os.O_RDONLY), 0o600)",
    "change an owner": "os.chown(secret, 1, 1)",
    "change a link's owner": "os.lchown(secret, 1, 1)",
    "change times": "os.utime(secret)",
    "set an attribute": "os.setxattr(own, 'user.x', b'x')",
    "remove an attribute": "os.removexattr(secret, 'user.x')",
    "shorten a file": "os.truncate(secret, 0)",
    "watch a file": "call('inotify_init1', 0)",
    "hold a file": "fcntl.fcntl(os.open(own, os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_RDLCK)",
    "change a file's flags": "fcntl.ioctl(os.open(own, os.O_RDONLY), 0x40086602, bytes(8))",
    "open by handle": "call('open_by_handle_at', -100, bytes(128), 0)",
    "read weak labels of other seeds": "open(os.path.dirname(card) + '/weak_labels.npz', 'rb')",
    "read the pool without canaries": "open(os.path.dirname(card) + '/pool.json', 'rb')",
    "read the vault": "open(secret).read()",
    "list the vault": "os.listdir(os.path.dirname(secret))",
    "map the vault": "mmap.mmap(os.open(secret, os.O_RDONLY), 0, prot=mmap.PROT_READ)",
    "read passwords": "open('/etc/shadow').read()",
    "read root's files": "os.listdir('/root/')",
    "read another's memory": "open(f'/proc/{other}/mem', 'rb')",
    "read another's vectors": "call('process_vm_readv', other, 0, 0, 0, 0, 0)",
    "trace another": "call('ptrace', 16, other, 0, 0)",
    "limit the parent": "resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))",
    "limit another": "resource.prlimit(other, resource.RLIMIT_CPU, (1, 1))",
    "slow the parent": "os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
    "slow a user": "os.setpriority(os.PRIO_USER, 0, 19)",
    "move another": "os.sched_setaffinity(other, {0})",
    "signal the parent": "os.kill(os.getppid(), 0)",
    "signal another": "os.kill(other, 9)",
    "signal its group": "os.kill(0, 0)",
    "signal all": "os.kill(-1, 0)",
    "signal a thread": "call('tgkill', other, other, 9)",
    "queue a signal": "call('rt_sigqueueinfo', other, 9, bytes(128))",
    "signal by descriptor": "os.pidfd_open(other)",
    "signal by pipe": "signal_by_pipe()",
    "UDP": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "a local socket": "socket.socket(socket.AF_UNIX)",
    "a raw socket": "socket.socket(socket.AF_INET, socket.SOCK_RAW)",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "a pair of sockets": "socket.socketpair()",
    "shared memory": "call('shmget', 7, 4096, 0o1666)",
    "a semaphore": "call('semget', 7, 1, 0o1666)",
    "a message queue": "call('msgget', 7, 0o1666)",
    "a named queue": "call('mq_open', b'x', 66, 0o666, 0)",
    "shared memory by name": "open('/dev/shm/x', 'w')",
    "a file without a name": "os.open(out(), os.O_TMPFILE | os.O_RDWR)",
    "a file that loses its name": "(out() / 'a').touch(); os.unlink(out() / 'a')",
    "a file that takes another's place": "(out() / 'b').touch(); os.rename(out() / 'b', out() / 'a')",
    "other cores": "os.sched_setaffinity(0, os.sched_getaffinity(0))",
    "memory beyond limits": "os.memfd_create('x')",
    "a user's room for pipes": "fcntl.fcntl(os.pipe()[1], 1031, 2**20)",
    "all of the machine's asynchronous reads": "call('io_setup', 60_000, bytes(8))",
    "fork": "os.fork()",
    "fork by clone": "call('clone', 17, 0, 0, 0, 0)",
    "a thread in a namespace": "call('clone', 0x10010900, 0, 0, 0, 0)",
    "a thread with files of its own": "call('clone', 0x10900, 0, 0, 0, 0)",
    "files of one thread alone": "call('close_range', 1000, 1001, 2)",
    "a program": "os.execv('/bin/true', ['true'])",
    "a spawned program": "os.posix_spawn('/bin/true', ['true'], {})",
    "a child program": "subprocess.run(['/bin/true'])",
    "a namespace": "call('unshare', 0x10000000)",
    "a mount": "call('mount', b'/', b'/', 0, 4096, 0)",
    "a root": "os.chroot('/')",
    "io_uring": "call('io_uring_setup', 1, bytes(128))",
    "BPF": "call('bpf', 0, 0, 0)",
    "keys": "call('keyctl', 0, -3, 1)",
    "another user": "os.setuid(1)",
    "another personality": "call('personality', 0x0040000)",
    "outlive the host": "call('prctl', 1, 0, 0, 0, 0)",
}
HONEST = """
import torch
lab.log(threads=torch.get_num_threads())
torch.ones(10**6).exp().sum()
x = torch.ones(300, 300, requires_grad=True)
(x @ x).sum().backward()
threading.Thread(target=lambda: print("thread ran")).start()
os.kill(os.getpid(), 0); resource.getrlimit(resource.RLIMIT_CPU)
assert resource.getrlimit(resource.RLIMIT_SIGPENDING)[1] <= 256, "the user's timers and signals"
(out() / "note").write_text("x"); (out() / "note").touch()
with (out() / "note").open("r+b") as file: os.posix_fallocate(file.fileno(), 0, 10_000)  # libc writes instead
os.closerange(1000, 1001)
"""


@pytest.fixture
def bystander() -> Iterator[int]:
    """A process of the same user: another agent's method, a server, an editor."""
    with subprocess.Popen(["/bin/sleep", "600"]) as process:
        yield process.pid
        process.kill()


@confined
@pytest.mark.parametrize("wrapped", [False, True], ids=["landlock", "bubblewrap"])
async def test_what_a_method_tries_is_refused_and_honest_work_goes_on(
    home: Path, bystander: int, *, wrapped: bool
) -> None:
    if wrapped and not has_bubblewrap(home):
        pytest.skip("no bubblewrap here")
    settings = settings_for(home, bubblewrap=wrapped, threads=2)
    secret, card = home / "vault" / "toy" / "secret.json", home / "data" / "toy" / "card.json"
    before = [(path.stat().st_mode, path.stat().st_mtime_ns, path.read_bytes()) for path in (secret, card)]
    numbers = MACHINES[os.uname().machine].numbers(f"{NEVER},{ON_ITSELF},{BY_ARGUMENT}")
    body = PREPARE.format(numbers=numbers, secret=str(secret), card=str(card), other=bystander)
    refusals = "(PermissionError, FileNotFoundError)" if wrapped else "PermissionError"
    for name, code in ATTEMPTS.items():
        body += f"try: {code}\nexcept {refusals}: held.append({name!r})\n"
    body += (
        "try: resource.setrlimit(resource.RLIMIT_NOFILE, (10**6, 10**6))\nexcept ValueError: print('no more files')\n"
    )
    async with serving(settings) as client:
        view = await run_attack(client, settings, body + "print('HELD', held)\n" + HONEST)
        log = (await client.call("read_run_log", run_id=view["run_id"]))["text"]
    assert view["status"] == "done", (view, log)
    assert f"HELD {list(ATTEMPTS)!r}" in log, log
    assert "thread ran" in log
    assert "no more files" in log
    assert view["metrics"]["threads"] == 2
    assert before == [(path.stat().st_mode, path.stat().st_mtime_ns, path.read_bytes()) for path in (secret, card)]
    os.kill(bystander, 0)
    assert f"# seed 0, sandbox: {'bubblewrap+' if wrapped else ''}landlock+seccomp\n" in log


TOLD = {
    "os.fork()": r"PermissionError: \[Errno 1\] Operation not permitted \(the sandbox refuses this: .*no network\)",
    "open('/etc/shadow')": r"PermissionError: \[Errno 13\] Permission denied: '/etc/shadow' \(the sandbox refuses .*\)",
    "import threading as t\nt.stack_size(65536)\n"
    "while True: t.Thread(target=time.sleep, args=(600,)).start()": "started more than 18 threads",
    "held = [open('/dev/null') for _ in range(1000)]": r"Too many open files",
}


@confined
async def test_an_agent_is_told_what_was_refused_and_inherits_nothing_of_others(warm: TrainingSettings) -> None:
    async with connect(build(warm)) as client:
        marked = write_method(warm, GOOD + "# other-run\n" * 1000, "other.py")
        await finish(client, (await client.call("submit_run", file=marked))["run_id"])
        view = await run_attack(client, warm, SEARCH)
        log = (await client.call("read_run_log", run_id=view["run_id"]))["text"]
        assert view["status"] == "done", (view, log)
        assert "OPEN 4 FOUND [b'this']" in log, log
        for body, told in TOLD.items():
            view = await run_attack(client, warm, body)
            assert view["status"] == "failed"
            assert re.search(told, view["message"]), view["message"]


CORES = """
import pathlib
print("CORES", sorted(os.sched_getaffinity(0)), flush=True)
try: os.sched_setaffinity(0, range(os.cpu_count()))
except PermissionError: print("STAYED", sorted(os.sched_getaffinity(0)) , flush=True)
"""


@confined
@pytest.mark.skipif(count_cores() < 2, reason="there is one core alone")
async def test_a_run_has_cores_of_its_own_where_there_are_enough_for_all_slots(home: Path) -> None:
    settings = settings_for(home).model_copy(update={"workers": 2})
    wait = "while not os.path.exists(out() / 'end'): time.sleep(0.01)\n"
    async with serving(settings) as client:
        runs = [
            (await client.call("submit_run", file=attack(settings, CORES + wait, f"{n}.py")))["run_id"] for n in (0, 1)
        ]
        for run in runs:
            await until(lambda run=run: "STAYED" in read_text(settings.run_log(run)), client, run)
        logs = [read_text(settings.run_log(run)) for run in runs]
        for slot in (0, 1):
            (home / "scratch" / f"slot-{slot}" / "end").touch()
        for run in runs:
            assert (await finish(client, run))["status"] == "done"
    cores = [set(json.loads(re.search(r"STAYED (.*)", log)[1])) for log in logs]  # type: ignore[index]
    assert not cores[0] & cores[1]
    assert cores[0] | cores[1] == os.sched_getaffinity(0)


@pytest.mark.parametrize(
    ("cores", "slots", "threads", "shares"),
    [
        (range(8), 2, 1, [range(4), range(4, 8)]),
        (range(2, 7), 2, 2, [range(2, 4), range(4, 7)]),
        (range(128), 3, 8, [range(42), range(42, 85), range(85, 128)]),
        (range(2), 3, 1, [range(2)] * 3),
        (range(4), 2, 4, [range(4)] * 2),
    ],
)
def test_slots_share_cores_evenly_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch, cores: range, slots: int, threads: int, shares: list[range]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(cores))
    assert [share_of_cores(slot, slots, threads) for slot in range(slots)] == [tuple(share) for share in shares]


def test_torch_has_threads_enough_on_any_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert [max_threads(cores) for cores in (1, 2, 128)] == [18, 20, 272]


SEARCH = """
import ctypes, resource
# this-run
libc, found, page = ctypes.CDLL(None), set(), 4096
reader, writer = os.pipe()
libc.malloc.restype = ctypes.c_void_p
for middle in (id(bytes(100)), libc.malloc(100)):
    for start in range(middle // page * page - 2**26, middle + 2**26, page):
        if libc.write(writer, ctypes.c_void_p(start), page) == page:
            data = os.read(reader, page)
            for before in data.split(b"-run")[:-1]:  # not the whole name: it would be found where it is sought
                found |= {name for name in (b"this", b"other") if before.endswith(name)}
os.close(reader); os.close(writer)
used = []
for fd in range(resource.getrlimit(resource.RLIMIT_NOFILE)[0]):
    try: used.append(os.fstat(fd).st_mode)
    except OSError: pass
print("OPEN", len(used), "FOUND", sorted(found))
"""


@pytest.mark.skipif(not has_seccomp(), reason="this system has no seccomp")
@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_every_jump_of_the_filter_stays_inside_and_every_path_returns(machine: Machine) -> None:
    code = build_filter(machine, 1234)
    for index, (operation, if_true, if_false, _) in enumerate(code):
        assert index + 1 + max(if_true, if_false) < len(code) or operation == 0x06
        assert max(if_true, if_false) < 256
    assert code[-1][0] == 0x06
    assert len(code) < 4096


HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


@pytest.mark.parametrize("machine", MACHINES)
def test_the_numbers_of_system_calls_are_the_kernels(machine: str) -> None:
    if not HEADERS[machine].exists():
        pytest.skip("the kernel's headers are not installed")
    text = HEADERS[machine].read_text(encoding="ascii")
    kernel = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text)}
    ours = MACHINES[machine].numbers(f"{NEVER},{ON_ITSELF},{BY_ARGUMENT}")
    known = {name for name in ours if name in kernel}
    assert {name: ours[name] for name in known} == {name: kernel[name] for name in known}
    assert {name for name in ours if name not in kernel and ours[name] <= max(kernel.values())} <= OLDER_HEADERS
    assert len(set(ours.values())) == len(ours)


OLDER_HEADERS = {"name_to_handle_at", "open_by_handle_at"}
"""Defined over two lines in the generic header."""


def test_without_a_sandbox_only_registered_methods_run_unless_the_operator_says_so(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(home)
    file = write_method(settings, GOOD)

    def submit(settings: TrainingSettings, **what: str) -> str:
        given: dict[str, Any] = {
            "method": None,
            "file": None,
            "params": {},
            "kind": "pilot",
            "task": "",
            "request_id": None,
        } | what
        return TrainingService(settings, Idle()).submit(Caller(agent="ada"), **given).status

    monkeypatch.setattr(service, "find_mechanisms", lambda _: ("seccomp",))
    assert submit(settings, method="vanilla") == "queued"
    with pytest.raises(PermissionDeniedError, match=r"and has 'seccomp'\)\. The operator may .*--unsafe-no-sandbox"):
        submit(settings, file=file)
    assert submit(settings_for(home, unsafe_no_sandbox=True), file=file) == "queued"
    assert TrainingService(settings, Idle()).describe_task("").sandbox == "seccomp"


def test_a_worker_that_cannot_confine_methods_runs_registered_ones_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "find_mechanisms", lambda _: ("seccomp",))
    settings = settings_for(home).model_copy(update={"worker_idle_seconds": 0.5})
    queue, store = RunQueue(settings.database("training")), LocalArtifactStore(home / "artifacts")
    sources = GOOD, find_method("vanilla").info.source
    asked = [submission("ada", (0,), source_sha256=store.put(one.encode()), kind="pilot") for one in sources]
    run_ids = [queue.submit(one, max_waiting=9).run_id for one in asked]
    worker.Worker(settings, 0, 1).work()
    mine, registered = (queue.view(run_id, Caller(agent="ada")) for run_id in run_ids)
    assert (mine.status, registered.status) == ("failed", "done")
    assert "runs registered methods only" in mine.message


def test_mechanisms_are_those_of_the_system(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_for(home)
    for name in ("has_bubblewrap", "landlock_version", "has_seccomp"):
        monkeypatch.setattr(mechanisms, name, lambda *_: 1)
    assert describe_mechanisms(find_mechanisms(settings)) == "bubblewrap+landlock+seccomp"
    assert describe_mechanisms(find_mechanisms(settings_for(home, bubblewrap=False))) == "landlock+seccomp"
    for name in ("has_bubblewrap", "landlock_version", "has_seccomp"):
        monkeypatch.setattr(mechanisms, name, lambda *_: 0)
    assert describe_mechanisms(find_mechanisms(settings)) == "none"
    with pytest.raises(PermissionDeniedError, match="'none'"):
        check_confinement(settings, ())
    check_confinement(settings, ("landlock", "seccomp"))
