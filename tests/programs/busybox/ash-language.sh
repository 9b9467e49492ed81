#!/bin/sh
# The shell's own language: expansions, functions, loops, traps, here-documents, arithmetic.
f() { local x=$1; [ "$x" -le 1 ] && { echo 1; return; }; echo $(( x * $(f $((x - 1))) )); }
f 8
v=path/to/file.tar.gz
echo "${v##*/} ${v%%.*} ${v%.gz} ${#v} ${w:-unset} ${v/to/TO}"
case $v in *.gz) echo gz ;; *) echo other ;; esac
i=0; while [ $i -lt 1000 ]; do i=$((i + 1)); done; echo $i
for x in a b c; do printf '%s ' "$x"; done; echo
cat <<END
here: $(echo nested $(echo deeper))
END
cat <<'END'
not expanded: $v
END
( exit 3 ); echo "status $?"
false || echo or; true && echo and
set -- one "two words" three; echo $# "$2"; shift; echo "$*"
trap 'echo trapped TERM' TERM; kill -TERM $$; echo after
trap 'echo leaving' EXIT
echo {a,b}c $((0x10 + 010)) $((7 / 2)) $((-7 % 3))
echo one > f; echo two >> f; cat < f; wc -l < f
exec 5> fd5; echo through >&5; exec 5>&-; cat fd5
{ echo out; echo err >&2; } 2>&1 | sort
read a b <<END
first second third
END
echo "$b,$a"
test -e absent; echo $?
absent-command 2> /dev/null; echo $?
/work 2> /dev/null; echo $?
eval 'echo eval $v'
umask; umask 077; umask
type cd > /dev/null && echo builtin
unset v; echo "${v+set}"
(set -e; false; echo not reached); echo $?
(set -u; echo $undefined) 2> /dev/null; echo $?
printf '%d\n' "'A"
command -v sh
getopts ab: o -b arg; echo "$o $OPTARG"
ulimit -n > /dev/null && echo ulimit
