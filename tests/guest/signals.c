/* Signals: sigaction(2), signal(7), sigaltstack(2), rt_sigqueueinfo(2), sigtimedwait(2), sigreturn(2), SA_RESTART. */
#include "guest.h"

#include <poll.h>
#include <setjmp.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unwind.h>

static volatile int hits, last_signal, last_code, last_value, last_pid;

static void note(int number)
{
	hits++;
	last_signal = number;
}

static void note_info(int number, siginfo_t *info, void *context)
{
	(void)context;
	hits++;
	last_signal = number;
	last_code = info->si_code;
	last_value = info->si_value.sival_int;
	last_pid = info->si_pid;
}

CASE(handler_runs)
{
	on_signal(SIGUSR1, note, 0);
	num("raise", raise(SIGUSR1));
	say("%d hit, %s", hits, signal_name(last_signal));
	num("kill", kill(getpid(), SIGUSR1));
	say("%d hits: delivered before kill returns", hits);
	signal(SIGUSR1, SIG_IGN);
	raise(SIGUSR1);
	say("%d hits when ignored", hits);
}

CASE(default_actions)
{
	/* signal(7): Term, Core, Ign, Stop, Cont for every standard signal. */
	for (int number = 1; number <= 31; number++) {
		if (number == SIGKILL || number == SIGSTOP)
			continue;
		pid_t child = must(fork());
		if (child == 0) {
			setpgid(0, 0); /* not orphaned: the parent is in another group of the session, so stops work */
			raise(number);
			_exit(0);
		}
		int wait_status = 0;
		must(waitpid(child, &wait_status, WUNTRACED));
		status(signal_name(number), wait_status);
		if (WIFSTOPPED(wait_status)) {
			kill(child, SIGKILL);
			reap(child);
		}
	}
	pid_t child = must(fork());
	if (child == 0) {
		raise(SIGRTMIN + 3);
		_exit(0);
	}
	status("SIGRTMIN+3", reap(child));
}

CASE(sigaction_errors)
{
	struct sigaction action = {.sa_handler = note}, old;

	num("SIGKILL", sigaction(SIGKILL, &action, NULL));
	num("SIGSTOP", sigaction(SIGSTOP, &action, NULL));
	num("query SIGKILL", sigaction(SIGKILL, NULL, &old));
	num("signal 0", sigaction(0, &action, NULL));
	num("signal 65", sigaction(65, &action, NULL));
	num("bad pointer", syscall(SYS_rt_sigaction, SIGUSR1, 8, NULL, 8));
	num("bad set size", syscall(SYS_rt_sigaction, SIGUSR1, NULL, NULL, 4));
	num("sigprocmask how", syscall(SYS_rt_sigprocmask, 77, &(unsigned long){0}, NULL, 8));
	num("sigprocmask size", syscall(SYS_rt_sigprocmask, SIG_BLOCK, &(unsigned long){0}, NULL, 16));
	must(sigaction(SIGUSR1, &(struct sigaction){.sa_handler = note, .sa_flags = SA_RESTART | SA_NODEFER}, NULL));
	must(sigaction(SIGUSR1, NULL, &old));
	yes("what was set is reported", old.sa_handler == note && (old.sa_flags & ~0x04000000) == (SA_RESTART | SA_NODEFER));
}

CASE(standard_signals_do_not_queue)
{
	on_signal(SIGUSR1, note, 0);
	on_siginfo(SIGRTMIN, note_info, 0);
	block_signal(SIGUSR1);
	block_signal(SIGRTMIN);
	for (int turn = 0; turn < 5; turn++) {
		raise(SIGUSR1);
		raise(SIGRTMIN);
	}
	unblock_signal(SIGUSR1);
	say("SIGUSR1 arrives %d time", hits);
	hits = 0;
	unblock_signal(SIGRTMIN);
	say("SIGRTMIN arrives %d times", hits);
}

static int order[16], ordered;
static void note_order(int number, siginfo_t *info, void *context)
{
	(void)context;
	order[ordered++] = number * 1000 + info->si_value.sival_int;
}

