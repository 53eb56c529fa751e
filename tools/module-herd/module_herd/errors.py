# SPDX-License-Identifier: GPL-2.0
"""Errors, as the user sees them."""

from __future__ import annotations

import errno
import os


class HerdError(Exception):
    """Ends the program with one line that says what to do."""


def explain(error: OSError) -> HerdError:
    """Turn an error of the kernel into an error for the user."""
    text = f"{error.filename}: {error.strerror}"
    if error.errno == errno.EACCES and os.geteuid() != 0:
        text += ": run module-herd as root"
    elif error.errno == errno.EPERM:
        text += ": the kernel is probably locked down, see /sys/kernel/security/lockdown"
    return HerdError(text)
