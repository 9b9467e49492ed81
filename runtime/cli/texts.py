"""Help, version and shell completion, made from the command table."""

from __future__ import annotations

from runtime.cli.commands import COMMANDS, GLOBAL_FLAGS
from runtime.errors import InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.cli.flags import Flag, Parsed
    from runtime.cli.main import Context

VERSION = "0.1.0"
SPEC_VERSION = "1.3.0"

_GROUPS = (
    ("Try it", ("do", "trace")),
    ("Containers from OCI bundles", ("run", "create", "start", "exec", "kill", "pause", "resume", "update", "delete")),
    ("Look", ("state", "list", "ps", "events")),
    ("This program", ("doctor", "spec", "features", "completion", "help")),
)


def version() -> str:
    """As runc prints it: podman and CRI-O read these lines."""
    return f"litebox version {VERSION}\nspec: {SPEC_VERSION}"


def _flag_lines(flags: Sequence[Flag]) -> list[str]:
    rows = []
    for flag in flags:
        if flag.hidden:
            continue
        names = ", ".join(("--" if len(name) > 1 else "-") + name for name in flag.names)
        text = flag.help
        if flag.default:
            text += f" (default: {flag.default})"
        if flag.repeat:
            text += " (may be repeated)"
        rows.append((f"  {names} {flag.metavar}".rstrip(), text))
    width = max((len(left) for left, _ in rows), default=0) + 3
    return [f"{left:{width}}{right}" for left, right in rows]


def overview() -> str:
    """`litebox --help`."""
    lines = [
        "litebox runs containers in micro-VMs without a guest kernel: a library OS serves their system calls.",
        "",
        "usage: litebox [global flags] COMMAND [flags] [arguments]",
        "",
    ]
    for title, names in _GROUPS:
        lines.append(f"{title}:")
        lines += [f"  {name:12}{COMMANDS[name].summary}" for name in names]
        lines.append("")
    lines.append("Global flags:")
    lines += _flag_lines(GLOBAL_FLAGS)
    lines += ["", "`litebox COMMAND --help` says more. Start with: litebox do -- uname -a"]
    return "\n".join(lines)


def of_command(name: str) -> str:
    """`litebox COMMAND --help`."""
    command = COMMANDS[name]
    lines = [f"litebox {name}: {command.summary}", "", f"usage: litebox {name} {command.arguments}".rstrip()]
    if command.description:
        lines += ["", command.description]
    flags = _flag_lines(command.flags)
    if flags:
        lines += ["", "Flags:", *flags]
    return "\n".join(lines)


def help_command(context: Context, parsed: Parsed) -> int:  # noqa: ARG001 - every command has this signature
    """The command of that name."""
    if not parsed.args:
        print(overview())
        return 0
    if parsed.args[0] not in COMMANDS:
        raise NotFound(f"{parsed.args[0]!r} is no command; `litebox --help` lists them")
    print(of_command(parsed.args[0]))
    return 0


def _words(flags: Sequence[Flag]) -> str:
    return " ".join(f"--{name}" for flag in flags if not flag.hidden for name in flag.names if len(name) > 1)


def _choices(command: str, flags: Sequence[Flag]) -> list[str]:
    """Cases for the flags that take one of a few words, which their metavar lists."""
    rows = []
    for flag in flags:
        if "|" in flag.metavar:
            names = "|".join(f"'{command} {'--' if len(name) > 1 else '-'}{name}'" for name in flag.names)
            rows.append(f"        {names}) words='{flag.metavar.replace('|', ' ')}' ;;")
    return rows


_TAKES_ID = "start state kill delete pause resume update events ps exec trace"

_BASH = """\
# litebox completion for bash: source this, or install it as /usr/share/bash-completion/completions/litebox
_litebox() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} command= root=() words= i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${{COMP_WORDS[i]}} in
            --root) root=(--root "${{COMP_WORDS[++i]}}") ;;
            --log|--log-format|--rootless) ((i++)) ;;
            -*) ;;
            *) command=${{COMP_WORDS[i]}}; break ;;
        esac
    done
    case "$command $before" in
{choices}
        *)
            case $command in
                '') if [[ $word == -* ]]; then words='{global_flags}'; else words='{commands}'; fi ;;
{cases}
            esac
            if [[ $word != -* ]]; then
                case "$command $before" in
                    'completion completion') words='bash zsh fish' ;;
                    'help help') words='{commands}' ;;
                    'kill kill'|'kill -'*) words=$(litebox "${{root[@]}}" list --quiet 2>/dev/null) ;;
                    'kill '*) words='{signals}' ;;
                    *) [[ -n $command && " {takes_id} " == *" $command "* ]] &&
                        words=$(litebox "${{root[@]}}" list --quiet 2>/dev/null) ;;
                esac
            fi ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    [[ ${{#COMPREPLY[@]}} -gt 0 || $word == -* ]] || COMPREPLY=($(compgen -f -- "$word"))
}}
complete -o filenames -F _litebox litebox"""

_ZSH = """\
#compdef litebox
# litebox completion for zsh: install it as _litebox in a folder of $fpath
autoload -U +X bashcompinit && bashcompinit
"""


def completion_command(context: Context, parsed: Parsed) -> int:  # noqa: ARG001 - every command has this signature
    """A completion script."""
    shell = parsed.args[0]
    if shell == "fish":
        print("# litebox completion for fish: install it as ~/.config/fish/completions/litebox.fish")
        for name, command in COMMANDS.items():
            summary = command.summary.replace("'", "\\'")
            print(f"complete -c litebox -n __fish_use_subcommand -f -a {name} -d '{summary}'")
            for flag in command.flags:
                if flag.hidden:
                    continue
                long = flag.names[0]
                text = flag.help.replace("'", "\\'")
                takes = " -r" if flag.metavar else ""
                print(f"complete -c litebox -n '__fish_seen_subcommand_from {name}' -l {long}{takes} -d '{text}'")
        for name in _TAKES_ID.split():
            print(f"complete -c litebox -n '__fish_seen_subcommand_from {name}' -f -a '(litebox list --quiet)'")
        return 0
    if shell not in ("bash", "zsh"):
        raise InvalidArgument(f"completion: found {shell!r}; allowed: bash, zsh, fish")
    from runtime.linux_tables import SIGNALS

    script = _BASH.format(
        global_flags=_words(GLOBAL_FLAGS),
        commands=" ".join(COMMANDS),
        takes_id=_TAKES_ID,
        signals=" ".join(SIGNALS),
        choices="\n".join(
            [*_choices("", GLOBAL_FLAGS), *(row for name in COMMANDS for row in _choices(name, COMMANDS[name].flags))]
        ),
        cases="\n".join(
            f"                {name}) [[ $word == -* ]] && words='{_words(command.flags)}' ;;"
            for name, command in COMMANDS.items()
        ),
    )
    print(_ZSH + script if shell == "zsh" else script)
    return 0