CASE(real_time_order)
{
	/* signal(7): lowest number first; of one number, in the order sent, with their values. */
	sigset_t all;
	struct sigaction action = {.sa_sigaction = note_order, .sa_flags = SA_SIGINFO};
	sigfillset(&action.sa_mask);
	for (int number = 0; number < 4; number++)
		must(sigaction(SIGRTMIN + number, &action, NULL));
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	for (int number = 3; number >= 0; number--)
		for (int value = 1; value <= 2; value++)
			must(sigqueue(getpid(), SIGRTMIN + number, (union sigval){.sival_int = value}));
	sigprocmask(SIG_UNBLOCK, &all, NULL);
	for (int index = 0; index < ordered; index++)
		say("%s value %d", signal_name(order[index] / 1000), order[index] % 1000);
}

CASE(siginfo_of_senders)
{
	on_siginfo(SIGUSR1, note_info, 0);
	raise(SIGUSR1);
	yes("raise: SI_TKILL from me", last_code == SI_TKILL && last_pid == getpid());
	kill(getpid(), SIGUSR1);
	yes("kill: SI_USER", last_code == SI_USER && last_pid == getpid());
	sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 42});
	yes("sigqueue: SI_QUEUE", last_code == SI_QUEUE && last_value == 42);
	siginfo_t info = {.si_signo = SIGUSR1, .si_code = -60};
	info.si_value.sival_int = 7;
	num("rt_sigqueueinfo with a code of its own", syscall(SYS_rt_sigqueueinfo, getpid(), SIGUSR1, &info));
	say("si_code %d value %d", last_code, last_value);
	info.si_code = SI_USER;
	num("rt_sigqueueinfo posing as kill, to another", syscall(SYS_rt_sigqueueinfo, getppid(), 0, &info));
	num("rt_tgsigqueueinfo", syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), SIGUSR1, &info));
	pid_t me = getpid(), child = must(fork());
	if (child == 0) {
		kill(me, SIGUSR1);
		_exit(0);
	}
	reap(child);
	yes("from a child", last_pid == child && last_code == SI_USER);
}

CASE(sigchld_info)
{
	on_siginfo(SIGCHLD, note_info, 0);
	pid_t child = must(fork());
	if (child == 0)
		_exit(7);
	reap(child);
	yes("CLD_EXITED", last_code == CLD_EXITED && last_pid == child);
	child = must(fork());
	if (child == 0) {
		for (;;)
			pause();
	}
	hits = 0;
	kill(child, SIGSTOP);
	until_changed(&hits, 0);
	yes("CLD_STOPPED", last_code == CLD_STOPPED);
	hits = 0;
	kill(child, SIGCONT);
	until_changed(&hits, 0);
	yes("CLD_CONTINUED", last_code == CLD_CONTINUED);
	hits = 0;
	kill(child, SIGTERM);
	until_changed(&hits, 0);
	yes("CLD_KILLED", last_code == CLD_KILLED);
	reap(child);
	struct sigaction action = {.sa_sigaction = note_info, .sa_flags = SA_SIGINFO | SA_NOCLDSTOP};
	must(sigaction(SIGCHLD, &action, NULL));
	child = must(fork());
	if (child == 0) {
		for (;;)
			pause();
	}
	hits = 0;
	kill(child, SIGSTOP);
	must(waitpid(child, NULL, WUNTRACED));
	say("SA_NOCLDSTOP: %d", hits);
	kill(child, SIGKILL);
	reap(child);
}

static void note_mask(int number)
{
	sigset_t set;
	sigprocmask(SIG_SETMASK, NULL, &set);
	say("in the handler of %s: USR1 %d USR2 %d", signal_name(number), sigismember(&set, SIGUSR1), sigismember(&set, SIGUSR2));
}

CASE(masks_in_handlers)
{
	struct sigaction action = {.sa_handler = note_mask};
	sigaddset(&action.sa_mask, SIGUSR2);
	must(sigaction(SIGUSR1, &action, NULL));
	raise(SIGUSR1);
	action.sa_flags = SA_NODEFER;
	must(sigaction(SIGUSR1, &action, NULL));
	raise(SIGUSR1);
	sigset_t set;
	sigprocmask(SIG_SETMASK, NULL, &set);
	say("afterwards: USR1 %d USR2 %d", sigismember(&set, SIGUSR1), sigismember(&set, SIGUSR2));
}

