"""The forms in which cgroup files hold numbers.

A file that is not there (a controller that is off) reads as nothing.
"""

from __future__ import annotations

UNLIMITED = (1 << 64) - 1


def text(directory: str, name: str) -> str:
    if not directory:
        return ""
    try:
        with open(f"{directory}/{name}") as file:
            return file.read()
    except OSError:
        return ""


def number(directory: str, name: str) -> int:
    """A file with one number, or the word `max`."""
    word = text(directory, name).strip()
    return UNLIMITED if word == "max" else int(word or 0)


def numbers(directory: str, name: str) -> list[int]:
    return [int(word) for word in text(directory, name).split()]


def table(directory: str, name: str) -> dict[str, int]:
    """Lines of `key number`."""
    rows = (line.split() for line in text(directory, name).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}
