/* Time: clock_gettime(2), vdso(7), nanosleep(2), setitimer(2), alarm(2), timer_create(2), timerfd_create(2), times(2). */
#include "guest.h"

#include <pthread.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <sys/timex.h>
#include <poll.h>
#include <elf.h>

static int64_t ns(struct timespec time) { return time.tv_sec * 1000000000LL + time.tv_nsec; }

static int64_t clock_ns(clockid_t clock)
{
	struct timespec now = {0};
	must(clock_gettime(clock, &now));
	return ns(now);
}

CASE(clock_gettime_all)
{
	static const struct { const char *name; clockid_t clock; } clocks[] = {
		{"REALTIME", CLOCK_REALTIME}, {"MONOTONIC", CLOCK_MONOTONIC}, {"MONOTONIC_RAW", CLOCK_MONOTONIC_RAW},
		{"REALTIME_COARSE", CLOCK_REALTIME_COARSE}, {"MONOTONIC_COARSE", CLOCK_MONOTONIC_COARSE}, {"BOOTTIME", CLOCK_BOOTTIME},
		{"TAI", CLOCK_TAI}, {"PROCESS_CPUTIME", CLOCK_PROCESS_CPUTIME_ID}, {"THREAD_CPUTIME", CLOCK_THREAD_CPUTIME_ID},
	};
	struct timespec by_call, resolution;
	for (size_t index = 0; index < COUNT(clocks); index++) {
		int64_t before = clock_ns(clocks[index].clock);
		num(clocks[index].name, syscall(SYS_clock_gettime, clocks[index].clock, &by_call));
		int64_t after = clock_ns(clocks[index].clock);
		yes("  vDSO and system call agree", before <= ns(by_call) && ns(by_call) <= after);
		must(clock_getres(clocks[index].clock, &resolution));
		yes("  resolution", resolution.tv_sec == 0 && resolution.tv_nsec >= 1 && resolution.tv_nsec <= 10000000);
	}
	num("unknown clock", clock_gettime(77, &by_call));
	num("bad pointer", syscall(SYS_clock_gettime, CLOCK_MONOTONIC, 8));
	num("clock_getres without a place", clock_getres(CLOCK_MONOTONIC, NULL));
	num("clock_settime MONOTONIC", clock_settime(CLOCK_MONOTONIC, &by_call));
	num("clock_settime without CAP_SYS_TIME", clock_settime(CLOCK_REALTIME, &by_call));
}

CASE(real_time_functions_agree)
{
	struct timeval day;
	int64_t before = clock_ns(CLOCK_REALTIME) / 1000;
	must(gettimeofday(&day, NULL));
	int64_t after = clock_ns(CLOCK_REALTIME) / 1000, middle = day.tv_sec * 1000000LL + day.tv_usec;
	yes("gettimeofday", before <= middle && middle <= after);
	yes("time", llabs(time(NULL) - after / 1000000) <= 1);
	yes("after 2024", time(NULL) > 1704067200);
	yes("raw gettimeofday", syscall(SYS_gettimeofday, &day, NULL) == 0);
	yes("raw time", syscall(SYS_time, NULL) >= after / 1000000 - 1);
}

CASE(monotonic_never_goes_back)
{
	int64_t last = 0, backwards = 0;
	for (int turn = 0; turn < 200000; turn++) {
		int64_t now = clock_ns(CLOCK_MONOTONIC);
		backwards += now < last;
		last = now;
	}
	say("backwards %ld", (long)backwards);
}

static int64_t newest;
static int64_t reversed;
static void *race(void *argument)
{
	for (int turn = 0; turn < 50000; turn++) {
		int64_t seen = __atomic_load_n(&newest, __ATOMIC_SEQ_CST), now = clock_ns(CLOCK_MONOTONIC);
		if (now < seen)
			__atomic_add_fetch(&reversed, 1, __ATOMIC_SEQ_CST);
		__atomic_store_n(&newest, now, __ATOMIC_SEQ_CST);
	}
	return argument;
}

