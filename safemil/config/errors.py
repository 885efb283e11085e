"""A user's mistakes: one exception class, and the wrapper that turns it into one line and an exit code."""

from __future__ import annotations

import difflib
import functools
import os
import signal
import sys
from collections.abc import Callable, Collection


class UserError(ValueError):
    """Something the user can mend. The message says what was found, what was expected, where, and what to do."""


def entry_point(main: Callable[..., int | None]) -> Callable[..., int]:
    """Wrap a command's ``main``: a ``UserError`` becomes one line on stderr and exit code 2, Ctrl-C exit code 130.

    A reader that closes the output early (``... | head``) ends the command without a word, as it ends other programs.
    """

    @functools.wraps(main)
    def wrapped(*args, **kwargs) -> int:
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

    return wrapped


def printable(text: object) -> str:
    """Text from outside (a path, a name in a file) as it may stand in a message or a page: no controls, no quotes."""
    return "".join(letter if letter.isprintable() and letter != "`" else "?" for letter in str(text))


def unknown(kind: str, name: str, known: Collection[str]) -> UserError:
    """The error for a name that does not exist: the nearest ones, or all there are."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return UserError(f"unknown {kind} {name!r}; {'nearest' if near else 'known'}: {', '.join(near or known)}")
