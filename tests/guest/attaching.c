/* ptrace(2) of a process that runs: PTRACE_ATTACH, PTRACE_SEIZE and who may. */
#include "tracing.h"

#include <sys/prctl.h>
#include <sys/user.h>

static pid_t sleeper(void)
{
	pid_t child = must(fork());
	if (child == 0) {
		prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
		for (;;)
			pause();
	}
	until_asleep(child);
	return child;
}

static char state_of(pid_t process)
{
	char path[64], *text;
	snprintf(path, sizeof path, "/proc/%d/stat", process);
	text = strrchr(get_file(path), ')');
	return text ? text[2] : '?';
}

CASE(attach_and_detach)
{
	pid_t child = sleeper();
	must(ptrace(PTRACE_ATTACH, child, 0, 0));
	stopped("attached", wait_for(child));
	say("state %c", state_of(child));
	num("twice", CALL(PTRACE_ATTACH, child, 0, 0));
	must(ptrace(PTRACE_DETACH, child, 0, 0));
	until_asleep(child);
	say("state %c", state_of(child));
	num("not traced any more", CALL(PTRACE_CONT, child, 0, 0));
	must(ptrace(PTRACE_ATTACH, child, 0, 0));
	wait_for(child);
	must(ptrace(PTRACE_DETACH, child, 0, SIGTERM));
	status("end", wait_for(child));
}

CASE(attach_to_a_stopped_process)
{
	pid_t child = sleeper();
	int wait_status;
	kill(child, SIGSTOP);
	must(waitpid(child, &wait_status, WUNTRACED));
	status("stopped", wait_status);
	must(ptrace(PTRACE_ATTACH, child, 0, 0));
	stopped("attached", wait_for(child));
	must(ptrace(PTRACE_DETACH, child, 0, 0));
	kill(child, SIGKILL);
	status("end", wait_for(child));
}

CASE(seize_and_interrupt)
{
	pid_t child = sleeper();
	siginfo_t info;
	must(ptrace(PTRACE_SEIZE, child, 0, PTRACE_O_TRACESYSGOOD));
	num("wait", waitpid(child, NULL, WNOHANG | __WALL));
	num("it runs", CALL(PTRACE_GETSIGINFO, child, 0, &info));
	must(ptrace(PTRACE_INTERRUPT, child, 0, 0));
	stopped("interrupted", wait_for(child));
	must(ptrace(PTRACE_GETSIGINFO, child, 0, &info));
	say("%s, code %x", signal_name(info.si_signo), info.si_code);
	go(PTRACE_CONT, child, 0);
	until_asleep(child);
	kill(child, SIGTERM);
	stopped("signal", wait_for(child));
	num("listen to a signal", CALL(PTRACE_LISTEN, child, 0, 0));
	go(PTRACE_CONT, child, SIGTERM);
	status("end", wait_for(child));
}

CASE(group_stop_of_a_seized_process)
{
	pid_t child = sleeper();
	siginfo_t info;
	must(ptrace(PTRACE_SEIZE, child, 0, 0));
	kill(child, SIGTSTP);
	stopped("signal", wait_for(child));
	go(PTRACE_CONT, child, SIGTSTP);
	int wait_status = wait_for(child);
	stopped("group", wait_status);
	must(ptrace(PTRACE_LISTEN, child, 0, 0));
	num("listening", CALL(PTRACE_GETSIGINFO, child, 0, &info));
	kill(child, SIGCONT);
	stopped("continued", wait_for(child));
	go(PTRACE_CONT, child, 0);
	stopped("signal", wait_for(child));
	go(PTRACE_CONT, child, SIGCONT);
	until_asleep(child);
	kill(child, SIGKILL);
	status("end", wait_for(child));
}

CASE(continued_while_seized)
{
	pid_t child = sleeper();
	must(ptrace(PTRACE_SEIZE, child, 0, 0));
	kill(child, SIGCONT); /* it was not stopped */
	stopped("continued", wait_for(child));
	go(PTRACE_CONT, child, 0);
	stopped("signal", wait_for(child));
	kill(child, SIGCONT); /* it stands for its tracer */
	go(PTRACE_CONT, child, 0);
	stopped("continued", wait_for(child));
	go(PTRACE_CONT, child, 0);
	stopped("signal", wait_for(child));
	go(PTRACE_CONT, child, 0);
	kill(child, SIGKILL);
	status("end", wait_for(child));
}