CASE(monotonic_across_processors)
{
	pthread_t threads[4];
	for (int index = 0; index < 4; index++)
		pthread_create(&threads[index], NULL, race, NULL);
	for (int index = 0; index < 4; index++)
		pthread_join(threads[index], NULL);
	say("reversed %ld", (long)reversed);
}

CASE(vdso_image)
{
	const Elf64_Ehdr *header = (void *)getauxval(AT_SYSINFO_EHDR);
	const Elf64_Phdr *program = (void *)((char *)header + header->e_phoff);
	const Elf64_Dyn *dynamic = NULL;
	uintptr_t load = 0;
	for (int index = 0; index < header->e_phnum; index++) {
		if (program[index].p_type == PT_LOAD)
			load = (uintptr_t)header + program[index].p_offset - program[index].p_vaddr;
		if (program[index].p_type == PT_DYNAMIC)
			dynamic = (void *)((char *)header + program[index].p_offset);
	}
	const char *strings = NULL;
	const Elf64_Sym *symbols = NULL;
	const uint32_t *hash = NULL;
	for (; dynamic && dynamic->d_tag; dynamic++) {
		if (dynamic->d_tag == DT_STRTAB) strings = (void *)(load + dynamic->d_un.d_ptr);
		if (dynamic->d_tag == DT_SYMTAB) symbols = (void *)(load + dynamic->d_un.d_ptr);
		if (dynamic->d_tag == DT_HASH) hash = (void *)(load + dynamic->d_un.d_ptr);
		if (dynamic->d_tag == DT_GNU_HASH && !hash) hash = NULL;
	}
	static const char *const names[] = {"__vdso_clock_gettime", "__vdso_gettimeofday", "__vdso_time", "__vdso_getcpu", "__vdso_clock_getres"};
	yes("strings and symbols", strings && symbols);
	/* The string table follows the symbols, so it bounds them. */
	for (size_t name = 0; strings && symbols && name < COUNT(names); name++) {
		bool found = false;
		for (const Elf64_Sym *symbol = symbols; (const char *)(symbol + 1) <= strings; symbol++)
			found |= strcmp(strings + symbol->st_name, names[name]) == 0 && symbol->st_value;
		yes(names[name], found);
	}
}

CASE(cpu_time_counts_work_only)
{
	int64_t before = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	nap(50);
	int64_t slept = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - before;
	yes("a sleep costs little", slept < 30000000);
	struct tms times_before, times_after;
	times(&times_before);
	int64_t start = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	while (clock_ns(CLOCK_THREAD_CPUTIME_ID) - start < 60000000)
		;
	times(&times_after);
	long ticks = times_after.tms_utime + times_after.tms_stime - times_before.tms_utime - times_before.tms_stime;
	yes("60 ms of work are about 6 ticks", ticks >= 4 && ticks <= 12);
	clockid_t clock;
	say("clock_getcpuclockid %d", clock_getcpuclockid(getpid(), &clock));
	yes("of myself", llabs(clock_ns(clock) - clock_ns(CLOCK_PROCESS_CPUTIME_ID)) < 50000000);
	say("of an absent one: %s", error_name(clock_getcpuclockid(99999, &clock)));
}

