"""A program under CPython inside of bubblewrap: namespaces of its own, no network, read-only files of the system alone.

Nothing there can be written; time, memory and output are bounded. A filter of system calls (seccomp) lets through what an interpreter
needs and no more: no further process or thread, no socket, no signal to others. Limits of the kind of RLIMIT_NPROC would not do, since
the kernel exempts root from them. It is for what Monty, a subset of Python, cannot run, and only where ``bwrap`` is installed, may make
namespaces, and the processor is one whose system calls are listed here.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import select
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from atesd_env.tasks.grading.inside import MAX_LINE_BYTES, packed, unpacked

_HARNESS = Path(__file__).with_name("inside.py")
_TRIAL_SEC = 10.0
_SYSTEM_FOLDERS = ("/bin", "/sbin", "/lib", "/lib64")

_AUDIT_ARCH_X86_64 = 0xC000003E
_X32_CALLS = 0x40000000  # the same calls under other numbers begin here
# By number in x86_64's table. Not on it, among others: clone, clone3, fork, vfork, kill, socket, ptrace, mount, unshare, memfd_create.
_ALLOWED_CALLS = {
    "read": 0, "write": 1, "open": 2, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "poll": 7, "lseek": 8, "mmap": 9,
    "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "ioctl": 16,
    "pread64": 17, "readv": 19, "writev": 20, "access": 21, "select": 23, "sched_yield": 24, "mremap": 25, "madvise": 28,
    "dup": 32, "dup2": 33, "nanosleep": 35, "getpid": 39, "execve": 59, "exit": 60, "wait4": 61, "uname": 63, "fcntl": 72,
    "getcwd": 79, "readlink": 89, "gettimeofday": 96, "getrlimit": 97, "sysinfo": 99, "getuid": 102, "getgid": 104,
    "geteuid": 107, "getegid": 108, "sigaltstack": 131, "arch_prctl": 158, "setrlimit": 160, "gettid": 186, "futex": 202,
    "sched_getaffinity": 204, "getdents64": 217, "set_tid_address": 218, "clock_gettime": 228, "clock_getres": 229,
    "clock_nanosleep": 230, "exit_group": 231, "openat": 257, "newfstatat": 262, "readlinkat": 267, "set_robust_list": 273,
    "dup3": 292, "prlimit64": 302, "getrandom": 318, "statx": 332, "rseq": 334, "faccessat2": 439,
}  # fmt: skip


class ProgramError(Exception):
    """What a program raised, or why it was stopped; ``kind`` names the exception."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class BubblewrappedProgram:
    """One program in a process of its own; a context manager.

    Args:
        deadline: When it is killed, by ``time.monotonic``.
    """

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._unread = b""
        limit_sec = max(1, round(deadline - time.monotonic()))
        filter_read, filter_write = os.pipe()
        try:
            os.write(filter_write, seccomp_filter())
            os.close(filter_write)
            self._process = subprocess.Popen(
                [*_command(filter_read), "-c", _HARNESS.read_text(encoding="utf-8"), str(limit_sec)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                pass_fds=(filter_read,),
            )
        finally:
            os.close(filter_read)

    def __enter__(self) -> BubblewrappedProgram:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # bwrap's death ends the whole namespace (--die-with-parent)
        self._process.communicate()

    def define(self, source: str) -> None:
        """Runs a source in the program's namespace.

        Raises:
            ProgramError: If it raises, or is stopped.
        """
        self._asked({"define": source})

    def call(self, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Returns what a function of the program returns, plain data.

        Raises:
            ProgramError: If it raises, is stopped, or returns something else.
        """
        reply = self._asked({"call": name, "arguments": packed(arguments), "keywords": packed(keywords)})
        try:
            return unpacked(reply.get("value"))
        except (LookupError, TypeError, ValueError, RecursionError) as error:
            raise ProgramError("ValueError", f"no plain data ({error})") from error

    def _asked(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            reply = json.loads(self._line())
        except (OSError, ValueError, RecursionError) as error:
            raise ProgramError(
                "ProcessEnded", f"the program ended its process, or its reply was cut short ({error})"
            ) from error
        if not isinstance(reply, dict) or "error" in reply:
            found = reply if isinstance(reply, dict) else {}
            raise ProgramError(str(found.get("error", "ValueError")), str(found.get("message", "no reply of ours")))
        return reply

    def _line(self) -> bytes:
        """Reads one line, until the deadline and no longer than ``MAX_LINE_BYTES``."""
        assert self._process.stdout is not None
        while b"\n" not in self._unread:
            remaining = self._deadline - time.monotonic()
            if remaining <= 0 or not select.select([self._process.stdout], [], [], remaining)[0]:
                raise ProgramError("TimeoutError", "time limit exceeded")
            part = os.read(self._process.stdout.fileno(), 2**16)
            if not part:
                raise OSError("end of output")
            self._unread += part
            if len(self._unread) > MAX_LINE_BYTES:
                raise ProgramError("MemoryError", "output limit exceeded")
        line, _, self._unread = self._unread.partition(b"\n")
        return line


@functools.cache
def is_usable() -> bool:
    """Returns whether bubblewrap is installed and a trial program runs in it."""
    if shutil.which("bwrap") is None or platform.machine() != "x86_64":
        return False
    try:
        with BubblewrappedProgram(time.monotonic() + _TRIAL_SEC) as program:
            program.define("def double(x): return 2 * x")
            return bool(program.call("double", (21,), {}) == 42)
    except ProgramError:  # namespaces may be forbidden
        return False


def seccomp_filter() -> bytes:
    """Returns the filter of system calls as the kernel reads it: a program of ``struct sock_filter``.

    What is not on the list fails as forbidden (EPERM); another architecture's calls end the process.
    """
    load, if_equal, if_at_least, give = 0x20, 0x15, 0x35, 0x06
    allow, forbid, kill = 0x7FFF0000, 0x00050001, 0x80000000
    number, architecture = 0, 4  # offsets in struct seccomp_data
    program = [(load, 0, 0, architecture), (if_equal, 1, 0, _AUDIT_ARCH_X86_64), (give, 0, 0, kill)]
    program += [(load, 0, 0, number), (if_at_least, 0, 1, _X32_CALLS), (give, 0, 0, kill)]
    for call in _ALLOWED_CALLS.values():
        program += [(if_equal, 0, 1, call), (give, 0, 0, allow)]
    program.append((give, 0, 0, forbid))
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)


def _command(filter_fd: int) -> list[str]:
    """Returns the command up to Python and its switches."""
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"]
    command += ["--seccomp", str(filter_fd), "--ro-bind", "/usr", "/usr"]
    for folder in _SYSTEM_FOLDERS:
        if os.path.islink(folder):
            command += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            command += ["--ro-bind", folder, folder]
    prefix = os.path.realpath(sys.base_prefix)
    if not Path(prefix).is_relative_to("/usr"):
        command += ["--ro-bind", prefix, prefix]
    command += ["--dev-bind", "/dev/null", "/dev/null", "--dev-bind", "/dev/urandom", "/dev/urandom"]
    # The tmpfs that everything is mounted on would take files, and so memory, without a limit.
    command += ["--remount-ro", "/", "--chdir", "/"]
    return [*command, os.path.realpath(sys.executable), "-I", "-S"]