static int depth;
static void nest(int number)
{
	if (++depth < 10)
		raise(number);
	hits++;
}

CASE(nested_handlers)
{
	on_signal(SIGUSR1, nest, SA_NODEFER);
	raise(SIGUSR1);
	say("depth %d hits %d", depth, hits);
}

CASE(reset_hand)
{
	struct sigaction action;
	on_signal(SIGUSR1, note, SA_RESETHAND);
	raise(SIGUSR1);
	sigaction(SIGUSR1, NULL, &action);
	yes("default again", action.sa_handler == SIG_DFL);
	say("%d hit", hits);
}

static char *alternate;
static void on_alternate(int number)
{
	char here;
	stack_t stack;
	(void)number;
	yes("on the alternate stack", &here >= alternate && &here < alternate + 65536);
	sigaltstack(NULL, &stack);
	yes("SS_ONSTACK", stack.ss_flags == SS_ONSTACK);
	num("changing it now", sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL));
}

CASE(alternate_stack)
{
	stack_t stack = {0};
	alternate = must_map(mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	must(sigaltstack(NULL, &stack));
	yes("SS_DISABLE at first", stack.ss_flags == SS_DISABLE);
	stack = (stack_t){.ss_sp = alternate, .ss_size = 65536};
	num("sigaltstack", sigaltstack(&stack, NULL));
	on_signal(SIGUSR1, on_alternate, SA_ONSTACK);
	raise(SIGUSR1);
	must(sigaltstack(NULL, &stack));
	num("flags afterwards", stack.ss_flags);
	num("too small", sigaltstack(&(stack_t){.ss_sp = alternate, .ss_size = 100}, NULL));
	num("bad flags", sigaltstack(&(stack_t){.ss_sp = alternate, .ss_size = 65536, .ss_flags = 99}, NULL));
	stack = (stack_t){.ss_sp = alternate, .ss_size = 65536, .ss_flags = (int)(1U << 31)};
	num("SS_AUTODISARM", sigaltstack(&stack, NULL));
}

CASE(sigpending_and_sigsuspend)
{
	sigset_t set, empty;
	sigemptyset(&empty);
	on_signal(SIGUSR1, note, 0);
	block_signal(SIGUSR1);
	raise(SIGUSR1);
	sigpending(&set);
	say("pending %d, hits %d", sigismember(&set, SIGUSR1), hits);
	num("sigsuspend", sigsuspend(&empty));
	say("hits %d", hits);
	sigprocmask(SIG_SETMASK, NULL, &set);
	say("blocked again: %d", sigismember(&set, SIGUSR1));
	raise(SIGUSR1);
	signal(SIGUSR1, SIG_IGN);
	sigpending(&set);
	say("ignoring discards what is pending: %d", sigismember(&set, SIGUSR1));
}

CASE(sigtimedwait_takes)
{
	sigset_t set;
	siginfo_t info;
	struct timespec soon = {0, 1000000}, none = {0, 0}, bad = {0, 1000000000};
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGRTMIN);
	sigprocmask(SIG_BLOCK, &set, NULL);
	num("nothing pending", sigtimedwait(&set, &info, &none));
	num("timeout", sigtimedwait(&set, &info, &soon));
	num("bad timeout", sigtimedwait(&set, &info, &bad));
	sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 9});
	raise(SIGUSR1);
	say("first %s", signal_name(sigwaitinfo(&set, &info)));
	say("then %s", signal_name(sigwaitinfo(&set, &info)));
	say("with value %d code %d", info.si_value.sival_int, info.si_code);
	pid_t parent = getpid(), child = must(fork());
	if (child == 0) {
		until_asleep(parent);
		kill(parent, SIGUSR1);
		_exit(0);
	}
	say("woken by %s", signal_name(sigwaitinfo(&set, &info)));
	yes("si_pid is the child", info.si_pid == child);
	reap(child);
	on_signal(SIGUSR2, note, SA_RESTART);
	child = must(fork());
	if (child == 0) {
		until_asleep(parent);
		kill(parent, SIGUSR2);
		_exit(0);
	}
	num("another signal's handler interrupts", sigwaitinfo(&set, &info));
	reap(child);
}

