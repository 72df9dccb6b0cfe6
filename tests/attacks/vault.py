"""What a method can reach of the vault, of other agents and of other processes: all attempts in one sandboxed child."""

import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
from homes import RUNS, file_run, toy_home_with_model, training
from measure import Figure
from registry import outcome

from outlearn.audit import AuditLog
from outlearn.receipts import ReceiptBook

KEY = b"the key that nobody may know 123"
"""Stands in the vault; methods know it backwards, so that they find no copy of their own."""

PRELUDE = """
import ctypes, gc, importlib, json, mmap, os, pathlib, resource, socket, sqlite3, struct, sys, threading, types
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(number, *arguments):
    found = libc.syscall(ctypes.c_long(number), *arguments)
    if found < 0: raise OSError(ctypes.get_errno(), "refused")
    return found
def out():
    frame = sys._getframe()
    while "job" not in frame.f_locals or "trainer" not in frame.f_locals: frame = frame.f_back
    return frame.f_locals["job"].out
module = importlib.import_module
def read(path): return pathlib.Path(path).read_bytes()
def by_path_only(path, flags=os.O_PATH):
    return read(f"/proc/self/fd/{os.open(path, flags)}")
def in_thread(act):
    found = []
    def work():
        try: found.append(act())
        except OSError: pass
    thread = threading.Thread(target=work); thread.start(); thread.join()
    return found
def link(how, source):
    target = out() / "taken"
    how(source, target)
    return read(target)
def by_c(path):
    libc.fopen.restype = ctypes.c_void_p
    return libc.fopen(path.encode(), b"r")
def each(paths, act):
    found = []
    for path in paths:
        try: found.append(act(path))
        except OSError: pass
    return found
def memory(backwards):
    found, page, (reader, writer) = [], 4096, os.pipe()
    libc.malloc.restype = ctypes.c_void_p
    for middle in (id(bytes(100)), libc.malloc(100), id(sys)):
        for start in range(middle // page * page - 2**25, middle + 2**25, page):
            if libc.write(writer, ctypes.c_void_p(start), page) == page:
                found += [start] * (backwards in os.read(reader, page)[::-1])
    os.close(reader); os.close(writer)
    return found
def secret_objects():
    names = {"SecretTask", "Baselines", "Receipt", "ReceiptBook", "Signer", "Predictor", "Seal", "Run", "TokenFile"}
    here = gc.get_objects()
    here += [value for thread in sys._current_frames().values() for value in thread.f_locals.values()]
    return [type(one).__name__ for one in here if type(one).__name__ in names]
def descriptors():
    kinds = []
    for fd in range(1024):
        try: kinds.append((fd, os.fstat(fd).st_mode))
        except OSError: pass
    return [fd for fd, mode in kinds if (mode & 0o170000) not in (0o010000, 0o020000)]
def mapped(fd): return mmap.mmap(fd, 4096, prot=mmap.PROT_READ)
"""

