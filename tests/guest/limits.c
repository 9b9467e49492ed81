/* Limits and attributes: sched_setscheduler(2), sched_setaffinity(2), getrlimit(2), getrusage(2), prctl(2). */
#include "guest.h"

#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>

CASE(scheduler_calls)
{
	struct sched_param parameters = {0};
	num("sched_getscheduler", sched_getscheduler(0));
	num("sched_getparam", sched_getparam(0, &parameters));
	num("sched_get_priority_max FIFO", sched_get_priority_max(SCHED_FIFO));
	num("sched_get_priority_min OTHER", sched_get_priority_min(SCHED_OTHER));
	num("sched_get_priority_max unknown", sched_get_priority_max(77));
	num("sched_yield", sched_yield());
	num("sched_setscheduler BATCH", sched_setscheduler(0, SCHED_BATCH, &parameters));
	num("sched_getscheduler", sched_getscheduler(0));
	num("sched_getscheduler of an absent one", sched_getscheduler(0x3fffffff));
	parameters.sched_priority = 5;
	num("OTHER with a priority", sched_setscheduler(0, SCHED_OTHER, &parameters));
	cpu_set_t set;
	yes("sched_getaffinity", sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) >= 1);
	int first = 0;
	while (!CPU_ISSET(first, &set))
		first++;
	cpu_set_t one;
	CPU_ZERO(&one);
	CPU_SET(first, &one);
	num("sched_setaffinity to one", sched_setaffinity(0, sizeof one, &one));
	must(sched_getaffinity(0, sizeof set, &set));
	num("cpus now", CPU_COUNT(&set));
	yes("getcpu agrees", sched_getcpu() == first);
	CPU_ZERO(&one);
	num("sched_setaffinity to none", sched_setaffinity(0, sizeof one, &one));
	num("getpriority raw", syscall(SYS_getpriority, PRIO_PROCESS, 0));
	num("nice +5", setpriority(PRIO_PROCESS, 0, 5));
	num("getpriority raw", syscall(SYS_getpriority, PRIO_PROCESS, 0));
	num("getpriority of a bad kind", syscall(SYS_getpriority, 9, 0));
}

CASE(rlimits)
{
	struct rlimit limit;
	must(getrlimit(RLIMIT_NOFILE, &limit));
	say("RLIMIT_NOFILE %lu %lu", limit.rlim_cur, limit.rlim_max);
	limit.rlim_cur = 10;
	num("lower the soft limit", setrlimit(RLIMIT_NOFILE, &limit));
	while (open("/dev/null", O_RDONLY) >= 0)
		;
	say("open at the limit: %s", error_name(errno));
	num("dup2 beyond the limit", dup2(1, 10));
	num("fcntl F_DUPFD beyond the limit", fcntl(1, F_DUPFD, 10));
	limit.rlim_cur = limit.rlim_max + 1;
	num("soft above hard", setrlimit(RLIMIT_NOFILE, &limit));
	num("unknown resource", getrlimit(99, &limit));
	struct rlimit old, new = {100, 100};
	num("prlimit both", prlimit(0, RLIMIT_CPU, &new, &old));
	yes("old was unlimited", old.rlim_cur == RLIM_INFINITY);
	new.rlim_max = 200;
	num("raising a hard limit without CAP_SYS_RESOURCE", prlimit(0, RLIMIT_CPU, &new, NULL));
	num("prlimit of an absent process", prlimit(99999, RLIMIT_CPU, NULL, &old));
}

CASE(rlimit_fsize)
{
	/* setrlimit(2): growing a file beyond RLIMIT_FSIZE raises SIGXFSZ, and fails with EFBIG if that is ignored. */
	struct rlimit limit = {1000, 1000};
	pid_t child = must(fork());
	if (child == 0) {
		must(setrlimit(RLIMIT_FSIZE, &limit));
		signal(SIGXFSZ, SIG_IGN);
		char block[600] = "";
		int fd = must(open("f", O_WRONLY | O_CREAT, 0644));
		num("600 bytes", write(fd, block, 600));
		num("600 more: cut", write(fd, block, 600));
		num("at the limit", write(fd, block, 600));
		num("ftruncate beyond", ftruncate(fd, 2000));
		signal(SIGXFSZ, SIG_DFL);
		num("not reached", write(fd, block, 600));
		_exit(0);
	}
	status("child", reap(child));
}

CASE(rlimit_cpu)
{
	pid_t child = must(fork());
	if (child == 0) {
		struct rlimit limit = {1, 2};
		must(setrlimit(RLIMIT_CPU, &limit));
		for (volatile uint64_t turns = 0;; turns++)
			;
	}
	status("a second of CPU time", reap(child));
}

