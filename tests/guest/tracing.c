/* ptrace(2) of a child that lets itself be traced: what strace and gdb are made of. */
#include "tracing.h"

#include <elf.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/user.h>

/* glibc's <sys/ptrace.h> clashes with <linux/ptrace.h>. */
#define INFO_ENTRY 1
#define INFO_EXIT 2
struct syscall_info {
	uint8_t op, pad[3];
	uint32_t arch;
	uint64_t ip, sp;
	union {
		struct { uint64_t nr, args[6]; } entry;
		struct { int64_t rval; uint8_t is_error; } exit;
		struct { uint64_t nr, args[6]; uint32_t ret_data; } seccomp;
	};
};

/* A child that lets itself be traced and stops. */
static pid_t traced(void (*body)(void))
{
	pid_t child = must(fork());
	if (child == 0) {
		must(ptrace(PTRACE_TRACEME, 0, 0, 0));
		raise(SIGSTOP);
		body();
		_exit(0);
	}
	stopped("first", wait_for(child));
	return child;
}

static void nothing(void) {}

static void three_calls(void)
{
	syscall(SYS_getppid);
	syscall(SYS_close, -1);
	syscall(SYS_getppid);
}

CASE(calls_stop_twice)
{
	pid_t child = traced(three_calls);
	must(ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESYSGOOD));
	for (int stop = 0; stop < 6; stop++) {
		struct user_regs_struct regs;
		go(PTRACE_SYSCALL, child, 0);
		stopped("call", wait_for(child));
		must(ptrace(PTRACE_GETREGS, child, 0, &regs));
		if (stop % 2 == 0)
			say("begins %llu, rax %lld, argument %d", regs.orig_rax, (long long)regs.rax, (int)regs.rdi * (regs.orig_rax == SYS_close));
		else
			say("ends %llu, result %lld", regs.orig_rax, regs.orig_rax == SYS_close ? (long long)regs.rax : (long long)(regs.rax == (unsigned long long)getpid()));
		say("cs %llx ss %llx", regs.cs, regs.ss);
	}
	go(PTRACE_CONT, child, 0);
	status("end", wait_for(child));
}

CASE(calls_can_be_changed)
{
	pid_t child = traced(three_calls);
	struct user_regs_struct regs;
	/* getppid becomes getpid, its result another; close is not run at all. */
	go(PTRACE_SYSCALL, child, 0);
	wait_for(child);
	must(ptrace(PTRACE_POKEUSER, child, offsetof(struct user, regs.orig_rax), SYS_getpid));
	go(PTRACE_SYSCALL, child, 0);
	wait_for(child);
	must(ptrace(PTRACE_GETREGS, child, 0, &regs));
	yes("getpid ran", regs.rax == (unsigned long long)child);
	go(PTRACE_SYSCALL, child, 0);
	wait_for(child);
	must(ptrace(PTRACE_POKEUSER, child, offsetof(struct user, regs.orig_rax), -1L));
	go(PTRACE_SYSCALL, child, 0);
	wait_for(child);
	must(ptrace(PTRACE_GETREGS, child, 0, &regs));
	say("close answers %lld", (long long)regs.rax);
	go(PTRACE_KILL, child, 0);
	status("end", wait_for(child));
}

CASE(syscall_info)
{
	pid_t child = traced(three_calls);
	struct syscall_info info;
	must(ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESYSGOOD));
	num("in a signal stop", CALL(0x420e, child, sizeof info, &info));
	say("op %d, arch %x", info.op, info.arch);
	go(PTRACE_SYSCALL, child, 0), wait_for(child);
	go(PTRACE_SYSCALL, child, 0), wait_for(child);
	go(PTRACE_SYSCALL, child, 0), wait_for(child);
	num("at the begin", CALL(0x420e, child, sizeof info, &info));
	say("op %d, number %d, argument %d", info.op, (int)info.entry.nr, (int)info.entry.args[0]);
	memset(&info, 0xaa, sizeof info);
	num("with little room", CALL(0x420e, child, 4, &info));
	say("op %d, arch %x", info.op, info.arch);
	go(PTRACE_SYSCALL, child, 0), wait_for(child);
	num("at the end", CALL(0x420e, child, sizeof info, &info));
	say("op %d, result %d, error %d", info.op, (int)info.exit.rval, info.exit.is_error);
	go(PTRACE_CONT, child, 0);
	status("end", wait_for(child));
}