READ_VAULT = {
    "descriptors_that_are_files": "descriptors()",  # before the method has opened any
    "map_inherited_descriptors": "each(range(64), mapped)",
    "open": "read(secret)",
    "open_in_a_thread": "in_thread(lambda: read(secret))",
    "open_by_a_path_with_dots": "read(f'{home}/data/toy/../../vault/toy/secret.json')",
    "open_by_the_root_of_ones_own_process": "read(f'/proc/self/root{secret}')",
    "open_by_the_root_of_the_host": "read(f'/proc/{os.getppid()}/root{secret}')",
    "open_by_the_root_of_the_first_process": "read(f'/proc/1/root{secret}')",
    "open_by_another_process": "read(f'/proc/{other}/root{secret}')",
    "open_by_a_folder": "os.read(os.open('secret.json', 0, dir_fd=os.open(f'{home}/vault/toy', os.O_PATH)), 9)",
    "open_from_inside": "(os.chdir(f'{home}/vault/toy'), read('secret.json'))",
    "open_a_path_again": "by_path_only(secret)",
    "open_by_openat2": "call(437, -100, secret.encode(), struct.pack('QQQ', 0, 0, 0), 24)",
    "open_by_number": "call(2, secret.encode(), 0, 0)",
    "open_in_c": "by_c(secret)",
    "open_as_memory": "__import__('numpy').memmap(secret, mode='r')",
    "open_as_tensor": "__import__('torch').from_file(secret, size=9, dtype=__import__('torch').uint8)",
    "open_as_pickle": "__import__('torch').load(secret, weights_only=False)",
    "open_as_safetensors": "__import__('safetensors').safe_open(secret, 'pt')",
    "open_in_rust": "__import__('tokenizers').Tokenizer.from_file(secret)",
    "open_as_database": "sqlite3.connect(f'{home}/training.sqlite').execute('select * from runs')",
    "open_a_database": "sqlite3.connect(f'file:{home}/evaluation.sqlite?immutable=1', uri=True).execute('select 1')",
    "hard_link": "link(os.link, secret)",
    "symbolic_link": "link(os.symlink, secret)",
    "rename": "link(os.rename, secret)",
    "link_an_open_path": "call(265, os.open(secret, os.O_PATH), b'', -100, str(out() / 'x').encode(), 0x1000)",
    "exchange": "call(316, -100, secret.encode(), -100, str(out() / 'y').encode(), 2)",
    "list": "os.listdir(f'{home}/vault')",
    "walk": "[one for one in os.walk(f'{home}/vault')]",
    "glob": "list(vault.rglob('*'))",
    "unpickle_a_reader": "__import__('pickle').loads(b'cbuiltins\\nopen\\n(V' + secret.encode() + b'\\ntR.')",
    "copy_a_range": "call(326, os.open(secret, os.O_PATH), 0, 1, 0, 100, 0)",
    "send_a_file": "os.sendfile(1, os.open(secret, os.O_PATH), 0, 100)",
    "read_the_key": "read(f'{home}/vault/signing.key')",
    "read_receipts": "read(f'{receipts}/{other_run}/0.json')",
    "read_the_audit_log": "read(f'{home}/vault/audit-known.jsonl')",
    "find_test_items_in_memory": "memory(b'!ddo si 991')",
    "find_the_key_in_memory": "memory(key_backwards)",
    "find_secret_objects": "secret_objects()",
    "names_in_the_environment": "[n for n in os.environ if n.endswith(('KEY', 'TOKEN', 'SECRET')) or 'OUTL' in n]",
    "environment_of_the_host": "read(f'/proc/{os.getppid()}/environ')",
    "descriptors_of_the_host": "os.listdir(f'/proc/{os.getppid()}/fd')",
    "open_descriptors_of_the_host": "each(range(32), lambda fd: os.open(f'/proc/{os.getppid()}/fd/{fd}', 0))",
    "take_a_descriptor_of_the_host": "call(438, call(434, os.getppid(), 0), 3, 0)",
    "maps_of_the_host": "read(f'/proc/{os.getppid()}/maps')",
    "memory_of_the_host": "os.open(f'/proc/{os.getppid()}/mem', os.O_RDWR)",
    "other_processes": "[n for n in os.listdir('/proc') if n.isdigit()]",
    "open_sockets": "read('/proc/net/unix') + read('/proc/net/tcp')",
    "kernel_log": "read('/dev/kmsg') + read('/proc/kmsg')",
    "raw_disk": "each(['/dev/vda', '/dev/sda', '/dev/nvme0n1', '/dev/mem'], lambda path: os.open(path, 0))",
}
TOUCH_OTHERS = {
    "read_another_workspace": "read(f'{home}/workspaces/bob/notes.md')",
    "list_another_workspace": "os.listdir(f'{home}/workspaces/bob')",
    "read_own_workspace": "read(f'{home}/workspaces/ada/mine.py')",
    "read_weak_labels_of_other_seeds": "read(f'{home}/data/toy/weak_labels.npz')",
    "read_the_pool_without_canaries": "read(f'{home}/data/toy/pool.json')",
    "learn_which_home_this_is": "sys.argv[1:]",
    "threads_with_files_of_their_own": "call(56, 0x10900, 0, 0, 0, 0)",
    "files_of_one_thread_alone": "call(436, 1000, 1001, 2)",
    "read_another_log": "read(f'{home}/logs/runs/{other_run}.log')",
    "read_tokens": "read(f'{home}/tokens.json')",
    "list_students_of_others": "os.listdir(f'{home}/weights')",
    "list_sources_of_others": "os.listdir(f'{home}/artifacts')",
    "list_runs_at_work": "os.listdir(f'{home}/scratch')",
    "change_public_data": "os.open(f'{home}/data/toy/card.json', os.O_WRONLY)",
    "add_a_task": "os.mkdir(f'{home}/data/easy')",
    "publish_a_result": "open(f'{home}/results/results.jsonl', 'a').write('{}')",
    "plant_a_receipt": "pathlib.Path(receipts, other_run, '9.json').write_text('{}')",
    "write_to_the_audit_log": "open(f'{home}/vault/audit-known.jsonl', 'a').write('x')",
    "remove_the_audit_log": "os.unlink(f'{home}/vault/audit-known.jsonl')",
    "write_into_python": "pathlib.Path(json.__file__).write_text('x')",
    "write_into_this_package": "(pathlib.Path(sys.modules['outlearn_training.lab'].__file__).parent / 'x.py').touch()",
    "leave_a_file_in_tmp": "pathlib.Path('/tmp/left').write_text('x')",
    "leave_a_file_in_shared_memory": "pathlib.Path('/dev/shm/left').write_text('x')",
    "list_shared_memory": "os.listdir('/dev/shm')",
    "leave_a_file_at_home": "(pathlib.Path.home() / 'left').write_text('x')",
    "a_file_without_a_name": "os.open(out(), os.O_TMPFILE | os.O_RDWR)",
    "a_file_that_loses_its_name": "((out() / 'gone').touch(), os.unlink(out() / 'gone'))",
    "a_file_that_takes_anothers_place": "((out() / 'new').touch(), os.rename(out() / 'new', out() / 'gone'))",
    "disk_faster_than_by_writing": "call(285, os.open(out() / 'wide', 66), 0, 0, 2**20)",
    "cores_of_others": "os.sched_setaffinity(0, range(64))",
    "memory_without_a_name": "os.memfd_create('x')",
    "memory_by_a_library": "module('multiprocessing.shared_memory').SharedMemory(create=True, size=9)",
    "a_named_pipe": "os.mkfifo(out() / 'pipe')",
    "a_device": "os.mknod(out() / 'device', 0o020666, os.makedev(1, 1))",
    "a_socket_file": "socket.socket(socket.AF_UNIX).bind(str(out() / 'socket'))",
    "a_folder_for_students": "os.mkdir(out() / 'folder')",
    "a_server_on_this_machine": "socket.create_connection(('127.0.0.1', 8001), 1)",
    "io_uring": "call(425, 8, bytes(120))",
    "signal_the_worker": "os.kill(worker, 15)",
    "stop_the_host": "os.kill(os.getppid(), 19)",
    "write_to_the_hosts_memory": "call(311, os.getppid(), bytes(16), 1, bytes(16), 1, 0)",
    "be_killed_last": "open('/proc/self/oom_score_adj', 'w').write('-1000')",
}
USE_OUR_OWN_CODE = {
    "load_the_truth": "module('outlearn.tasks').load_secret(pathlib.Path(home), 'toy')",
    "load_the_baselines": "module('outlearn.tasks').load_baselines(pathlib.Path(home), 'toy')",
    "make_a_receipt_book": "module('outlearn.receipts').ReceiptBook(vault).read(other_run)",
    "sign_with_the_vaults_key": "module('outlearn.signing').Signer.from_vault(vault, 'receipt')",
    "call_the_predictor": (
        "module('outlearn_training.predictor').Predictor(pathlib.Path(home), None).sign("
        "types.SimpleNamespace(task='toy', run_id=other_run, agent='ada', method='m', source_sha256=''), 0, out(), 'x')"
    ),
    "claim_a_run": (
        "module('outlearn_training.queue.seed_claims')"
        ".Claims(f'sqlite:///{home}/training.sqlite').claim(0, lambda _: True)"
    ),
    "open_the_evaluation": "module('outlearn_evaluation.commitment').open_task(pathlib.Path(home), 'toy')",
}
FAMILIES = {"vault": READ_VAULT, "others": TOUCH_OTHERS, "our_code": USE_OUR_OWN_CODE}
GUESSED = (
    "[*vault.glob('audit*'), vault / 'audit.jsonl', *vault.glob('receipts*/*/*'), "
    "vault / 'receipts' / other_run / '0.json']"
)
STAT = f"max([os.stat(one).st_size for one in {GUESSED} if one.exists()], default=-1)"
"""Without bubblewrap `stat` needs only a name. An audit log that grows would tell a method that it was seen; the size
of a receipt told once how many hidden items its student was sure of."""