/* Sends SIGUSR1 to the process again and again until it is killed. */
static pid_t pester(pid_t target)
{
	pid_t child = must(fork());
	if (child == 0) {
		for (;;) {
			until_asleep(target);
			kill(target, SIGUSR1);
			nap(20);
		}
	}
	return child;
}

static int blocking_pipe[2], blocking_socket[2];

static long block_in(int which)
{
	char byte;
	struct pollfd poll_fd = {.fd = blocking_pipe[0], .events = POLLIN};
	struct timespec minute = {60, 0};
	struct epoll_event event;
	fd_set set;
	struct timeval timeout = {60, 0};
	sigset_t mask;

	switch (which) {
	case 0: return read(blocking_pipe[0], &byte, 1);
	case 1: return recv(blocking_socket[0], &byte, 1, 0);
	case 2: return poll(&poll_fd, 1, 60000);
	case 3: FD_ZERO(&set); FD_SET(blocking_pipe[0], &set); return select(blocking_pipe[0] + 1, &set, NULL, NULL, &timeout);
	case 4: return nanosleep(&minute, NULL);
	case 5: return clock_nanosleep(CLOCK_MONOTONIC, 0, &minute, NULL) ? errno = EINTR, -1 : 0;
	case 6: return pause();
	case 7: sigemptyset(&mask); sigaddset(&mask, SIGUSR2); return sigtimedwait(&mask, NULL, &minute);
	case 8: return epoll_wait(epoll_create1(0), &event, 1, 60000);
	case 9: return accept(blocking_socket[1], NULL, NULL);
	case 10: return usleep(60000000);
	}
	return 0;
}

static const char *const BLOCKING[] = {"read of a pipe", "recv", "poll", "select", "nanosleep", "clock_nanosleep", "pause",
				       "sigtimedwait", "epoll_wait", "accept", "usleep"};

static volatile int release_fd = -1;
static void release(int number)
{
	/* After three interruptions, let a restarted call finish. */
	(void)number;
	if (++hits == 3 && release_fd >= 0)
		must(write(release_fd, "!", 1));
}

CASE(interrupted_without_restart)
{
	/* signal(7): every blocking call fails with EINTR when the handler has no SA_RESTART. */
	must(pipe(blocking_pipe));
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, blocking_socket));
	blocking_socket[1] = must(socket(AF_UNIX, SOCK_STREAM, 0));
	must(bind(blocking_socket[1], &(struct sockaddr){.sa_family = AF_UNIX}, sizeof(sa_family_t)));
	must(listen(blocking_socket[1], 1));
	int pair[2];
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	blocking_socket[0] = pair[0];
	on_signal(SIGUSR1, note, 0);
	pid_t sender = pester(getpid());
	for (size_t which = 0; which < COUNT(BLOCKING); which++)
		num(BLOCKING[which], block_in(which));
	kill(sender, SIGKILL);
}

CASE(interrupted_with_restart)
{
	/* signal(7): read and recv are restarted; poll, select, the sleeps, epoll_wait and sigtimedwait never are. */
	must(pipe(blocking_pipe));
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, blocking_socket));
	on_signal(SIGUSR1, release, SA_RESTART);
	pid_t sender = pester(getpid());
	for (size_t which = 0; which <= 8; which++) {
		release_fd = which == 0 ? blocking_pipe[1] : which == 1 ? blocking_socket[1] : -1;
		hits = 0;
		num(BLOCKING[which], block_in(which));
	}
	kill(sender, SIGKILL);
}

CASE(wait_is_restarted)
{
	on_signal(SIGUSR1, note, SA_RESTART);
	struct turn turn = turn_new();
	pid_t me = getpid(), child = must(fork());
	if (child == 0) {
		for (int turn_number = 0; turn_number < 3; turn_number++) {
			until_asleep(me);
			kill(me, SIGUSR1);
		}
		_exit(5);
	}
	(void)turn;
	int wait_status;
	yes("waitpid", waitpid(child, &wait_status, 0) == child);
	status("child", wait_status);
	yes("handled meanwhile", hits >= 1);
}

