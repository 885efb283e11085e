"""A user's mistakes: one exception class, and the wrapper that turns it into one line and an exit code."""

from __future__ import annotations

import difflib
import errno
import functools
import io
import os
import signal
import sys
from collections.abc import Callable, Collection

REFUSALS = {  # of a machine, and what to do
    errno.EACCES: "choose a place that you may write to (or read)",
    errno.EPERM: "choose a place that you may write to (or read)",
    errno.EROFS: "choose a place that can be written",
    errno.ENOTDIR: "a file lies where a folder should be",
    errno.EEXIST: "a file lies where a folder should be",
    errno.EISDIR: "a folder lies where a file should be",
    errno.ENOENT: "make it first, or choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "a link that leads to itself",
    errno.ENOSPC: "make room, then give the same command again",
    errno.EDQUOT: "make room, then give the same command again",
    errno.EFBIG: "a limit on the size of files; raise it (ulimit -f), then give the same command again",
}


class UserError(ValueError):
    """Something the user can mend. The message says what was found, what was expected, where, and what to do."""


def entry_point(main: Callable[..., int | None]) -> Callable[..., int]:
    """Wrap a command's ``main``: a ``UserError`` becomes one line on stderr and exit code 2, Ctrl-C exit code 130.

    What a machine refuses (a folder that cannot be written, a file where a folder should be, a full disk) is such a
    line too. A terminal that cannot show a letter, of a path for example, is given its number instead. A reader that
    closes the output early (``... | head``) ends the command without a word, as it ends other programs.
    """

    @functools.wraps(main)
    def wrapped(*args, **kwargs) -> int:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        try:
            code = main(*args, **kwargs) or 0
            sys.stdout.flush()
            return code
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains as it ends
            return 128 + signal.SIGPIPE
        except OSError as error:
            if error.errno not in REFUSALS:
                raise
            print(f"error: {refusal(error)}", file=sys.stderr)
            return 2

    return wrapped


def refusal(error: OSError) -> str:
    """What the machine refused, on one line."""
    where = f"{printable(os.fsdecode(error.filename))}: " if isinstance(error.filename, (str, bytes)) else ""
    return f"{where}{error.strerror or error}; {REFUSALS.get(error.errno or 0, 'look at the place')}"


def printable(text: object, most: int | None = None) -> str:
    """Text from outside (a path, a name in a file) for a message or a page: one line, no controls, no quotes for code.

    With ``most``, at most so many letters.
    """
    shown = "".join(letter if letter.isprintable() and letter != "`" else "?" for letter in str(text))
    return shown if most is None or len(shown) <= most else shown[: most - 2] + ".."


def unknown(kind: str, name: str, known: Collection[str]) -> UserError:
    """The error for a name that does not exist: the nearest ones, or all there are."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return UserError(f"unknown {kind} {name!r}; {'nearest' if near else 'known'}: {', '.join(near or known)}")
