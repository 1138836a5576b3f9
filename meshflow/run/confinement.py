"""Landlock: what a process, and every thread that it starts from now on, may still reach.

After the kernel's Documentation/userspace-api/landlock.rst and include/uapi/linux/landlock.h; plain system
calls, since PyPI has no library for it beyond a pre-release without rules for the network (docs/adr/0031).
Rights that a kernel does not know yet are left out, the newest first.
"""

import ctypes
import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
_VERSION_FLAG = 1
_PATH_BENEATH, _NET_PORT = 1, 2
_PR_SET_NO_NEW_PRIVS = 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = (1 << bit for bit in range(4))
_REMOVE_AND_MAKE = sum(1 << bit for bit in range(4, 13))
_MAKE_DEVICES = 1 << 6 | 1 << 11
"""MAKE_CHAR and MAKE_BLOCK."""
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_ALL_FILES = (1 << 16) - 1
_ONLY_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
"""Rights that a rule on one file, not a folder, may have."""
_NET_BIND, _NET_CONNECT = 1, 2
_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1, 2

LIST = _READ_DIR
"""See names in a folder and below."""
READ = _READ_FILE | _READ_DIR
"""Read files and see names; run none."""
CHANGE = READ | _WRITE_FILE | _TRUNCATE
"""Write to files that are there as well; make and remove none."""
OWN = CHANGE | _REMOVE_AND_MAKE & ~_MAKE_DEVICES | _REFER
"""All that a data folder needs."""

_OLDEST_ABI = 2
"""Linux 5.19. The first one forbids every move of a file between folders, which ClickHouse's engine does."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What stays allowed; nothing else does."""

    paths: Mapping[Path, int]
    """READ, CHANGE, ... of a file, or of a folder and all below; those that are not there are passed over."""
    connect_ports: Collection[int] = field(default=())
    """TCP ports, of any host."""


class CannotConfine(Exception):
    """There is no Landlock in this kernel, or where meshflow runs; the text says why."""


def confine(rules: Rules) -> None:
    """Restrict this thread, and those that it starts, for ever; a second call can only take away more.

    No TCP port can be bound, no other process signalled, no program run. What is open stays open. Not
    covered: threads that run already, UDP, sockets that have a path. Raises CannotConfine; nothing is
    restricted then.
    """
    abi = _abi()
    handled = _handled(abi)
    attributes = (ctypes.c_uint64 * 3)(*handled)
    size = 8 * (1 if abi < 4 else 2 if abi < 6 else 3)
    ruleset = _call(_CREATE_RULESET, ctypes.byref(attributes), size, 0)
    try:
        for path, rights in rules.paths.items():
            _allow_path(ruleset, path, rights & handled[0])
        if handled[1]:
            for port in rules.connect_ports:
                rule = (ctypes.c_uint64 * 2)(_NET_CONNECT, port)
                _call(_ADD_RULE, ruleset, _NET_PORT, ctypes.byref(rule), 0)
        _no_new_privileges()
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _abi() -> int:
    if sys.platform != "linux":
        raise CannotConfine(f"{sys.platform} has no Landlock")
    abi = _call(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    if abi < _OLDEST_ABI:
        raise CannotConfine(f"this kernel's Landlock has version {abi}; {_OLDEST_ABI} (Linux 5.19) is needed")
    return abi


def _handled(abi: int) -> tuple[int, int, int]:
    """What a kernel can forbid: of files, of TCP, of other processes."""
    files = _ALL_FILES
    if abi < 5:
        files &= ~_IOCTL_DEV
    if abi < 3:
        files &= ~_TRUNCATE
    return (
        files,
        _NET_BIND | _NET_CONNECT if abi >= 4 else 0,
        _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS if abi >= 6 else 0,
    )


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def _allow_path(ruleset: int, path: Path, rights: int) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not path.is_dir():
        rights &= _ONLY_OF_FILES
    rule = _PathBeneath(rights, parent)
    try:
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        if not str(path).startswith("/proc/"):  # whose folders are other ones when nobody has them open
            os.close(parent)


def _no_new_privileges() -> None:
    if _libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise CannotConfine(f"no_new_privs: {os.strerror(ctypes.get_errno())}")


def _call(number: int, *arguments: object) -> int:
    result = int(_libc().syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise CannotConfine(f"Landlock: {os.strerror(ctypes.get_errno())}")
    return result


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
