"""What the next agent's run in the same method host gets of a hostile one: nothing, and the same students as before."""

from collections.abc import Iterator
from pathlib import Path

import anyio
from homes import toy_home_with_model, training
from measure import Figure
from registry import outcome

from outlearn.receipts import ReceiptBook

PLAIN = "def method(lab, seed):\n    return lab.fit(lab.weak_labels())\n"
HOSTILE = """
import atexit, builtins, gc, os, pathlib, signal, sys, threading, time
import numpy, torch
import outlearn.tasks, outlearn_training.sandbox.host as host, outlearn_training.lab as labs, outlearn_training.trainer
MARK = "left" + "-by-ada"
def method(lab, seed):
    student = lab.fit(lab.weak_labels())
    lab._trainer.model._token_cache.clear()
    lab._trainer.model._token_cache[MARK] = [1]
    with torch.no_grad():
        for one in lab._trainer.model.model.parameters(): one.mul_(3)
        for one in lab._trainer.model._base.values(): one.mul_(3)
    labs.Lab.weak_labels = lambda self: numpy.ones(48)
    labs.Lab.fit = labs.Lab.zero_shot = labs.Student.predict = None
    outlearn_training.trainer.PlainTrainer.fit = lambda *a, **k: 1 / 0
    host.run_method = host.save_students = host.confine = host.filter_calls = lambda *a, **k: True
    outlearn.tasks.load_public = None
    torch.Tensor.backward = numpy.asarray = builtins.open = None
    builtins.left = sys.left = MARK
    sys.modules["left"] = sys
    sys.path.insert(0, str(pathlib.Path(sys._getframe(2).f_locals["job"].out)))
    os.environ["LEFT"] = os.environ["PYTHONPATH"] = MARK
    os.chdir("/usr"); os.umask(0)
    torch.manual_seed(666); torch.set_default_dtype(torch.float64); torch.set_grad_enabled(False)
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP): signal.signal(each, signal.SIG_IGN)
    atexit.register(time.sleep, 600)
    os.nice(19)
    for place in ("/dev/shm", "/tmp", "/var/tmp", "/run", str(pathlib.Path.home())):
        try: pathlib.Path(place, MARK).touch()
        except (OSError, TypeError): pass
    for _ in range(20): threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    kept = [bytearray(MARK.encode() * 10000) for _ in range(20)]
    return student
"""
LOOK = """
import ctypes, gc, glob, json, os, signal, sys, threading, builtins
import torch, outlearn_training.lab as labs, outlearn_training.sandbox.host as host
MARK = b"ada-yb-tfel"
libc = ctypes.CDLL(None)
def memory():
    found, page, (reader, writer) = 0, 4096, os.pipe()
    libc.malloc.restype = ctypes.c_void_p
    for middle in (id(bytes(100)), libc.malloc(100), libc.malloc(10**6)):
        for start in range(middle // page * page - 2**25, middle + 2**25, page):
            if libc.write(writer, ctypes.c_void_p(start), page) == page:
                found += MARK in os.read(reader, page)[::-1]
    return found
def method(lab, seed):
    said = {
        "modules": [name for name in ("left",) if name in sys.modules or hasattr(sys, name) or hasattr(builtins, name)],
        "environment": [name for name in ("LEFT", "PYTHONPATH") if name in os.environ],
        "path": [one for one in sys.path if one.startswith("HOME")],
        "folder": [os.getcwd()] * (os.getcwd() == "/usr"),
        "mask": [oct(mask) for mask in [os.umask(0o22)] if mask == 0],
        "patches": [n for n in ("fit", "zero_shot", "weak_labels") if "Lab." + n not in repr(getattr(labs.Lab, n))],
        "host": [n for n in ("run_method", "save_students", "confine") if "lambda" in repr(getattr(host, n))],
        "torch": [torch.get_default_dtype() == torch.float64, not torch.is_grad_enabled()].count(True),
        "signals": [str(one) for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) == signal.SIG_IGN],
        "priority": [os.nice(0)] * (os.nice(0) == 19),
        "threads": threading.active_count() - 1,
        "tokens": [one for one in lab._trainer.model._token_cache if "ada" in one],
        "memory": memory(),
    }
    print("SAID " + json.dumps(said), flush=True)
    return lab.fit(lab.weak_labels())
"""


def inheritance(folder: Path) -> Iterator[Figure]:
    """What a method of bob's finds after one of ada's, in the same worker and host."""
    home = toy_home_with_model(folder)
    found, same, left = anyio.run(_look, home)
    for name, what in found.items():
        yield outcome(f"inherited_{name}", not what)
    yield outcome("inherited_students", same)
    yield outcome("inherited_files", not left)


async def _look(home: Path) -> tuple[dict[str, object], bool, list[Path]]:
    async with training(home) as ada, training(home, agent="bob") as bob:
        before = await bob.run(PLAIN, kind="full")
        assert (await ada.run(HOSTILE))["status"] in ("done", "failed")
        found: dict[str, object] = await bob.said(LOOK.replace("HOME", str(home)))
        after = await bob.run(PLAIN, kind="full")
    book = ReceiptBook(home / "vault")
    first, second = ([one.predictions for one in book.read(run["run_id"])] for run in (before, after))
    places = (Path("/dev/shm"), Path("/tmp"), Path("/var/tmp"), Path("/run"), Path.home())
    return (
        found,
        bool(first) and first == second,
        [one / "left-by-ada" for one in places if (one / "left-by-ada").exists()],
    )
