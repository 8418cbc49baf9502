"""a process that has imported all it needs -> one that can compute and talk to its pipes, and do nothing else

Guaranteed wherever there are POSIX limits: so many seconds of CPU, no core dump, no byte written to a file, and no file, directory,
pipe or socket opened ever again (a limit of no open files leaves those that are open); on Linux so much memory, too. Root could raise
them again; any other user can start no process or thread either. Guaranteed on Linux on x86-64 and ARM (64 bits) where the kernel
filters system calls, as every distribution's does: whatever is not among `SYSTEM_CALLS` fails, so nothing is deleted, renamed,
executed, signalled, traced or unlimited, also by root. Not guaranteed: that what the process says is true, for it may be captured.
"""

import ctypes
import os
import resource
import signal
import struct
import sys

# What is left is memory, time, pipes that are open and the end. By name: numbers on x86-64 and on ARM.
SYSTEM_CALLS: dict[str, tuple[int, int]] = {
    "read": (0, 63),
    "readv": (19, 65),
    "write": (1, 64),
    "writev": (20, 66),
    "lseek": (8, 62),
    "fstat": (5, 80),
    "close": (3, 57),
    "brk": (12, 214),
    "mmap": (9, 222),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "mprotect": (10, 226),
    "madvise": (28, 233),
    "futex": (202, 98),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "gettimeofday": (96, 169),
    "getrusage": (98, 165),
    "getrandom": (318, 278),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "sysinfo": (99, 179),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # the kernel's name for it, and its place in the table

# prctl(2), seccomp(2) and the kernel's classic BPF.
SET_DEATH_SIGNAL, SET_SECCOMP, SET_NO_NEW_PRIVILEGES = 1, 22, 38
FILTER_MODE = 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
NUMBER_AT, MACHINE_AT = 0, 4  # in what a filter sees of a call
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | 1  # EPERM


def confine(*, cpu_seconds: int, memory_bytes: int) -> None:
    """Cannot be undone. Raises OSError where a limit is refused."""
    _limit(resource.RLIMIT_CPU, cpu_seconds, grace=1)  # SIGXCPU, then SIGKILL
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC, resource.RLIMIT_NOFILE):
        _limit(limit, 0)
    if sys.platform == "linux":
        _limit(resource.RLIMIT_AS, memory_bytes)
        _prctl(SET_DEATH_SIGNAL, signal.SIGKILL)  # else it would outlive a parent that is killed, to its limits
        if os.uname().machine in MACHINES:
            _filter_system_calls()


def _limit(kind: int, most: int, *, grace: int = 0) -> None:
    """Never above what this process may have already."""
    _, hard = resource.getrlimit(kind)
    highest = most + grace if hard == resource.RLIM_INFINITY else min(most + grace, hard)
    resource.setrlimit(kind, (min(most, highest), highest))


def _filter_system_calls() -> None:
    """Where the kernel has no filters the limits stand alone."""
    machine, place = MACHINES[os.uname().machine]
    allowed = [numbers[place] for numbers in SYSTEM_CALLS.values()]
    count = len(allowed)
    steps = [(LOAD, 0, 0, MACHINE_AT), (JUMP_IF_EQUAL, 0, count + 1, machine), (LOAD, 0, 0, NUMBER_AT)]
    steps += [(JUMP_IF_EQUAL, count - index, 0, number) for index, number in enumerate(allowed)]
    steps += [(RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(code)))
    if _prctl(SET_NO_NEW_PRIVILEGES, 1):
        _prctl(SET_SECCOMP, FILTER_MODE, ctypes.addressof(program))


def _prctl(option: int, *values: int) -> bool:
    arguments = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
    return ctypes.CDLL(None).prctl(option, *arguments) == 0