CASE(sleeps_last_long_enough)
{
	int64_t before = clock_ns(CLOCK_MONOTONIC);
	nap(20);
	yes("nanosleep", clock_ns(CLOCK_MONOTONIC) - before >= 20000000);
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += 20000000;
	if (until.tv_nsec >= 1000000000)
		until.tv_nsec -= 1000000000, until.tv_sec++;
	say("absolute: %d", clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL));
	yes("not before its time", clock_ns(CLOCK_MONOTONIC) >= ns(until));
	say("again, past: %d", clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL));
	say("REALTIME: %d", clock_nanosleep(CLOCK_REALTIME, 0, &(struct timespec){0, 1000000}, NULL));
	say("bad nanoseconds: %s", error_name(clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){0, 1000000000}, NULL)));
	say("negative: %s", error_name(clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){-1, 0}, NULL)));
	say("thread clock: %s", error_name(clock_nanosleep(CLOCK_THREAD_CPUTIME_ID, 0, &(struct timespec){0, 1}, NULL)));
	say("unknown clock: %s", error_name(clock_nanosleep(99, 0, &(struct timespec){0, 1}, NULL)));
	num("nanosleep bad pointer", syscall(SYS_nanosleep, 8, NULL));
}

static volatile int ticks, last_code, last_value, last_overrun;
static void tick(int number, siginfo_t *info, void *context)
{
	(void)context;
	(void)number;
	ticks++;
	last_code = info->si_code;
	last_value = info->si_value.sival_int;
	last_overrun = info->si_overrun;
}

static void wait_for_ticks(int wanted)
{
	for (int round = 0; round < 2000 && ticks < wanted; round++)
		nap(5);
}

CASE(interval_timers)
{
	struct itimerval timer = {{0, 10000}, {0, 10000}}, old;
	on_siginfo(SIGALRM, tick, 0);
	num("setitimer REAL", setitimer(ITIMER_REAL, &timer, NULL));
	wait_for_ticks(3);
	yes("three ticks", ticks >= 3);
	num("getitimer", getitimer(ITIMER_REAL, &old));
	yes("interval kept", old.it_interval.tv_usec == 10000 && old.it_value.tv_usec <= 10000);
	num("off", setitimer(ITIMER_REAL, &(struct itimerval){0}, &old));
	int now = ticks;
	nap(30);
	yes("no tick afterwards", ticks == now);
	num("unknown timer", setitimer(9, &timer, NULL));
	num("bad microseconds", setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, 1000000}}, NULL));
	num("bad pointer", syscall(SYS_setitimer, ITIMER_REAL, 8, NULL));
}

CASE(cpu_interval_timers)
{
	struct itimerval timer = {{0, 0}, {0, 30000}};
	on_siginfo(SIGVTALRM, tick, 0);
	on_siginfo(SIGPROF, tick, 0);
	num("VIRTUAL", setitimer(ITIMER_VIRTUAL, &timer, NULL));
	while (ticks < 1)
		;
	num("PROF", setitimer(ITIMER_PROF, &timer, NULL));
	while (ticks < 2)
		;
	say("ticks %d", ticks);
}

CASE(alarms)
{
	on_siginfo(SIGALRM, tick, 0);
	num("alarm", alarm(100));
	num("replaced: seconds left", alarm(200));
	struct itimerval timer;
	must(getitimer(ITIMER_REAL, &timer));
	yes("the same timer as ITIMER_REAL", timer.it_value.tv_sec >= 198);
	yes("off: seconds left", alarm(0) >= 199);
	num("none", alarm(0));
	alarm(1);
	num("pause ends", pause());
	say("ticks %d", ticks);
}

