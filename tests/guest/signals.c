/* Signals: sigaction(2), signal(7), sigaltstack(2), rt_sigqueueinfo(2), sigtimedwait(2), sigreturn(2), SA_RESTART. */
#include "guest.h"

#include <immintrin.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/ucontext.h>
#include <ucontext.h>

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

static void change_registers(int number, siginfo_t *info, void *context)
{
	ucontext_t *user = context;
	(void)info;
	say("%s at the expected instruction: %s", signal_name(number),
	    *(unsigned char *)user->uc_mcontext.gregs[REG_RIP] == 0x48 ? "yes" : "no");
	user->uc_mcontext.gregs[REG_RIP] += 3; /* skip mov (%rax), %rbx */
	user->uc_mcontext.gregs[REG_RBX] = 4711;
}

CASE(handler_changes_registers)
{
	long result;
	on_siginfo(SIGSEGV, change_registers, 0);
	asm volatile("mov $8, %%eax; .byte 0x48, 0x8b, 0x18" : "=b"(result) : : "rax", "memory");
	num("rbx from the handler", result);
}

static void sigill_info(int number, siginfo_t *info, void *context)
{
	ucontext_t *user = context;
	say("%s code %d, si_addr is rip: %s", signal_name(number), info->si_code,
	    (uintptr_t)info->si_addr == (uintptr_t)user->uc_mcontext.gregs[REG_RIP] ? "yes" : "no");
	user->uc_mcontext.gregs[REG_RIP] += number == SIGTRAP ? 0 : 2;
}

static void sigtrap_info(int number, siginfo_t *info, void *context)
{
	(void)context;
	say("%s code %d", signal_name(number), info->si_code);
}

CASE(exceptions)
{
	on_siginfo(SIGILL, sigill_info, 0);
	on_siginfo(SIGFPE, sigill_info, 0);
	on_siginfo(SIGTRAP, sigtrap_info, 0);
	asm volatile("ud2");
	long quotient;
	asm volatile("xor %%edx, %%edx; mov $1, %%eax; xor %%ecx, %%ecx; div %%ecx" : "=a"(quotient) : : "rcx", "rdx");
	asm volatile("int3");
	say("after int3");
	pid_t child = must(fork());
	if (child == 0) {
		asm volatile("hlt");
		_exit(0);
	}
	status("hlt", reap(child));
	child = must(fork());
	if (child == 0) {
		asm volatile("outb %al, $0x80");
		_exit(0);
	}
	status("outb", reap(child));
}

static void single_step(int number, siginfo_t *info, void *context)
{
	ucontext_t *user = context;
	(void)number;
	if (info->si_code == TRAP_TRACE)
		hits++;
	if (hits == 5)
		user->uc_mcontext.gregs[REG_EFL] &= ~0x100L;
}

CASE(trap_flag)
{
	on_siginfo(SIGTRAP, single_step, 0);
	asm volatile("pushf; orl $0x100, (%%rsp); popf; nop; nop; nop; nop; nop; nop; nop; nop" : : : "memory", "cc");
	num("steps", hits);
}

CASE(fault_with_signal_blocked_kills)
{
	pid_t child = must(fork());
	if (child == 0) {
		on_signal(SIGSEGV, note, 0);
		block_signal(SIGSEGV);
		*(volatile int *)8 = 0;
		_exit(0);
	}
	status("blocked", reap(child));
	child = must(fork());
	if (child == 0) {
		signal(SIGSEGV, SIG_IGN);
		*(volatile int *)8 = 0;
		_exit(0);
	}
	status("ignored", reap(child));
}

