"""
A kernel before 6.5, for one process: it has never heard of ``SO_PEERPIDFD``.

A seccomp filter answers ``getsockopt`` with that option as such a kernel does. It
stays for the life of the process and refuses nothing else.
"""

import ctypes
import errno
import os
import platform
import struct
from typing import Final

_GETSOCKOPT: Final = {"x86_64": (0xC000003E, 55), "aarch64": (0xC00000B7, 209)}
"""AUDIT_ARCH and number of the system call, by machine."""

_SO_PEERPIDFD: Final = 77
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_SECCOMP: Final = 22
_FILTER_MODE: Final = 2

_LOAD: Final = 0x20
_EQUAL: Final = 0x15
_RETURN: Final = 0x06
_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def known() -> bool:
    """Return whether the filter can be made for this machine."""
    return platform.machine() in _GETSOCKOPT


def pretend() -> None:
    """Be such a kernel from now on, for this process, its later threads and its children."""
    architecture, number = _GETSOCKOPT[platform.machine()]
    # seccomp(2): struct seccomp_data is number, architecture, instruction pointer, then six arguments of 8 bytes.
    steps = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 0, 5, architecture),
        (_LOAD, 0, 0, 0),
        (_EQUAL, 0, 3, number),
        (_LOAD, 0, 0, 16 + 2 * 8),
        (_EQUAL, 0, 1, _SO_PEERPIDFD),
        (_RETURN, 0, 0, _ERRNO | errno.ENOPROTOOPT),
        (_RETURN, 0, 0, _ALLOW),
    ]
    instructions = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = _Program(len(steps), ctypes.addressof(instructions))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in ((_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (_PR_SET_SECCOMP, _FILTER_MODE, ctypes.byref(program), 0, 0)):
        if libc.prctl(*call) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
