"""doctor: what works on this machine, what does not, and the command that mends it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.cli.flags import Parsed
    from runtime.cli.main import Context


def doctor_command(context: Context, parsed: Parsed) -> int:  # noqa: ARG001 - every command has this signature
    """Look, judge, say."""
    from runtime.doctor import judge, look, report

    return report(judge(look()), print)