CASE(bad_stack_for_handler_kills)
{
	pid_t child = must(fork());
	if (child == 0) {
		on_signal(SIGUSR1, note, 0);
		asm volatile("mov %0, %%rsp; mov $39, %%eax; syscall; mov %%eax, %%edi; mov $10, %%esi; mov $62, %%eax; syscall; ud2"
			     : : "r"(4096L) : "memory");
		_exit(0);
	}
	status("child", reap(child));
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

__attribute__((target("avx"))) static void spoil_vectors(int number)
{
	(void)number;
	__m256i ones = _mm256_set1_epi32(-1);
	asm volatile("vmovdqa %0, %%ymm0; vmovdqa %0, %%ymm5; vmovdqa %0, %%ymm15" : : "m"(ones) : "xmm0", "xmm5", "xmm15");
	hits++;
}

CASE(avx_state_survives_handlers)
{
	/* The signal frame carries the XSAVE state: upper halves too. */
	if (!__builtin_cpu_supports("avx")) {
		say("0 wrong");
		return;
	}
	on_signal(SIGUSR1, spoil_vectors, 0);
	uint64_t in[4] = {1, 2, 3, 4}, out0[4], out5[4], out15[4];
	long result;
	asm volatile("vmovdqu %[in], %%ymm0; vmovdqu %[in], %%ymm5; vmovdqu %[in], %%ymm15; syscall\n"
		     "vmovdqu %%ymm0, %[out0]; vmovdqu %%ymm5, %[out5]; vmovdqu %%ymm15, %[out15]"
		     : "=a"(result), [out0] "=m"(out0), [out5] "=m"(out5), [out15] "=m"(out15)
		     : "0"((long)SYS_tkill), "D"((long)gettid()), "S"((long)SIGUSR1), [in] "m"(in)
		     : "rcx", "r11", "memory", "xmm0", "xmm5", "xmm15");
	int wrong = 0;
	for (int lane = 0; lane < 4; lane++)
		wrong += (out0[lane] != in[lane]) + (out5[lane] != in[lane]) + (out15[lane] != in[lane]);
	say("%d wrong", wrong);
}

__attribute__((target("avx"))) static int keep_vectors(int seed)
{
	/* Fills every ymm register, spins and sleeps in turn, and counts the registers that changed. */
	uint64_t in[4], out[16][4];
	int wrong = 0;
	for (int lane = 0; lane < 4; lane++)
		in[lane] = seed * 1000 + lane;
	for (int round = 0; round < 20; round++) {
		long spins = round % 2 ? 2000000 : 10;
		struct timespec pause = {0, 100000};
		long number = SYS_nanosleep;
		asm volatile("vmovdqu %[in], %%ymm0\n vmovdqu %%ymm0, %%ymm1\n vmovdqu %%ymm0, %%ymm2\n vmovdqu %%ymm0, %%ymm3\n"
			     "vmovdqu %%ymm0, %%ymm4\n vmovdqu %%ymm0, %%ymm6\n vmovdqu %%ymm0, %%ymm8\n vmovdqu %%ymm0, %%ymm12\n"
			     "1: dec %[spins]\n jnz 1b\n syscall\n"
			     "vmovdqu %%ymm0, 0(%[out])\n vmovdqu %%ymm1, 32(%[out])\n vmovdqu %%ymm2, 64(%[out])\n vmovdqu %%ymm3, 96(%[out])\n"
			     "vmovdqu %%ymm4, 128(%[out])\n vmovdqu %%ymm6, 160(%[out])\n vmovdqu %%ymm8, 192(%[out])\n vmovdqu %%ymm12, 224(%[out])\n"
			     : [spins] "+r"(spins), "+a"(number)
			     : [in] "m"(in), [out] "r"(out), "D"(&pause), "S"(0L)
			     : "rcx", "r11", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm6", "xmm8", "xmm12");
		for (int row = 0; row < 8; row++)
			for (int lane = 0; lane < 4; lane++)
				wrong += out[row][lane] != in[lane];
	}
	return wrong;
}

static void *keep_in_thread(void *argument) { return (void *)(intptr_t)keep_vectors((intptr_t)argument); }

CASE(avx_state_survives_switches)
{
	if (!__builtin_cpu_supports("avx")) {
		say("0 wrong");
		return;
	}
	pthread_t threads[4];
	intptr_t wrong = 0;
	for (intptr_t index = 0; index < 4; index++)
		pthread_create(&threads[index], NULL, keep_in_thread, (void *)(index + 1));
	pid_t child = must(fork());
	if (child == 0)
		_exit(keep_vectors(9) != 0);
	for (int index = 0; index < 4; index++) {
		void *result;
		pthread_join(threads[index], &result);
		wrong += (intptr_t)result;
	}
	say("%ld wrong", (long)wrong);
	status("process", reap(child));
}

CASE(avx512_state_survives_switches)
{
	if (!__builtin_cpu_supports("avx512f")) {
		say("0 wrong");
		return;
	}
	int wrong = 0;
	pid_t child = must(fork());
	uint64_t in[8], out[8], mask_in = child ? 0x5555 : 0xaaaa, mask_out;
	for (int lane = 0; lane < 8; lane++)
		in[lane] = (child ? 100 : 200) + lane;
	for (int round = 0; round < 100; round++) {
		long number = SYS_sched_yield;
		asm volatile("vmovdqu64 %[in], %%zmm17\n kmovw %k[mask], %%k3\n syscall\n vmovdqu64 %%zmm17, %[out]\n kmovw %%k3, %k[mask_out]"
			     : "+a"(number), [out] "=m"(out), [mask_out] "=r"(mask_out)
			     : [in] "m"(in), [mask] "r"(mask_in)
			     : "rcx", "r11", "memory");
		wrong += mask_out != mask_in;
		for (int lane = 0; lane < 8; lane++)
			wrong += out[lane] != in[lane];
	}
	if (child == 0)
		_exit(wrong != 0);
	wrong += reap(child);
	say("%d wrong", wrong);
}

CASE(mxcsr_and_x87_are_per_thread)
{
	unsigned int csr = _mm_getcsr();
	_mm_setcsr(csr | 0x6000);
	pid_t child = must(fork());
	if (child == 0)
		_exit((_mm_getcsr() & 0x6000) == 0x6000 ? 1 : 2);
	nap(5);
	yes("rounding mode kept", (_mm_getcsr() & 0x6000) == 0x6000);
	_mm_setcsr(csr);
	status("inherited", reap(child));
	long double value = 1.0L;
	for (int turn = 0; turn < 64; turn++) {
		value = value / 3.0L * 3.0L + 1.0L;
		sched_yield();
	}
	yes("x87 arithmetic", value > 64.9L && value < 65.1L);
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