def method(home: Path, other: int, worker: int) -> str:
    """A method that tries everything and says what came of it."""
    known = {
        "home": str(home),
        "secret": str(home / "vault/toy/secret.json"),
        "other": other,
        "worker": worker,
        "other_run": RUNS[1],
        "receipts": str(ReceiptBook(home / "vault").folder),  # which an attacker would have to guess
        "key_backwards": KEY[::-1],
    }
    lines = [f"{name} = {value!r}" for name, value in known.items()] + ["vault, got = pathlib.Path(home, 'vault'), {}"]
    for family, attempts in FAMILIES.items():
        for name, code in attempts.items():
            lines += [f"try: got[{family + '_' + name!r}] = repr({code})[:200]"]
            lines += [
                "except BaseException as error: got['!' + " + repr(family + "_" + name) + "] = type(error).__name__"
            ]
    lines += [f"try: got['stat'] = {STAT}", "except OSError: got['stat'] = -1"]
    lines += ["print('SAID ' + json.dumps(got), flush=True)"]
    body = "\n".join(f"    {line}" for line in lines)
    return f"{PRELUDE}\ndef method(lab, seed):\n{body}\n    return lab.fit(lab.weak_labels())\n"


NOTHING = ("None", "[]", "0", "-1", "b''", "{}")
"""What an attempt comes to that reads nothing without being refused."""