CASE(nanosleep_remaining)
{
	on_signal(SIGUSR1, note, 0);
	pid_t sender = pester(getpid());
	struct timespec minute = {60, 0}, left = {0};
	num("nanosleep", nanosleep(&minute, &left));
	kill(sender, SIGKILL);
	yes("most of it is left", left.tv_sec >= 50 && left.tv_sec < 60);
}

CASE(stop_does_not_interrupt_restartable)
{
	/* signal(7): a stop and continue without handler leaves read as it is. */
	must(pipe(blocking_pipe));
	pid_t child = must(fork());
	if (child == 0) {
		char byte;
		close(blocking_pipe[1]);
		num("read", read(blocking_pipe[0], &byte, 1));
		_exit(0);
	}
	until_asleep(child);
	kill(child, SIGSTOP);
	must(waitpid(child, NULL, WUNTRACED));
	kill(child, SIGCONT);
	must(waitpid(child, NULL, WCONTINUED));
	until_asleep(child);
	must(write(blocking_pipe[1], "x", 1));
	status("child", reap(child));
}

CASE(stopped_process_does_not_run)
{
	volatile int *turns = shared_page();
	pid_t child = must(fork());
	if (child == 0) {
		for (;;)
			++*turns;
	}
	until_changed(turns, 0);
	kill(child, SIGSTOP);
	must(waitpid(child, NULL, WUNTRACED));
	int before = *turns;
	nap(30);
	yes("no turn while stopped", *turns == before);
	on_signal(SIGUSR1, note, 0);
	kill(child, SIGUSR1);
	nap(10);
	num("a signal waits", waitpid(child, NULL, WNOHANG));
	kill(child, SIGCONT);
	status("then it takes effect", reap(child));
}

static sigjmp_buf back;
static void jump(int number) { (void)number; siglongjmp(back, 1); }

CASE(siglongjmp_restores_mask)
{
	sigset_t set;
	on_signal(SIGUSR1, jump, 0);
	if (sigsetjmp(back, 1) == 0)
		raise(SIGUSR1);
	sigprocmask(SIG_SETMASK, NULL, &set);
	num("blocked", sigismember(&set, SIGUSR1));
}

CASE(kill_process_group)
{
	pid_t children[3];
	struct turn ready = turn_new();
	for (int index = 0; index < 3; index++) {
		children[index] = must(fork());
		if (children[index] == 0) {
			setpgid(0, index ? children[0] : 0);
			turn_give(ready);
			for (;;)
				pause();
		}
		setpgid(children[index], children[0]);
	}
	for (int index = 0; index < 3; index++)
		turn_take(ready);
	num("kill(-pgid)", kill(-children[0], SIGUSR2));
	for (int index = 0; index < 3; index++)
		status("member", reap(children[index]));
}

CASE(orphaned_group_is_continued)
{
	/* setpgid(2): when a group with stopped members becomes orphaned, they get SIGHUP and SIGCONT. */
	volatile int *seen = shared_page();
	struct turn ready = turn_new();
	pid_t middle = must(fork());
	if (middle == 0) {
		setsid();
		pid_t stopped = must(fork());
		if (stopped == 0) {
			setpgid(0, 0);
			on_signal(SIGHUP, note, 0);
			turn_give(ready);
			raise(SIGSTOP);
			*seen = hits + 1;
			_exit(0);
		}
		turn_take(ready);
		must(waitpid(stopped, NULL, WUNTRACED));
		_exit(0);
	}
	status("middle", reap(middle));
	until_changed(seen, 0);
	say("continued after %d SIGHUP", *seen - 1);
}

CASE(permission_to_signal)
{
	struct turn ready = turn_new();
	pid_t target = must(fork());
	if (target == 0) {
		turn_give(ready);
		pause();
	}
	turn_take(ready);
	pid_t child = must(fork());
	if (child == 0) {
		must(setuid(1000));
		num("another user's process", kill(target, SIGTERM));
		num("signal 0", kill(target, 0));
		num("SIGCONT in one session", kill(target, SIGCONT));
		_exit(0);
	}
	reap(child);
	kill(target, SIGKILL);
	status("target", reap(target));
}