static volatile int caught;
static void note(int number) { caught = number; }

static void three_signals(void)
{
	on_signal(SIGUSR1, note, 0);
	on_signal(SIGUSR2, note, 0);
	raise(SIGUSR1);
	int first = caught;
	raise(SIGUSR1);
	int second = caught;
	caught = 0;
	raise(SIGCHLD); /* ignored by default, but the tracer sees it */
	_exit((first == 0) + 2 * (second == SIGUSR2) + 4 * (caught == 0));
}

CASE(signals_can_be_changed)
{
	pid_t child = traced(three_signals);
	siginfo_t info;
	go(PTRACE_CONT, child, 0);
	stopped("first", wait_for(child));
	must(ptrace(PTRACE_GETSIGINFO, child, 0, &info));
	say("%s, code %d, from itself %d", signal_name(info.si_signo), info.si_code, info.si_pid == child);
	go(PTRACE_CONT, child, 0); /* suppressed */
	stopped("second", wait_for(child));
	go(PTRACE_CONT, child, SIGUSR2); /* another one */
	stopped("third", wait_for(child));
	num("a signal that is none", CALL(PTRACE_CONT, child, 0, 65));
	go(PTRACE_CONT, child, SIGCHLD);
	status("end", wait_for(child));
}

static void wait_for_value(void)
{
	siginfo_t info;
	sigset_t set;
	block_signal(SIGRTMIN);
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	raise(SIGUSR1);
	must(sigwaitinfo(&set, &info));
	_exit(info.si_value.sival_int);
}

CASE(killed_by_the_signal_passed_on)
{
	pid_t child = traced(wait_for_value);
	go(PTRACE_CONT, child, 0);
	stopped("signal", wait_for(child));
	go(PTRACE_CONT, child, SIGUSR1);
	status("end", wait_for(child));
}

CASE(fatal_signal_reaches_a_stopped_child)
{
	pid_t child = traced(nothing);
	kill(child, SIGKILL);
	status("end", wait_for(child));
}

static volatile long word = 0x1122334455667788;
static void change_word(void) { _exit(word == 42 ? 7 : 8); }

CASE(memory)
{
	pid_t child = traced(change_word);
	errno = 0;
	say("word %lx", ptrace(PTRACE_PEEKDATA, child, &word, 0));
	must(ptrace(PTRACE_POKEDATA, child, &word, 42));
	num("peek of nothing", CALL(PTRACE_PEEKDATA, child, 8, 0));
	num("poke of nothing", CALL(PTRACE_POKEDATA, child, 8, 0));
	/* Code is read-only: the write makes a copy. */
	errno = 0;
	long code = ptrace(PTRACE_PEEKTEXT, child, change_word, 0);
	must(ptrace(PTRACE_POKETEXT, child, change_word, code));
	char path[64];
	long through = 0;
	snprintf(path, sizeof path, "/proc/%d/mem", child);
	int fd = must(open(path, O_RDWR));
	num("pread", pread(fd, &through, sizeof through, (off_t)&word));
	say("word %ld", through);
	close(fd);
	go(PTRACE_CONT, child, 0);
	status("end", wait_for(child));
}

__attribute__((noinline)) static int target(int value)
{
	__asm__ volatile("");
	return value + 1;
}
static void call_target(void) { _exit(target(20)); }

CASE(breakpoint)
{
	pid_t child = traced(call_target);
	struct user_regs_struct regs;
	long code = ptrace(PTRACE_PEEKTEXT, child, target, 0);
	must(ptrace(PTRACE_POKETEXT, child, target, (code & ~0xffL) | 0xcc));
	go(PTRACE_CONT, child, 0);
	stopped("breakpoint", wait_for(child));
	siginfo_t info;
	must(ptrace(PTRACE_GETSIGINFO, child, 0, &info));
	must(ptrace(PTRACE_GETREGS, child, 0, &regs));
	say("code %x, behind it %d, argument %d", info.si_code, regs.rip == (unsigned long)target + 1, (int)regs.rdi);
	must(ptrace(PTRACE_POKETEXT, child, target, code));
	regs.rip--;
	regs.rdi = 30;
	must(ptrace(PTRACE_SETREGS, child, 0, &regs));
	go(PTRACE_CONT, child, 0);
	status("end", wait_for(child));
	yes("own code untouched", target(1) == 2);
}

