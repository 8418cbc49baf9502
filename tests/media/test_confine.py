"""What a confined process tries, it cannot do; what it needs to decode, it can."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aiprod_components.media.sandbox import _import_path

# Whoever has captured a decoder runs code of their own in its process.
ESCAPES = {
    "read a file": "open('/etc/hostname')",
    "read a file by its directory": "os.open('/etc/hostname', os.O_RDONLY, dir_fd=0)",
    "list a folder": "os.listdir('/')",
    "look at a file": "os.stat('/etc/hostname')",
    "write a file": "open(folder + '/new', 'w')",
    "delete a file": "os.unlink(folder + '/kept')",
    "rename a file": "os.rename(folder + '/kept', folder + '/taken')",
    "make a folder": "os.mkdir(folder + '/made')",
    "change what others may do": "os.chmod(folder + '/kept', 0o777)",
    "go to another folder": "os.chdir('/')",
    "talk to the network": "socket.socket(socket.AF_INET, socket.SOCK_STREAM)",
    "talk to a neighbour": "socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)",
    "make a pipe": "os.pipe()",
    "open an event queue": "os.eventfd(0)",
    "start a process": "os.fork()",
    "become another program": "os.execv('/bin/true', ['true'])",
    "start a thread": "threading.Thread(target=print).start()",
    "kill its parent": "os.kill(os.getppid(), 0)",
    "read its parent's memory": "libc(310, os.getppid(), 0, 0, 0, 0, 0)",
    "trace its parent": "libc(101, 16, os.getppid(), 0, 0)",
    "raise its limits": "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))",
    "become root": "os.setuid(0)",
}
ATTEMPTS = """
import ctypes, json, os, resource, socket, sys, threading
sys.path[:], escapes, folder = json.loads(sys.argv[1])
from aiprod_components.media.confine import confine
call = ctypes.CDLL(None, use_errno=True).syscall

def libc(*numbers):
    if call(*map(ctypes.c_long, numbers)) < 0:
        raise OSError(ctypes.get_errno(), "refused")

ends = {}
confine(cpu_seconds=20, memory_bytes=1 << 30)
for name, code in escapes.items():
    try:
        exec(code)
        ends[name] = "done"
    except (OSError, RuntimeError, ValueError) as error:
        ends[name] = type(error).__name__
print(json.dumps(ends), flush=True)
"""


def confined(code: str, *, cpu_seconds: int = 20, memory_bytes: int = 1 << 30, before: str = "") -> subprocess.CompletedProcess[bytes]:
    start = f"{before}import sys\nsys.path[:] = {_import_path()!r}\nfrom aiprod_components.media.confine import confine\n"
    start += f"confine(cpu_seconds={cpu_seconds}, memory_bytes={memory_bytes})\n"
    return subprocess.run([sys.executable, "-I", "-S", "-c", start + code], capture_output=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("canary")
    (folder / "kept").write_text("as it was")
    told = json.dumps([_import_path(), ESCAPES, str(folder)])
    process = subprocess.run([sys.executable, "-I", "-S", "-c", ATTEMPTS, told], capture_output=True, timeout=60, check=True)
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("kept", "as it was")]
    return json.loads(process.stdout)


@pytest.mark.parametrize("escape", ESCAPES)
def test_a_captured_decoder_cannot(escape: str, ends: dict[str, str]):
    assert ends[escape] != "done"


def test_the_same_attempts_are_nothing_special_elsewhere(tmp_path: Path):
    """Else the test above would say nothing."""
    (tmp_path / "kept").write_text("as it was")
    free = {name: code for name, code in ESCAPES.items() if name in ("read a file", "delete a file", "make a pipe", "talk to the network")}
    script = ATTEMPTS.replace("confine(cpu_seconds", "dict(cpu_seconds")
    told = json.dumps([_import_path(), free, str(tmp_path)])
    process = subprocess.run([sys.executable, "-I", "-S", "-c", script, told], capture_output=True, timeout=60, check=True)
    assert set(json.loads(process.stdout).values()) == {"done"} and not (tmp_path / "kept").exists()


def test_memory_ends_where_it_should():
    process = confined("try:\n    bytearray(2 << 30)\nexcept MemoryError:\n    print('no more')", memory_bytes=1 << 30)
    assert process.stdout == b"no more\n"
    assert confined("bytearray(200 << 20); print('enough')", memory_bytes=1 << 30).stdout == b"enough\n"


def test_computing_without_end_has_one():
    assert confined("while True: pass", cpu_seconds=1).returncode == -signal.SIGXCPU


def test_a_limit_that_is_tighter_already_stays():
    tight = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({600 << 20}, {600 << 20}))\n"
    code = "try:\n    bytearray(700 << 20)\nexcept MemoryError:\n    print('no more')"
    assert confined(code, memory_bytes=1 << 30, before=tight).stdout == b"no more\n"
