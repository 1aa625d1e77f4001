"""Runs a program without one system call (seccomp answers EPERM): deny_syscall.py NUMBER PROGRAM ARGUMENTS..."""

import ctypes
import os
import struct
import sys

PR_SET_SECCOMP, SECCOMP_MODE_FILTER, PR_SET_NO_NEW_PRIVS = 22, 2, 38


def instruction(code, if_true, if_false, value):
    return struct.pack("HBBI", code, if_true, if_false, value)


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


# Load the call's number; when it is the one, EPERM; else go on.
instructions = ctypes.create_string_buffer(
    instruction(0x20, 0, 0, 0)
    + instruction(0x15, 0, 1, int(sys.argv[1]))
    + instruction(0x06, 0, 0, 0x00050001)
    + instruction(0x06, 0, 0, 0x7FFF0000)
)
program = Program(4, ctypes.addressof(instructions))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program)):
    sys.exit(os.strerror(ctypes.get_errno()))
os.execv(sys.argv[2], sys.argv[2:])
