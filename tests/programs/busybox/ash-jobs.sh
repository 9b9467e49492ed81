#!/bin/sh
# Background jobs, pipelines, many processes.
( sleep 0.1; echo background ) & wait $!; echo "waited $?"
sh -c 'kill -9 $$'; echo "status $?"
( sh -c 'exit 7' ) & wait $!; echo "status $?"
for i in 1 2 3 4 5; do ( exit $i ) & p="$p $!"; done
for j in $p; do wait $j; echo "job $?"; done
sleep 100 & kill $!; wait $!; echo "killed: $?"
seq 1 20000 | sed s/1/x/ | tr x y | sort | uniq | wc -l
yes | head -n 100000 | wc -l
i=0; while [ $i -lt 300 ]; do /bin/true; i=$((i + 1)); done; echo "300 processes"
mkfifo p; ( cat p | rev ) & echo fifo > p; wait
timeout 1 sleep 100; echo "timeout: $?"
echo $$ > /dev/null; set -m 2> /dev/null; sleep 100 & jobs > /dev/null; kill %1; wait 2> /dev/null; echo "job control"
nohup sh -c 'echo nohup' 2> /dev/null
setsid sh -c 'echo setsid'
xargs -P 4 -n 1 sh -c 'exit 0' < /dev/null; echo "xargs $?"
seq 1 40 | xargs -P 4 -n 1 echo | sort -n | tail -n 1
