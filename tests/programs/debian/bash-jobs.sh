#!/bin/bash
# Job control on a terminal of its own: script(1) gives one.
cat > inner.sh <<'END'
set -m
sleep 100 &
jobs -r | sed 's/  */ /g'
kill -STOP %1; sleep 0.2; jobs -s | sed 's/  */ /g'
bg %1 > /dev/null 2>&1; sleep 0.1; jobs -r | wc -l
kill %1; wait %1 2> /dev/null; echo "ended with $?"
(sleep 0.2; exit 4) & fg %% > /dev/null; echo "foreground gave $?"
sleep 100 | sleep 100 & kill -TERM -- -$!; kill -TERM %% 2> /dev/null; wait; echo "pipeline killed"
sh -c 'kill -TSTP $$; echo resumed' ; echo "stopped: $?"; fg > /dev/null; echo "then $?"
END
script -q -e -c "bash inner.sh" /dev/null < /dev/null | tr -d '\r' | grep -v '^\[' ; echo "script ${PIPESTATUS[0]}"
pids=; for i in 1 2 3 4; do (exit "$i") & pids="$pids $!"; done
s=0; for p in $pids; do wait "$p"; s=$((s + $?)); done; echo "sum of statuses $s"
(exit 6) & wait -n; echo "one of them: $?"
seq 1 3000 | while read -r n; do echo $((n * n)); done | tail -n 1
{ seq 1 100000; } | tee >(wc -l > count) | md5sum; sleep 0.3; cat count
