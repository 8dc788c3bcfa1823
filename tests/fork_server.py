"""Commands in processes that need not import torch: one process has, and forks for each of them.

    with ForkServer() as server:
        done = server.run("judge", ["evaluate"], folder, environment, Fault((signal.SIGTERM,), at=3))

The program runs from its first line to what it does at exit, in a session of its own, with the signals'
default handlers, as from a terminal; only the packages of other people are imported already. A `Fault`
strikes when the program touches a file, by Python's audit events, so that no test waits for a moment.
"""

import atexit
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGES = ("torch", "torchvision.transforms.v2", "torchmetrics", "torch.utils.tensorboard", "pandas",
            "scipy.stats", "sklearn.metrics", "sklearn.linear_model", "matplotlib.pyplot", "optuna", "plotly",
            "rich.live", "tqdm", "jinja2", "yaml", "requests", "psutil", "nni.experiment")  # fmt: skip
OURS = ("judge", "trials", "experiments")  # packages
# Audit events of Python's that change files, beside "open".
WRITES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate"}
TIMEOUT = 300  # seconds for a command


@dataclass(frozen=True)
class Fault:
    """What happens to a program."""

    signals: tuple[int, ...] = ()
    """Come when it touches a file, or imports a module of ours, for the `at`-th time, and one at each next
    touch ..."""
    at: int = 0
    said: str | None = None
    """... or all at once, when it has printed this."""
    room: int | None = None
    """Bytes that a file may have; writing more fails, as on a full disk."""


@dataclass(frozen=True)
class Done:
    """How a program has ended."""

    code: int  # negative: the number of the signal that killed it
    out: str
    err: str
    # File or module, and whether it was written; too many for a failed test's message.
    touches: list[tuple[str, bool]] = field(repr=False)
    left: list[Path]  # in /proc, processes of its session or with its home that are still there


class Pipe(threading.Thread):
    """Reads what a program writes to a named pipe: to a file it could not write more than it has room for."""

    def __init__(self, file: Path):
        super().__init__(daemon=True)
        self.file, self.text = file, ""
        os.mkfifo(file)
        self.start()

    def run(self) -> None:
        with open(self.file, errors="replace") as pipe:
            while some := pipe.readline():
                self.text += some

    def all(self) -> str:
        """Return what was written, once no process can write more."""
        self.join(TIMEOUT)
        self.file.unlink()
        return self.text


class ForkServer:
    """The process that forks."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.fork_server"]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()

    def run(self, module: str, words: Sequence[str], folder: Path, environment: Mapping[str, str],
            fault: Fault = Fault(), out: str | None = None) -> Done:  # fmt: skip
        """Run `python -m MODULE WORDS` in `folder`/work, and return how it ended.

        Touches are those of files below `folder`. `out` is in place of stdout: a file, or "closed", a pipe
        that nobody reads.
        """
        pipes = {name: Pipe(folder.with_name(f"{folder.name}.{name}"))
                 for name in ("out", "err", "touches") if name != "out" or not out}
        files = {name: str(pipe.file) for name, pipe in pipes.items()}
        request = {"module": module, "words": list(words), "folder": str(folder), "fault": asdict(fault),
                   "environment": dict(environment), "files": {"out": out} | files}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        pid = int(self._process.stdout.readline())
        if fault.said:
            while fault.said not in pipes["out"].text + pipes["err"].text and pipes["err"].is_alive():
                time.sleep(0.01)
            for number in fault.signals:
                os.kill(pid, number)
        code = int(self._process.stdout.readline())
        home = f"HOME={environment['HOME']}\0".encode()
        left = [process for process in Path("/proc").glob("[0-9]*") if belongs(process, pid, home)]
        for process in left:
            os.kill(int(process.name), signal.SIGKILL)
        texts = {name: pipe.all() for name, pipe in pipes.items()}
        touches = (line.split(" ", 1) for line in texts["touches"].splitlines())
        return Done(code, texts.get("out", ""), texts["err"],
                    [(file, bool(int(written))) for written, file in touches], left)


def belongs(process: Path, session: int, variable: bytes) -> bool:
    """Return whether a process in /proc runs in this session, or was started with this variable."""
    try:
        state, _, _, its_session = (process / "stat").read_text().rpartition(")")[2].split()[:4]
        return state != "Z" and (
            int(its_session) == session or variable in (process / "environ").read_bytes())
    except OSError:  # it has ended
        return False


def serve() -> dict[str, Any]:
    """Fork for each request on stdin, and answer with its process and its exit code; return in the fork."""
    for package in PACKAGES:
        import_module(package)
    import torch

    torch.set_num_threads(1)
    answers = os.dup(1)
    for line in sys.stdin:
        if not (pid := os.fork()):
            os.close(answers)
            return json.loads(line)
        os.write(answers, f"{pid}\n".encode())
        signal.setitimer(signal.ITIMER_REAL, TIMEOUT)
        signal.signal(signal.SIGALRM, lambda *_, pid=pid: os.kill(pid, signal.SIGKILL))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.write(answers, f"{code}\n".encode())
    sys.exit()


def become(request: dict[str, Any]) -> None:
    """Make this process what a shell would have started."""
    folder, files, fault = Path(request["folder"]), request["files"], Fault(**request["fault"])
    os.setsid()
    touches = os.open(files["touches"], os.O_WRONLY | os.O_CLOEXEC)
    redirect(0, os.devnull, os.O_RDONLY)
    redirect(2, files["err"])
    if files["out"] == "closed":
        reader, writer = os.pipe()
        os.dup2(writer, 1)
        os.close(reader)
        os.close(writer)
    else:
        redirect(1, files["out"])
    # New ones: those of the server know other files below their descriptors.
    sys.stdout = open(1, "w", closefd=False)
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(folder / "work")
    os.environ.clear()
    os.environ.update(request["environment"])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    if fault.room is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.room, fault.room))
    watch(folder, touches, fault)
    sys.argv[:] = ["-m", *request["words"]]


def redirect(descriptor: int, file: str, flags: int = os.O_WRONLY) -> None:
    opened = os.open(file, flags)
    os.dup2(opened, descriptor)
    os.close(opened)


def watch(folder: Path, log: int, fault: Fault) -> None:
    """Write each touch (of a file below `folder`, or of a module) to `log`, and let `fault` strike."""
    prefix, count, left = f"{folder}{os.sep}", 0, list(fault.signals)

    def hook(event: str, args: tuple) -> None:
        nonlocal count
        if event == "import" and args[0].startswith(OURS):
            file, written = args[0], False
        elif (event == "open" or event in WRITES) and isinstance(args[0], str | bytes | os.PathLike):
            written = event != "open" or bool(args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            file = os.path.abspath(os.fsdecode(args[0]))
            if not file.startswith(prefix):
                return
        else:
            return
        os.write(log, f"{int(written)} {file}\n".encode(errors="surrogateescape"))
        count += 1
        if left and not fault.said and count > fault.at:
            os.kill(os.getpid(), left.pop(0))

    sys.addaudithook(hook)


def play(module: str) -> int:
    """Run a program as `python -m` does, and return its exit code."""
    code = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError:
        print("Exception ignored at exit", file=sys.stderr)
        code = 120
    return code


if __name__ == "__main__":
    request = serve()
    become(request)
    code = play(request["module"])
    sys.stderr.flush()
    os._exit(code)  # Python would take apart all that is imported, which takes seconds