/* As strace starts a program: whichever of seize, interrupt and SIGCONT the child sees first, it gets there. */
static int start_of_strace(int delay)
{
	int wait_status, stops = 0;
	pid_t child = must(fork());
	if (child == 0) {
		raise(SIGSTOP);
		_exit(5);
	}
	must(waitpid(child, &wait_status, WUNTRACED));
	must(ptrace(PTRACE_SEIZE, child, 0, 0));
	must(ptrace(PTRACE_INTERRUPT, child, 0, 0));
	for (volatile int spin = 0; spin < delay; spin++)
		;
	kill(child, SIGCONT);
	while (WIFSTOPPED(wait_status = wait_for(child)) && stops++ < 10) {
		bool group = wait_status >> 16 == PTRACE_EVENT_STOP && WSTOPSIG(wait_status) != SIGTRAP;
		go(group ? PTRACE_LISTEN : PTRACE_CONT, child, 0);
	}
	return wait_status;
}

CASE(seized_in_its_stop_and_continued)
{
	int wait_status = 0;
	for (int i = 0; i < 200; i++)
		wait_status |= start_of_strace(500 * i);
	status("ends", wait_status);
}

CASE(group_stop_of_an_attached_process)
{
	pid_t child = sleeper();
	siginfo_t info;
	must(ptrace(PTRACE_ATTACH, child, 0, 0));
	stopped("attached", wait_for(child));
	go(PTRACE_CONT, child, SIGSTOP);
	stopped("group", wait_for(child));
	num("no information", CALL(PTRACE_GETSIGINFO, child, 0, &info));
	go(PTRACE_CONT, child, 0); /* runs all the same */
	until_asleep(child);
	kill(child, SIGKILL);
	status("end", wait_for(child));
}

CASE(errors)
{
	num("nobody", CALL(PTRACE_ATTACH, 999999, 0, 0));
	num("oneself", CALL(PTRACE_ATTACH, getpid(), 0, 0));
	pid_t child = sleeper();
	num("not traced", CALL(PTRACE_PEEKDATA, child, 0, 0));
	num("seize with an address", CALL(PTRACE_SEIZE, child, 1, 0));
	num("seize with unknown options", CALL(PTRACE_SEIZE, child, 0, 1 << 30));
	must(ptrace(PTRACE_ATTACH, child, 0, 0));
	wait_for(child);
	num("unknown options", CALL(PTRACE_SETOPTIONS, child, 0, 1 << 30));
	num("an unknown request", CALL(12345, child, 0, 0));
	num("interrupt without seize", CALL(PTRACE_INTERRUPT, child, 0, 0));
	num("registers to nowhere", CALL(PTRACE_GETREGS, child, 0, 8));
	struct user_regs_struct regs;
	must(ptrace(PTRACE_GETREGS, child, 0, &regs));
	regs.fs_base = -1UL;
	num("a base outside", CALL(PTRACE_SETREGS, child, 0, &regs));
	kill(child, SIGKILL);
	status("end", wait_for(child));
}

CASE(another_user)
{
	if (geteuid() != 0)
		return;
	pid_t child = sleeper();
	pid_t other = must(fork());
	if (other == 0) {
		must(setuid(65534));
		num("attach to root's", CALL(PTRACE_ATTACH, child, 0, 0));
		_exit(0);
	}
	reap(other);
	kill(child, SIGKILL);
	reap(child);
}

CASE(tracer_ends)
{
	pid_t child = sleeper();
	int fds[2];
	must(pipe(fds));
	pid_t tracer = must(fork());
	if (tracer == 0) {
		must(ptrace(PTRACE_ATTACH, child, 0, 0));
		wait_for(child);
		_exit(0);
	}
	status("tracer", wait_for(tracer));
	until_asleep(child);
	say("state %c", state_of(child));
	tracer = must(fork());
	if (tracer == 0) {
		must(ptrace(PTRACE_SEIZE, child, 0, PTRACE_O_EXITKILL));
		_exit(0);
	}
	reap(tracer);
	status("child", wait_for(child));
}

CASE(tracer_that_is_not_the_parent_hears_first)
{
	int fds[2], release[2];
	must(pipe(fds));
	must(pipe(release));
	pid_t child = sleeper();
	pid_t tracer = must(fork());
	if (tracer == 0) {
		char byte = 0;
		must(ptrace(PTRACE_SEIZE, child, 0, 0));
		must(write(fds[1], &byte, 1));
		must(read(release[0], &byte, 1));
		int wait_status = 0;
		must(waitpid(child, &wait_status, __WALL));
		_exit(WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : 0);
	}
	char byte;
	must(read(fds[0], &byte, 1));
	kill(child, SIGKILL);
	nap(50);
	num("parent", waitpid(child, NULL, WNOHANG));
	must(write(release[1], &byte, 1));
	status("tracer", wait_for(tracer));
	status("parent", wait_for(child));
}
