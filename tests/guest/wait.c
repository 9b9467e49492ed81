/* Waiting: wait4(2), waitid(2), pidfd_open(2), pidfd_send_signal(2), pidfd_getfd(2). */
#include "guest.h"

#include <sys/pidfd.h>
#include <sys/resource.h>

CASE(wait4_statuses)
{
	int wait_status;
	struct rusage usage;
	pid_t child = must(fork());
	if (child == 0)
		_exit(256 + 17);
	yes("wait4", wait4(child, &wait_status, 0, &usage) == child);
	status("only the low byte", wait_status);
	child = must(fork());
	if (child == 0)
		raise(SIGKILL);
	status("killed", reap(child));
	child = must(fork());
	if (child == 0)
		abort();
	status("aborted", reap(child));
	num("no child left", wait4(-1, &wait_status, 0, NULL));
	num("not a child", wait4(1, &wait_status, 0, NULL));
	num("bad options", wait4(-1, &wait_status, 0x40, NULL));
}

CASE(wait_nohang_and_any)
{
	struct turn turn = turn_new();
	int wait_status;
	pid_t child = must(fork());

	if (child == 0) {
		turn_take(turn);
		_exit(0);
	}
	num("WNOHANG while it runs", waitpid(-1, &wait_status, WNOHANG));
	turn_give(turn);
	yes("waitpid(-1)", waitpid(-1, &wait_status, 0) == child);
	num("WNOHANG without children", waitpid(-1, &wait_status, WNOHANG));
}

CASE(wait_by_process_group)
{
	int wait_status;
	pid_t first = must(fork());
	if (first == 0)
		_exit(1);
	pid_t second = must(fork());
	if (second == 0) {
		pause();
		_exit(2);
	}
	must(setpgid(second, second));
	yes("waitpid(0) takes the one in my group", waitpid(0, &wait_status, 0) == first);
	num("waitpid(0) again", waitpid(0, &wait_status, 0));
	kill(second, SIGTERM);
	yes("waitpid(-pgid)", waitpid(-second, &wait_status, 0) == second);
	status("second", wait_status);
	num("waitpid(-pgid) again", waitpid(-second, &wait_status, 0));
}

CASE(waitid_fields)
{
	siginfo_t info;
	pid_t child = must(fork());
	if (child == 0)
		_exit(33);
	memset(&info, 0xff, sizeof info);
	num("waitid WNOWAIT", waitid(P_PID, child, &info, WEXITED | WNOWAIT));
	say("si_signo %s si_code %d si_status %d", signal_name(info.si_signo), info.si_code, info.si_status);
	yes("si_pid, si_uid", info.si_pid == child && info.si_uid == getuid());
	num("waitid takes it", waitid(P_ALL, 0, &info, WEXITED));
	num("waitid with nobody", waitid(P_ALL, 0, &info, WEXITED));
	child = must(fork());
	if (child == 0)
		raise(SIGTERM);
	num("waitid of a killed one", waitid(P_PID, child, &info, WEXITED));
	say("si_code %d (CLD_KILLED is %d) si_status %s", info.si_code, CLD_KILLED, signal_name(info.si_status));
	num("no wait type", waitid(P_ALL, 0, &info, 0));
	num("bad id type", waitid(77, 0, &info, WEXITED));
	child = must(fork());
	if (child == 0) {
		pause();
		_exit(0);
	}
	memset(&info, 0xff, sizeof info);
	num("WNOHANG", waitid(P_PID, child, &info, WEXITED | WNOHANG));
	say("WNOHANG leaves si_pid %d si_signo %d", info.si_pid, info.si_signo);
	kill(child, SIGKILL);
	reap(child);
}