static void steps_ahead(void)
{
	long result;
	__asm__ volatile("int3; nop; mov $39, %%eax; syscall; nop; nop" : "=a"(result) : : "rcx", "r11", "memory");
	_exit(result == getpid() ? 5 : 6);
}

CASE(single_steps)
{
	pid_t child = traced(steps_ahead);
	struct user_regs_struct regs;
	go(PTRACE_CONT, child, 0);
	stopped("int3", wait_for(child));
	must(ptrace(PTRACE_GETREGS, child, 0, &regs));
	unsigned long long start = regs.rip;
	for (int step = 0; step < 5; step++) {
		siginfo_t info;
		go(PTRACE_SINGLESTEP, child, 0);
		stopped("step", wait_for(child));
		must(ptrace(PTRACE_GETREGS, child, 0, &regs));
		must(ptrace(PTRACE_GETSIGINFO, child, 0, &info));
		say("%llu bytes ahead, trap flag %d, code %d", regs.rip - start, (int)(regs.eflags >> 8 & 1), info.si_code);
	}
	go(PTRACE_CONT, child, 0);
	status("end", wait_for(child));
}

static void step_handler(int number) { caught = number; }
static void handled(void)
{
	on_signal(SIGUSR1, step_handler, 0);
	raise(SIGUSR1);
	_exit(caught == SIGUSR1 ? 3 : 4);
}

CASE(step_into_a_handler)
{
	pid_t child = traced(handled);
	struct user_regs_struct regs;
	go(PTRACE_CONT, child, 0);
	stopped("signal", wait_for(child));
	go(PTRACE_SINGLESTEP, child, SIGUSR1);
	stopped("step", wait_for(child));
	must(ptrace(PTRACE_GETREGS, child, 0, &regs));
	yes("at the handler's first instruction", regs.rip == (unsigned long)step_handler);
	yes("with its argument", regs.rdi == SIGUSR1);
	go(PTRACE_CONT, child, 0);
	status("end", wait_for(child));
}

CASE(user_area)
{
	pid_t child = traced(nothing);
	yes("a register", ptrace(PTRACE_PEEKUSER, child, offsetof(struct user, regs.cs), 0) == 0x33);
	errno = 0;
	num("a debug register", CALL(PTRACE_PEEKUSER, child, offsetof(struct user, u_debugreg[7]), 0));
	num("not aligned", CALL(PTRACE_PEEKUSER, child, 3, 0));
	num("behind the end", CALL(PTRACE_PEEKUSER, child, sizeof(struct user) + 16, 0));
	num("poke behind the end", CALL(PTRACE_POKEUSER, child, sizeof(struct user) + 16, 0));
	go(PTRACE_CONT, child, 0);
	status("end", wait_for(child));
}

static void keep_xmm(void)
{
	uint64_t low = 0x1234, high = 0;
	__asm__ volatile("movq %1, %%xmm7; int3; movq %%xmm7, %0" : "=r"(high) : "r"(low) : "xmm7", "memory");
	_exit(high == 0x5678 ? 9 : 10);
}

