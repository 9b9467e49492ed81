# What the other scripts begin with.
now() { date +%s%N; }
# ms ROW BEGIN END [TIMES]
ms() { awk -v a="$2" -v b="$3" -v n="${4:-1}" -v name="$1" 'BEGIN { printf "%s %.2f\n", name, (b - a) / 1e6 / n }'; }
# until_it COMMAND...: until the command succeeds, 10 seconds at most
until_it() { for _ in $(seq 200); do "$@" > /dev/null 2>&1 && return; sleep 0.05; done; echo "$1: not up after 10 seconds" >&2; exit 1; }