CASE(wait_stopped_and_continued)
{
	int wait_status;
	siginfo_t info;
	pid_t child = must(fork());
	if (child == 0) {
		for (;;)
			pause();
	}
	kill(child, SIGSTOP);
	yes("WUNTRACED", waitpid(child, &wait_status, WUNTRACED) == child);
	status("child", wait_status);
	num("reported once", waitpid(child, &wait_status, WUNTRACED | WNOHANG));
	kill(child, SIGCONT);
	yes("WCONTINUED", waitpid(child, &wait_status, WCONTINUED) == child);
	status("child", wait_status);
	kill(child, SIGTSTP);
	num("waitid WSTOPPED", waitid(P_PID, child, &info, WSTOPPED));
	say("si_code %d (CLD_STOPPED is %d) si_status %s", info.si_code, CLD_STOPPED, signal_name(info.si_status));
	kill(child, SIGKILL);
	yes("killed while stopped", waitpid(child, &wait_status, 0) == child);
	status("child", wait_status);
}

CASE(sigchld_ignored_reaps)
{
	/* wait(2) NOTES: with SIGCHLD ignored, or SA_NOCLDWAIT, children leave no zombies and wait fails with ECHILD. */
	signal(SIGCHLD, SIG_IGN);
	pid_t child = must(fork());
	if (child == 0)
		_exit(0);
	num("SIG_IGN: waitpid", waitpid(child, NULL, 0));
	struct sigaction action = {.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT};
	must(sigaction(SIGCHLD, &action, NULL));
	child = must(fork());
	if (child == 0)
		_exit(0);
	num("SA_NOCLDWAIT: waitpid", waitpid(child, NULL, 0));
}

CASE(pidfd)
{
	struct turn turn = turn_new();
	pid_t child = must(fork());
	if (child == 0) {
		turn_take(turn);
		_exit(6);
	}
	int fd = pidfd_open(child, 0);
	yes("pidfd_open, close-on-exec", fd >= 0 && fcntl(fd, F_GETFD) == FD_CLOEXEC);
	num("pidfd_send_signal 0", pidfd_send_signal(fd, 0, NULL, 0));
	turn_give(turn);
	siginfo_t info;
	num("waitid P_PIDFD", waitid(P_PIDFD, fd, &info, WEXITED));
	say("si_status %d", info.si_status);
	num("pidfd_send_signal to one that is gone", pidfd_send_signal(fd, SIGTERM, NULL, 0));
	num("pidfd_open of one that is gone", pidfd_open(child, 0));
	num("pidfd_open with unknown flags", pidfd_open(getpid(), 1 << 20));
	num("pidfd_open of 0", pidfd_open(0, 0));
	num("pidfd_send_signal to no pidfd", pidfd_send_signal(1, 0, NULL, 0));
	int own = open("/proc/self/", O_RDONLY | O_DIRECTORY), thread = open("/proc/thread-self/", O_RDONLY | O_DIRECTORY);
	num("pidfd_send_signal by a process's directory", pidfd_send_signal(own, 0, NULL, 0));
	num("pidfd_send_signal by a thread's directory", pidfd_send_signal(thread, 0, NULL, 0));
	num("pidfd_send_signal by /proc", pidfd_send_signal(open("/proc", O_RDONLY | O_DIRECTORY), 0, NULL, 0));
}

CASE(pidfd_getfd_copies)
{
	put_file("f", "text");
	struct turn ready = turn_new();
	pid_t child = must(fork());
	if (child == 0) {
		int fd = must(open("f", O_RDONLY));
		must(dup2(fd, 30));
		turn_give(ready);
		pause();
	}
	turn_take(ready);
	int fd = must(pidfd_open(child, 0));
	int copy = syscall(SYS_pidfd_getfd, fd, 30, 0);
	char text[8] = "";
	if (ok("pidfd_getfd", copy) >= 0)
		num("read", read(copy, text, 7));
	num("no such descriptor there", syscall(SYS_pidfd_getfd, fd, 31, 0));
	num("unknown flags", syscall(SYS_pidfd_getfd, fd, 30, 1));
	kill(child, SIGKILL);
	reap(child);
}