CASE(register_sets)
{
	pid_t child = traced(keep_xmm);
	struct user_fpregs_struct fp;
	struct user_regs_struct regs;
	static char area[16384];
	go(PTRACE_CONT, child, 0);
	stopped("int3", wait_for(child));
	must(ptrace(PTRACE_GETFPREGS, child, 0, &fp));
	say("xmm7 %x, mxcsr %x, control %x", fp.xmm_space[7 * 4], fp.mxcsr, fp.cwd);
	struct iovec part = {&regs, 24};
	must(ptrace(PTRACE_GETREGSET, child, NT_PRSTATUS, &part));
	say("%zu bytes of the general set", part.iov_len);
	part = (struct iovec){area, sizeof area};
	must(ptrace(PTRACE_GETREGSET, child, NT_X86_XSTATE, &part));
	uint64_t xcr0;
	memcpy(&xcr0, area + 464, sizeof xcr0);
	yes("extended: as large as it says", part.iov_len >= 576 && (xcr0 & 3) == 3);
	yes("with the same xmm7", memcmp(area + 160 + 7 * 16, &fp.xmm_space[7 * 4], 16) == 0);
	fp.xmm_space[7 * 4] = 0x5678;
	must(ptrace(PTRACE_SETFPREGS, child, 0, &fp));
	num("an unknown set", CALL(PTRACE_GETREGSET, child, 12345, &part));
	part.iov_len = 12;
	num("a part of a word", CALL(PTRACE_SETREGSET, child, NT_PRSTATUS, &part));
	go(PTRACE_CONT, child, 0);
	status("end", wait_for(child));
}

CASE(masks)
{
	pid_t child = traced(three_signals);
	uint64_t mask = 0;
	must(CALL(0x420a, child, 8, &mask));
	say("mask %lx", mask);
	mask = 1UL << (SIGUSR1 - 1);
	must(CALL(0x420b, child, 8, &mask));
	num("of another size", CALL(0x420a, child, 4, &mask));
	go(PTRACE_CONT, child, 0);
	stopped("only the third", wait_for(child));
	go(PTRACE_CONT, child, 0);
	status("end", wait_for(child));
}

static void *one_thread(void *argument) { return argument; }
static void makes_children(void)
{
	pid_t child = fork();
	if (child == 0)
		_exit(1);
	waitpid(child, NULL, 0);
	child = vfork();
	if (child == 0)
		_exit(2);
	waitpid(child, NULL, 0);
	pthread_t thread;
	pthread_create(&thread, NULL, one_thread, NULL);
	pthread_join(thread, NULL);
	_exit(3);
}

CASE(events_of_children)
{
	pid_t child = traced(makes_children);
	must(ptrace(PTRACE_SETOPTIONS, child, 0,
	            PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEVFORKDONE | PTRACE_O_TRACEEXIT));
	pid_t made = 0;
	for (int wanted = 1; wanted <= 3; wanted++) {
		unsigned long message;
		go(PTRACE_CONT, child, 0);
		int wait_status = wait_for(child);
		while (WIFSTOPPED(wait_status) && WSTOPSIG(wait_status) == SIGCHLD) {
			go(PTRACE_CONT, child, 0);
			wait_status = wait_for(child);
		}
		if (wait_status >> 16 == PTRACE_EVENT_VFORK_DONE) {
			must(ptrace(PTRACE_GETEVENTMSG, child, 0, &message));
			stopped("parent", wait_status);
			yes("of the same child", message == (unsigned long)made);
			wanted--;
			continue;
		}
		stopped("parent", wait_status);
		must(ptrace(PTRACE_GETEVENTMSG, child, 0, &message));
		made = (pid_t)message;
		stopped("child", wait_for(made));
		go(PTRACE_CONT, made, 0);
		if (wait_status >> 16 == PTRACE_EVENT_VFORK) {
			/* The parent waits for it: let it end first. */
			stopped("child", wait_for(made));
			must(ptrace(PTRACE_GETEVENTMSG, made, 0, &message));
			say("exit status %lx", message);
			go(PTRACE_CONT, made, 0);
			status("child", wait_for(made));
			continue;
		}
		stopped("child", wait_for(made));
		go(PTRACE_CONT, made, 0);
		status("child", wait_for(made));
	}
	go(PTRACE_CONT, child, 0);
	int wait_status = wait_for(child);
	stopped("parent", wait_status);
	go(PTRACE_CONT, child, 0);
	status("end", wait_for(child));
}

static void executes(void) { execl(SELF, SELF, "@exits", NULL); }
HELPER(exits) { return 21; }

CASE(exec_stops_with_sigtrap)
{
	pid_t child = traced(executes);
	go(PTRACE_CONT, child, 0);
	stopped("exec", wait_for(child));
	go(PTRACE_CONT, child, 0);
	status("end", wait_for(child));
}