def attempts(folder: Path) -> Iterator[Figure]:
    """Every attempt, by whether it got something; then whether anything outside changed."""
    home = toy_home_with_model(folder)
    (home / "vault" / "signing.key").write_bytes(KEY)
    file_run(home, RUNS[1], agent="bob")
    (home / "vault" / "audit-known.jsonl").write_text("")
    (home / "workspaces" / "bob").mkdir(parents=True)
    (home / "workspaces" / "bob" / "notes.md").write_text("private")
    (home / "logs" / "runs").mkdir(parents=True)
    (home / "logs" / "runs" / f"{RUNS[1]}.log").write_text("private")
    with bystander() as other:
        before, got = anyio.run(_try, home, other)
        alive = subprocess.run(["/bin/kill", "-0", str(other)], check=False).returncode == 0
    for family, tried in FAMILIES.items():
        for name in tried:
            found = got.get(f"{family}_{name}")
            yield outcome(f"{family}_{name}", found is None or found in NOTHING)
    left = [path for path in (Path("/tmp/left"), Path("/dev/shm/left"), Path.home() / "left") if path.exists()]
    yield outcome("others_unharmed", alive and not left and fixed_files(home) == before)
    records = [one for one in AuditLog(home / "vault").records() if one.kind == "vault"]
    yield outcome(
        "vault_attempts_are_on_record", {(one.agent, one.action) for one in records} == {("ada", "quarantine")}
    )
    yield outcome("sizes_of_audit_log_and_receipts_unseen", got["stat"] == -1)


async def _try(home: Path, other: int) -> tuple[dict[str, tuple[int, bytes]], dict[str, str | int]]:
    """What stood in the home when the worker had done its first run, and what the method then said."""
    from outlearn_training.workers.slots import slot_pid

    async with training(home) as stand:
        await stand.run("def method(lab, seed):\n    return lab.fit(lab.weak_labels())\n")
        before = fixed_files(home)
        return before, await stand.said(method(home, other, slot_pid(home, 0) or 0))


def fixed_files(home: Path) -> dict[str, tuple[int, bytes]]:
    """What no run of ada's may change, with modes; the audit log may grow."""
    roots = [home / "vault", home / "data", home / "workspaces" / "bob"]
    paths = [path for root in roots for path in sorted(root.rglob("*")) if path.is_file() and "audit" not in path.name]
    return {str(path): (stat.S_IMODE(path.stat().st_mode), path.read_bytes()) for path in paths}


@contextmanager
def bystander() -> Iterator[int]:
    """A process of the same user."""
    with subprocess.Popen(["/bin/sleep", "600"]) as process:
        try:
            yield process.pid
        finally:
            os.kill(process.pid, 9)
