"""Runs a function inside a machine's network namespace."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tests.net.segment import Machine

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def inside(machine: Machine, work: Callable[[], T]) -> T:
    """In a thread of its own, for a namespace belongs to a thread (setns(2))."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(_entered, machine.namespace, work).result()


def _entered(namespace: str, work: Callable[[], T]) -> T:
    with Path("/run/netns", namespace).open() as file:
        if _libc.setns(file.fileno(), _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    return work()