CASE(exec_event)
{
	pid_t child = traced(executes);
	unsigned long message;
	must(ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACEEXEC));
	go(PTRACE_CONT, child, 0);
	stopped("exec", wait_for(child));
	must(ptrace(PTRACE_GETEVENTMSG, child, 0, &message));
	yes("the id before", message == (unsigned long)child);
	go(PTRACE_CONT, child, 0);
	status("end", wait_for(child));
}

static void *second_thread(void *argument)
{
	syscall(SYS_getppid);
	return argument;
}
static void with_a_thread(void)
{
	pthread_t thread;
	pthread_create(&thread, NULL, second_thread, NULL);
	pthread_join(thread, NULL);
	_exit(0);
}

CASE(threads_end_for_the_tracer)
{
	pid_t child = traced(with_a_thread);
	must(ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACECLONE));
	go(PTRACE_CONT, child, 0);
	stopped("clone", wait_for(child));
	unsigned long message;
	must(ptrace(PTRACE_GETEVENTMSG, child, 0, &message));
	pid_t thread = (pid_t)message;
	stopped("thread", wait_for(thread));
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/task/%d/status", child, thread);
	char *line = strstr(get_file(path), "TracerPid:");
	yes("its tracer", line && atoi(line + 10) == getpid());
	go(PTRACE_CONT, thread, 0);
	status("thread", wait_for(thread));
	go(PTRACE_CONT, child, 0);
	status("end", wait_for(child));
}

CASE(emulated_calls)
{
	pid_t child = traced(three_calls);
	struct user_regs_struct regs;
	must(CALL(31 /* PTRACE_SYSEMU */, child, 0, 0));
	stopped("call", wait_for(child));
	must(ptrace(PTRACE_GETREGS, child, 0, &regs));
	say("number %lld", (long long)regs.orig_rax);
	must(CALL(31, child, 0, 0));
	stopped("call", wait_for(child));
	must(ptrace(PTRACE_GETREGS, child, 0, &regs));
	say("number %lld: the first one had no end", (long long)regs.orig_rax);
	go(PTRACE_KILL, child, 0);
	status("end", wait_for(child));
}

static void filtered(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | 77),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {COUNT(code), code};
	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
	_exit(syscall(SYS_getppid) == 1234 ? 11 : 12);
}

CASE(seccomp_event)
{
	pid_t child = traced(filtered);
	unsigned long message;
	struct syscall_info info;
	must(ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESECCOMP));
	go(PTRACE_CONT, child, 0);
	stopped("filter", wait_for(child));
	must(ptrace(PTRACE_GETEVENTMSG, child, 0, &message));
	say("data %lu", message);
	num("info", CALL(0x420e, child, sizeof info, &info));
	say("op %d, number %d, data %u", info.op, (int)info.seccomp.nr, info.seccomp.ret_data);
	struct user_regs_struct regs;
	must(ptrace(PTRACE_GETREGS, child, 0, &regs));
	regs.orig_rax = -1;
	regs.rax = 1234;
	must(ptrace(PTRACE_SETREGS, child, 0, &regs));
	go(PTRACE_CONT, child, 0);
	status("end", wait_for(child));
}

static void interrupted(void)
{
	on_signal(SIGUSR1, note, 0);
	int result = usleep(100000000);
	_exit(result == -1 && errno == EINTR ? 13 : 14);
}

CASE(interrupted_call_goes_on)
{
	pid_t child = traced(interrupted);
	must(ptrace(PTRACE_DETACH, child, 0, 0));
	until_asleep(child);
	must(ptrace(PTRACE_SEIZE, child, 0, 0));
	must(ptrace(PTRACE_INTERRUPT, child, 0, 0));
	stopped("interrupted", wait_for(child));
	go(PTRACE_CONT, child, 0);
	until_asleep(child);
	num("it sleeps on", waitpid(child, NULL, WNOHANG));
	kill(child, SIGUSR1);
	stopped("signal", wait_for(child));
	go(PTRACE_CONT, child, SIGUSR1);
	status("end", wait_for(child));
}