CASE(posix_timers)
{
	timer_t timer;
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN, .sigev_value.sival_int = 77};
	struct itimerspec soon = {{0, 0}, {0, 5000000}}, left;
	on_siginfo(SIGRTMIN, tick, 0);
	num("timer_create", timer_create(CLOCK_MONOTONIC, &event, &timer));
	num("not armed", timer_gettime(timer, &left));
	yes("zero", left.it_value.tv_nsec == 0 && left.it_value.tv_sec == 0);
	num("timer_settime", timer_settime(timer, 0, &soon, NULL));
	wait_for_ticks(1);
	say("ticks %d, SI_TIMER %d, value %d, overrun %d", ticks, last_code == SI_TIMER, last_value, last_overrun);
	struct itimerspec fast = {{0, 1000000}, {0, 1000000}};
	block_signal(SIGRTMIN);
	must(timer_settime(timer, 0, &fast, NULL));
	nap(30);
	ticks = 0;
	unblock_signal(SIGRTMIN);
	yes("what came while blocked is delivered", ticks >= 1);
	must(timer_settime(timer, 0, &(struct itimerspec){0}, &left));
	yes("old interval reported", left.it_interval.tv_nsec == 1000000);
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	ticks = 0;
	must(timer_settime(timer, TIMER_ABSTIME, &(struct itimerspec){{0, 0}, now}, NULL));
	wait_for_ticks(1);
	num("absolute and past fires at once", ticks > 0);
	num("timer_delete", timer_delete(timer));
	num("raw timer_gettime of a deleted one", syscall(SYS_timer_gettime, 0, &left));
	num("raw timer_delete of a deleted one", syscall(SYS_timer_delete, 0));
	event.sigev_signo = 99;
	num("bad signal", timer_create(CLOCK_MONOTONIC, &event, &timer));
	event.sigev_signo = SIGRTMIN;
	num("unknown clock", timer_create(99, &event, &timer));
}

CASE(posix_timer_overrun)
{
	timer_t timer;
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
	on_siginfo(SIGRTMIN, tick, 0);
	block_signal(SIGRTMIN);
	must(timer_create(CLOCK_REALTIME, &event, &timer));
	must(timer_settime(timer, 0, &(struct itimerspec){{0, 2000000}, {0, 2000000}}, NULL));
	nap(40);
	unblock_signal(SIGRTMIN);
	yes("overruns are counted", last_overrun >= 5);
	must(timer_delete(timer));
}

CASE(posix_timer_that_was_not_taken)
{
	/* timer_settime(2) drops an expiry that waits to be taken; so does an action that ignores it. Either way the timer goes on. */
	timer_t timer;
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
	struct itimerspec periodic = {{0, 2000000}, {0, 2000000}};
	on_siginfo(SIGRTMIN, tick, 0);
	block_signal(SIGRTMIN);
	must(timer_create(CLOCK_MONOTONIC, &event, &timer));
	must(timer_settime(timer, 0, &(struct itimerspec){{0, 0}, {0, 1000000}}, NULL));
	nap(20);
	must(timer_settime(timer, 0, &(struct itimerspec){{0, 0}, {0, 1000000}}, NULL));
	unblock_signal(SIGRTMIN);
	wait_for_ticks(1);
	say("set anew: ticks %d, overrun %d", ticks, last_overrun);
	must(timer_settime(timer, 0, &periodic, NULL));
	signal(SIGRTMIN, SIG_IGN);
	nap(20);
	ticks = 0;
	on_siginfo(SIGRTMIN, tick, 0);
	wait_for_ticks(3);
	yes("no longer ignored", ticks >= 3);
	must(timer_delete(timer));
}

CASE(posix_timer_of_a_microsecond)
{
	/* It expires faster than its signal can be taken: expiries are counted, and the program goes on. */
	timer_t timer;
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
	sigset_t set;
	siginfo_t info;
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	block_signal(SIGRTMIN);
	must(timer_create(CLOCK_MONOTONIC, &event, &timer));
	must(timer_settime(timer, 0, &(struct itimerspec){{0, 1000}, {0, 1000}}, NULL));
	int taken = 0;
	while (taken < 50 && sigtimedwait(&set, &info, &(struct timespec){2, 0}) == SIGRTMIN)
		taken++;
	num("taken", taken);
	nap(20);
	must(sigtimedwait(&set, &info, &(struct timespec){2, 0}));
	yes("every expiry of 20 ms is counted", info.si_overrun > 10000);
	must(timer_delete(timer));
}

static void notify(union sigval value)
{
	ticks = value.sival_int;
}

