#!/bin/bash
# timeout 300
# A debugger: breakpoints, steps, threads, memory and registers, calls into the program, a crash, a process that runs already.
set -e
cat > main.c <<'END'
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int total;
struct point { int x, y; double z; } origin = {1, 2, 3.5};
__attribute__((noinline)) int add(int n)
{
	total += n;
	return total * 2;
}
static void *run(void *argument)
{
	add(*(int *)argument);
	return NULL;
}
int main(int argc, char **argv)
{
	int numbers[] = {10, 20};
	pthread_t threads[2];
	for (int i = 0; i < 2; i++) {
		pthread_create(&threads[i], NULL, run, &numbers[i]);
		pthread_join(threads[i], NULL);
	}
	if (argc > 1)
		*(volatile int *)0 = 1;
	pid_t child = fork();
	if (child == 0)
		_exit(add(1) & 1);
	printf("total %d\n", total);
	fflush(stdout);
	return add(5);
}
END
gcc -g -O0 -pthread -o main main.c
cat > commands <<'END'
set pagination off
set confirm off
set print thread-events off
set print inferior-events off
set can-use-hw-watchpoints 0
break add
run
bt 1
info args
next
print total
print origin
print $rip == (long)$pc
set variable total = 1000
finish
continue
print add
delete
tbreak 33
continue
watch total
continue
delete
catch syscall exit_group
continue
stepi
kill
END
tidy() { sed -E 's/0x[0-9a-f]+/ADDRESS/g; s/\b(Thread|LWP|process|Process|Inferior 1 \(process) [0-9]+/\1 N/g; s/ADDRESS \(LWP N\)/X/g' | grep -vE '^\[|^warning|libthread_db|^$|^Download'; }
echo "-- a session"
gdb -q -nx -batch -x commands ./main 2>&1 | tidy
echo "-- a crash"
gdb -q -nx -batch -ex run -ex 'print $_siginfo.si_signo' -ex 'print $_siginfo._sifields._sigfault.si_addr' -ex 'bt 1' --args ./main crash 2>&1 | tidy
echo "-- a process that runs already"
sleep 100 & pid=$!
sleep 0.3
gdb -q -nx -batch -p $pid -ex "info inferiors" -ex detach 2>&1 | grep -c "process $pid "
grep -c '^TracerPid:	0' /proc/$pid/status
kill $pid
wait $pid || echo "ended with $?"