CASE(sigprocmask_cannot_block_kill)
{
	sigset_t set;
	sigfillset(&set);
	num("block all", sigprocmask(SIG_SETMASK, &set, NULL));
	sigprocmask(SIG_SETMASK, NULL, &set);
	say("KILL %d STOP %d TERM %d", sigismember(&set, SIGKILL), sigismember(&set, SIGSTOP), sigismember(&set, SIGTERM));
}

CASE(sigpipe)
{
	int fds[2];
	must(pipe(fds));
	close(fds[0]);
	on_signal(SIGPIPE, note, 0);
	num("write", write(fds[1], "x", 1));
	say("%d %s", hits, signal_name(last_signal));
	int pair[2];
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	close(pair[0]);
	num("send", send(pair[1], "x", 1, 0));
	num("MSG_NOSIGNAL", send(pair[1], "x", 1, MSG_NOSIGNAL));
	say("%d", hits);
}

static volatile int spinner_stop;
static void stop_spinner(int number) { (void)number; spinner_stop = 1; }

CASE(computing_process_is_interrupted)
{
	on_signal(SIGUSR1, stop_spinner, 0);
	pid_t me = getpid(), child = must(fork());
	if (child == 0) {
		nap(20);
		kill(me, SIGUSR1);
		_exit(0);
	}
	while (!spinner_stop)
		;
	status("child", reap(child));
}

/* Ways back from a handler: the C library's restorer, one of the program's own, and what an unwinder makes of them. */

static volatile int met_interrupted;

__attribute__((noinline)) static void interrupted(void)
{
	raise(SIGUSR1);
	__asm__ volatile("" ::: "memory");
}

static _Unwind_Reason_Code look(struct _Unwind_Context *context, void *unused)
{
	(void)unused;
	met_interrupted |= _Unwind_FindEnclosingFunction((void *)_Unwind_GetIP(context)) == (void *)interrupted;
	return _URC_NO_REASON;
}

static void unwind(int number)
{
	(void)number;
	_Unwind_Backtrace(look, NULL);
}

CASE(backtrace_from_a_handler)
{
	on_signal(SIGUSR1, unwind, 0);
	interrupted();
	yes("the interrupted function is found", met_interrupted);
}

struct kernel_action {
	void (*handler)(int);
	unsigned long flags;
	void (*restorer)(void);
	unsigned long mask;
};

static void set_restorer(int number, void (*restorer)(void))
{
	struct kernel_action action = {note, 0x04000000 /* SA_RESTORER */, restorer, 0};
	must(syscall(SYS_rt_sigaction, number, &action, NULL, 8));
}

extern void plain_restorer(void), counting_restorer(void);
volatile int restorer_runs;
__asm__(".text\n"
	"plain_restorer: mov $15, %rax\n syscall\n"
	"counting_restorer: incl restorer_runs(%rip)\n mov $15, %rax\n syscall\n");

CASE(restorers)
{
	set_restorer(SIGUSR1, plain_restorer);
	num("raise", raise(SIGUSR1));
	set_restorer(SIGUSR1, counting_restorer);
	num("raise", raise(SIGUSR1));
	num("raise", raise(SIGUSR1));
	say("%d hits, %d runs of the program's own", hits, restorer_runs);
}

static long gs_words[4] = {0, 77};

static void take_gs(int number)
{
	hits++;
	if (number == SIGUSR1)
		must(syscall(SYS_arch_prctl, 0x1001 /* ARCH_SET_GS */, gs_words));
}

CASE(handler_sets_gs_base)
{
	on_signal(SIGUSR1, take_gs, 0);
	on_signal(SIGUSR2, take_gs, 0);
	num("raise", raise(SIGUSR1));
	num("raise", raise(SIGUSR2));
	long word;
	__asm__ volatile("mov %%gs:8, %0" : "=r"(word));
	say("%d hits, %ld at GS base", hits, word);
}