CASE(rusage)
{
	struct rusage usage;
	for (volatile int turns = 0; turns < 50000000; turns++)
		;
	must(getrusage(RUSAGE_SELF, &usage));
	yes("user time counted", usage.ru_utime.tv_sec * 1000000 + usage.ru_utime.tv_usec > 10000);
	yes("ru_maxrss", usage.ru_maxrss > 0);
	num("RUSAGE_THREAD", getrusage(RUSAGE_THREAD, &usage));
	num("bad who", getrusage(55, &usage));
	pid_t child = must(fork());
	if (child == 0) {
		for (volatile int turns = 0; turns < 50000000; turns++)
			;
		_exit(0);
	}
	reap(child);
	must(getrusage(RUSAGE_CHILDREN, &usage));
	yes("children's time counted", usage.ru_utime.tv_sec * 1000000 + usage.ru_utime.tv_usec > 10000);
}

CASE(prctl_calls)
{
	char name[16] = "";
	int value = 0;
	num("PR_SET_NAME", prctl(PR_SET_NAME, "a name of twenty chars"));
	must(prctl(PR_GET_NAME, name));
	say("PR_GET_NAME %s", name);
	num("PR_GET_DUMPABLE", prctl(PR_GET_DUMPABLE));
	num("PR_SET_DUMPABLE 0", prctl(PR_SET_DUMPABLE, 0));
	num("PR_GET_DUMPABLE", prctl(PR_GET_DUMPABLE));
	num("PR_SET_DUMPABLE 5", prctl(PR_SET_DUMPABLE, 5));
	num("PR_SET_PDEATHSIG", prctl(PR_SET_PDEATHSIG, SIGUSR1));
	must(prctl(PR_GET_PDEATHSIG, &value));
	say("PR_GET_PDEATHSIG %s", signal_name(value));
	num("PR_SET_PDEATHSIG 99", prctl(PR_SET_PDEATHSIG, 99));
	num("PR_GET_NO_NEW_PRIVS", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
	num("PR_SET_NO_NEW_PRIVS", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	num("PR_GET_NO_NEW_PRIVS", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
	num("PR_SET_NO_NEW_PRIVS 0", prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));
	num("PR_GET_KEEPCAPS", prctl(PR_GET_KEEPCAPS));
	num("PR_GET_TIMERSLACK", prctl(PR_GET_TIMERSLACK));
	num("PR_CAPBSET_READ CHOWN", prctl(PR_CAPBSET_READ, 0));
	num("PR_CAPBSET_READ SYS_ADMIN", prctl(PR_CAPBSET_READ, 21));
	num("PR_CAPBSET_READ 99", prctl(PR_CAPBSET_READ, 99));
	num("unknown", prctl(123456));
	num("arch_prctl unknown", syscall(SYS_arch_prctl, 0x9999, 0));
}

static long ioprio_set(int which, int who, int priority) { return syscall(SYS_ioprio_set, which, who, priority); }
static long ioprio_get(int which, int who) { return syscall(SYS_ioprio_get, which, who); }

CASE(io_priorities)
{
	enum { PROCESS = 1, GROUP, CLASS = 13, BEST_EFFORT = 2, IDLE };
	num("default", ioprio_get(PROCESS, 0) & 7);
	ok("best effort", ioprio_set(PROCESS, 0, BEST_EFFORT << CLASS | 6));
	num("it is stored", ioprio_get(PROCESS, 0));
	pid_t child = must(fork());
	if (child == 0) {
		num("and inherited", ioprio_get(PROCESS, 0));
		_exit(0);
	}
	reap(child);
	ok("idle", ioprio_set(PROCESS, 0, IDLE << CLASS));
	num("idle", ioprio_get(PROCESS, 0));
	ok("no such level", ioprio_set(PROCESS, 0, BEST_EFFORT << CLASS | 8));
	ok("no such class", ioprio_set(PROCESS, 0, 5 << CLASS));
	ok("no such kind", ioprio_set(7, 0, BEST_EFFORT << CLASS));
	ok("nobody", ioprio_get(PROCESS, 4000000));
}

CASE(timer_slack)
{
	num("default", prctl(PR_GET_TIMERSLACK));
	must(prctl(PR_SET_TIMERSLACK, 70000));
	pid_t child = must(fork());
	if (child == 0) {
		must(prctl(PR_SET_TIMERSLACK, 1));
		must(prctl(PR_SET_TIMERSLACK, 0));
		num("0 is what it began with", prctl(PR_GET_TIMERSLACK));
		_exit(0);
	}
	reap(child);
	must(prctl(PR_SET_TIMERSLACK, 0));
	num("here too", prctl(PR_GET_TIMERSLACK));
}

CASE(queued_signals)
{
	struct rlimit none = {0, 0};
	block_signal(SIGRTMIN);
	block_signal(SIGUSR1);
	must(setrlimit(RLIMIT_SIGPENDING, &none));
	ok("sigqueue", sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 1}));
	ok("tgkill", syscall(SYS_tgkill, getpid(), gettid(), SIGRTMIN));
	ok("kill", kill(getpid(), SIGRTMIN));
	ok("a standard signal", syscall(SYS_tgkill, getpid(), gettid(), SIGUSR1));
}
