#!/bin/bash
# Arrays, process substitution, regular expressions, coprocesses, here-strings, traps.
a=(one two "three four"); echo "${#a[@]} ${a[2]} ${a[@]:1:1}"
declare -A m=([x]=1 [y]=2); echo "$(( m[x] + m[y] ))"
[[ "file-42.txt" =~ ([0-9]+)\.(.*) ]] && echo "${BASH_REMATCH[1]} ${BASH_REMATCH[2]}"
diff <(seq 1 5) <(seq 2 6); echo "diff $?"
coproc CAT { cat; }; echo "to the coprocess" >&"${CAT[1]}"; read -r line <&"${CAT[0]}"; echo "$line"
eval "exec ${CAT[1]}>&-"; wait "$CAT_PID"; echo "coprocess $?"
tr a-z A-Z <<< "here string"
printf '%s\n' {1..5} | mapfile -t lines; echo "${#lines[@]}"
mapfile -t lines < <(seq 1 7); echo "${#lines[@]}"
set -o pipefail; false | true; echo "pipefail $?"
false | true | ( exit 3 ); echo "${PIPESTATUS[@]}"
trap 'echo "USR1 $BASHPID" | cut -d" " -f1' USR1; kill -USR1 $$; sleep 0.01
f() { trap 'echo return' RETURN; local -n r=$1; r=changed; }; x=1; f x; echo "$x"
echo "${x^^} ${x:2:3} ${x//e/E}"
for ((i = 0; i < 20000; i++)); do :; done; echo "$i"
time -p true 2> /dev/null
exec {fd}> file; echo data >&"$fd"; exec {fd}>&-; cat file
shopt -s extglob globstar nullglob
mkdir -p d/e; touch d/a.c d/e/b.c; echo **/*.c !(file|*.sh)
printf -v out '%(%Y)T' 0; echo "$out"
echo $'tab\there' "$((2**40))"
read -r -t 0.05 < <(sleep 1); echo "read timed out: $(( $? > 128 ))"
ulimit -S -n 64; ulimit -n
umask 027; touch u; stat -c %a u
