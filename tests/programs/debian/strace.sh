#!/bin/bash
# System calls as strace sees them: of one program, of children and threads, of a process that runs already, changed on the way.
set -e
echo "-- one program"
strace -e trace=execve,write,exit_group -o log /bin/echo hello
sed -E 's/0x[0-9a-f]+/ADDRESS/; s/\/\* [0-9]+ vars \*\//VARS/' log
echo "-- children and signals"
strace -f -e trace=execve,kill,exit_group -e signal=all -o log sh -c '/bin/true; sh -c "kill -USR1 \$\$"; true' || true
sed -E 's/^[0-9]+ +//; s/0x[0-9a-f]+/ADDRESS/; s/\/\* [0-9]+ vars \*\//VARS/; s/\b(si_pid|si_uid|si_utime|si_stime)=[0-9]+( \/\*[^/]*\/)?/\1=N/g; s/kill\([0-9]+/kill(PID/' log | sort | uniq -c
echo "-- threads"
cat > threads.py <<'END'
import os, threading
threads = [threading.Thread(target=os.getppid) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
END
strace -f -e trace=getppid -o log python3 threads.py
grep -c 'getppid()' log
grep -c '+++ exited with 0 +++' log
echo "-- counted"
strace -c -e trace=openat,close -o log cat /etc/hostname /etc/passwd > /dev/null
awk '$NF == "openat" || $NF == "close" { print $NF, ($4 > 0) }' log | sort
echo "-- a process that runs already"
sleep 100 & pid=$!
sleep 0.3
timeout -s INT 1 strace -o log -p $pid || true
sed -E 's/0x[0-9a-f]+/ADDRESS/g; s/\{.*\}/TIME/; s/^(restart_syscall|clock_nanosleep)\(.*/CALL/' log
kill $pid
wait $pid || echo "ended with $?"
echo "-- results changed"
strace -e inject=getppid:retval=4242 -o /dev/null python3 -c 'import os; print(os.getppid())'
strace -f -e inject=openat:error=EACCES:when=3+ -o /dev/null cat /etc/passwd 2>&1 | tail -1 | sed 's/.*: //'
echo "-- by a filter"
strace -f --seccomp-bpf -e trace=getppid -o log python3 -c 'import os; os.getppid()'
grep -c 'getppid()' log