CASE(posix_timer_thread_and_none)
{
	timer_t timer;
	struct sigevent event = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = notify, .sigev_value.sival_int = 5};
	must(timer_create(CLOCK_REALTIME, &event, &timer));
	must(timer_settime(timer, 0, &(struct itimerspec){{0, 0}, {0, 1000000}}, NULL));
	until_changed(&ticks, 0);
	say("thread notified with %d", ticks);
	event = (struct sigevent){.sigev_notify = SIGEV_NONE};
	must(timer_create(CLOCK_MONOTONIC, &event, &timer));
	must(timer_settime(timer, 0, &(struct itimerspec){{0, 0}, {100, 0}}, NULL));
	struct itimerspec left;
	must(timer_gettime(timer, &left));
	yes("counts down", left.it_value.tv_sec >= 98);
}

CASE(posix_timer_to_thread)
{
	timer_t timer;
	struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
	event._sigev_un._tid = gettid();
	on_siginfo(SIGUSR1, tick, 0);
	must(timer_create(CLOCK_MONOTONIC, &event, &timer));
	must(timer_settime(timer, 0, &(struct itimerspec){{0, 0}, {0, 1000000}}, NULL));
	wait_for_ticks(1);
	say("ticks %d", ticks);
}

CASE(timers_and_fork_and_exec)
{
	/* timer_create(2): timers are not inherited; fork(2): neither are interval timers. */
	timer_t timer;
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
	must(timer_create(CLOCK_MONOTONIC, &event, &timer));
	must(setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {100, 0}}, NULL));
	pid_t child = must(fork());
	if (child == 0) {
		struct itimerval left;
		num("timer in the child", syscall(SYS_timer_delete, 0));
		getitimer(ITIMER_REAL, &left);
		num("interval timer in the child", left.it_value.tv_sec);
		_exit(0);
	}
	reap(child);
}

CASE(timerfd)
{
	uint64_t expirations = 0;
	struct itimerspec left;
	int fd = must(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
	num("F_GETFD", fcntl(fd, F_GETFD));
	num("read of a disarmed one", read(fd, &expirations, 8));
	num("arm", timerfd_settime(fd, 0, &(struct itimerspec){{0, 5000000}, {0, 5000000}}, NULL));
	struct pollfd ready = {.fd = fd, .events = POLLIN};
	num("poll", poll(&ready, 1, 10000));
	say("revents %#x", ready.revents);
	nap(20);
	num("read", read(fd, &expirations, 8));
	yes("several expirations", expirations >= 3);
	num("read too small", read(fd, &expirations, 4));
	num("gettime", timerfd_gettime(fd, &left));
	yes("interval", left.it_interval.tv_nsec == 5000000);
	num("disarm", timerfd_settime(fd, 0, &(struct itimerspec){0}, NULL));
	num("read", read(fd, &expirations, 8));
	int blocking = must(timerfd_create(CLOCK_REALTIME, 0));
	must(timerfd_settime(blocking, TFD_TIMER_ABSTIME, &(struct itimerspec){{0, 0}, {1, 0}}, NULL));
	num("absolute, past: blocking read", read(blocking, &expirations, 8));
	say("expirations %lu", (unsigned long)expirations);
	must(timerfd_settime(blocking, 0, &(struct itimerspec){{0, 0}, {0, 10000000}}, NULL));
	num("blocking read", read(blocking, &expirations, 8));
	num("unknown clock", timerfd_create(99, 0));
	num("unknown flags", timerfd_create(CLOCK_MONOTONIC, 4));
	num("bad value", timerfd_settime(fd, 0, &(struct itimerspec){{0, 0}, {0, -1}}, NULL));
	num("not a timerfd", timerfd_settime(1, 0, &left, NULL));
	num("write", write(fd, "12345678", 8));
}

CASE(adjtimex_reads)
{
	struct timex state = {0};
	yes("adjtimex", adjtimex(&state) >= 0);
	state.modes = ADJ_FREQUENCY;
	num("adjusting without CAP_SYS_TIME", adjtimex(&state));
}
