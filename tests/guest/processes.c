/* Processes: fork(2), vfork(2), clone(2), clone3(2), exit(2), setsid(2), setpgid(2), kill(2), process_vm_readv(2). */
#include "guest.h"

#include <linux/kcmp.h>
#include <linux/sched.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/uio.h>

CASE(fork_returns_twice)
{
	volatile int value = 1;
	pid_t parent = getpid();
	pid_t child = must(fork());

	if (child == 0) {
		value = 2;
		yes("getppid is the parent", getppid() == parent);
		yes("gettid is getpid", gettid() == getpid());
		_exit(value);
	}
	status("child", reap(child));
	say("the parent's copy is untouched: %d", value);
}

CASE(fork_inherits)
{
	/* fork(2): descriptors refer to the same open file description; pending signals and timers are not inherited. */
	put_file("f", "abcdef");
	int fd = must(open("f", O_RDONLY));
	block_signal(SIGUSR1);
	raise(SIGUSR1);
	must(alarm(100));
	pid_t child = must(fork());
	if (child == 0) {
		sigset_t set;
		char bytes[3] = "";
		must(read(fd, bytes, 2));
		say("child reads %s", bytes);
		sigpending(&set);
		yes("SIGUSR1 pending", sigismember(&set, SIGUSR1));
		sigprocmask(SIG_SETMASK, NULL, &set);
		yes("SIGUSR1 blocked", sigismember(&set, SIGUSR1));
		num("seconds of alarm left", alarm(0));
		_exit(0);
	}
	status("child", reap(child));
	char bytes[3] = "";
	must(read(fd, bytes, 2));
	say("parent reads %s: one file offset", bytes);
	sigset_t set;
	sigpending(&set);
	yes("SIGUSR1 still pending in the parent", sigismember(&set, SIGUSR1));
}

CASE(fork_many)
{
	enum { CHILDREN = 50 };
	pid_t children[CHILDREN];
	int sum = 0;

	for (int index = 0; index < CHILDREN; index++) {
		children[index] = must(fork());
		if (children[index] == 0)
			_exit(index);
	}
	for (int index = 0; index < CHILDREN; index++)
		sum += WEXITSTATUS(reap(children[index]));
	say("sum of the exit statuses: %d", sum);
}

CASE(fork_nested)
{
	/* A chain of ten generations; each waits for the next. */
	int depth = 0;

	while (depth < 10) {
		pid_t child = must(fork());
		if (child) {
			int inner = reap(child);
			if (depth == 0)
				status("first child", inner);
			else
				_exit(WEXITSTATUS(inner) + 1);
			return;
		}
		depth++;
	}
	_exit(1);
}

CASE(fork_memory_is_copied_both_ways)
{
	enum { PAGES = 256 };
	char *memory = must_map(mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	struct turn down = turn_new(), up = turn_new();

	for (int page = 0; page < PAGES; page++)
		memory[page * 4096] = 'a';
	pid_t child = must(fork());
	if (child == 0) {
		int wrong = 0;
		turn_take(down); /* the parent has written 'b' */
		for (int page = 0; page < PAGES; page++) {
			wrong += memory[page * 4096] != 'a';
			memory[page * 4096] = 'c';
		}
		say("child sees %d pages of the parent's writes", wrong);
		turn_give(up);
		_exit(0);
	}
	for (int page = 0; page < PAGES; page++)
		memory[page * 4096] = 'b';
	turn_give(down);
	turn_take(up);
	int wrong = 0;
	for (int page = 0; page < PAGES; page++)
		wrong += memory[page * 4096] != 'b';
	say("parent sees %d pages of the child's writes", wrong);
	status("child", reap(child));
}

CASE(vfork_suspends_the_parent)
{
	static volatile int shared;

	pid_t child = vfork();
	if (child == 0) {
		shared = 7; /* vfork(2): the child shares the parent's memory until it executes or exits */
		_exit(3);
	}
	say("shared memory shows %d", shared);
	status("child", reap(child));
}

CASE(clone_vm_shares_memory)
{
	static char stack[65536] __attribute__((aligned(16)));
	static volatile int value;
	int entry(void *argument) { value = *(int *)argument; return 5; }
	int argument = 42;

	pid_t child = must(clone(entry, stack + sizeof stack, CLONE_VM | SIGCHLD, &argument));
	status("child", reap(child));
	say("value: %d", value);
}

CASE(clone_files_and_fs)
{
	/* clone(2): CLONE_FILES shares the descriptor table, CLONE_FS the working directory and umask. */
	static char stack[65536] __attribute__((aligned(16)));
	int entry(void *argument) { (void)argument; close(10); umask(077); return chdir("/"); }
	char folder[PATH_MAX];

	must(dup2(1, 10));
	must(umask(022));
	pid_t child = must(clone(entry, stack + sizeof stack, CLONE_VM | CLONE_FILES | CLONE_FS | SIGCHLD, NULL));
	status("child", reap(child));
	num("fcntl of the descriptor the child closed", fcntl(10, F_GETFD));
	say("cwd %s, umask %03o", getcwd(folder, sizeof folder), umask(0));
}

CASE(clone_without_files_copies)
{
	static char stack[65536] __attribute__((aligned(16)));
	int entry(void *argument) { (void)argument; close(10); return chdir("/"); }
	char folder[PATH_MAX];

	must(dup2(1, 10));
	pid_t child = must(clone(entry, stack + sizeof stack, CLONE_VM | SIGCHLD, NULL));
	status("child", reap(child));
	num("fcntl of the descriptor the child closed", fcntl(10, F_GETFD));
	say("cwd ends in %s", strrchr(getcwd(folder, sizeof folder), '/'));
}

CASE(clone_tid_words)
{
	/* CLONE_PARENT_SETTID, CLONE_CHILD_SETTID and CLONE_CHILD_CLEARTID. */
	int *words = shared_page();
	long child = must(syscall(SYS_clone, CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | SIGCHLD, 0, &words[0], &words[1], 0));

	if (child == 0)
		_exit(words[1] == getpid() ? 0 : 1);
	yes("parent word is the child's id", words[0] == child);
	status("child", reap(child));
}

CASE(clone_bad_flags)
{
	/* clone(2) ERRORS: CLONE_THREAD needs CLONE_SIGHAND, CLONE_SIGHAND needs CLONE_VM. */
	ok("CLONE_THREAD alone", syscall(SYS_clone, CLONE_THREAD, 0, 0, 0, 0));
	ok("CLONE_SIGHAND alone", syscall(SYS_clone, CLONE_SIGHAND, 0, 0, 0, 0));
	ok("CLONE_FS with CLONE_NEWNS", syscall(SYS_clone, CLONE_FS | CLONE_NEWNS, 0, 0, 0, 0));
}

static long clone3(struct clone_args *args, size_t size)
{
	return syscall(SYS_clone3, args, size);
}

CASE(clone3_basic)
{
	int pidfd = -1;
	struct clone_args args = {.flags = CLONE_PIDFD, .pidfd = (uintptr_t)&pidfd, .exit_signal = SIGCHLD};
	long child = must(clone3(&args, sizeof args));

	if (child == 0)
		_exit(9);
	yes("pidfd is a descriptor", pidfd >= 0 && fcntl(pidfd, F_GETFD) == FD_CLOEXEC);
	siginfo_t info = {0};
	num("waitid P_PIDFD", waitid(P_PIDFD, pidfd, &info, WEXITED));
	yes("si_pid is the child", info.si_pid == child);
	say("si_status %d", info.si_status);
}

CASE(clone3_errors)
{
	struct clone_args args = {.exit_signal = SIGCHLD};

	ok("size too small", clone3(&args, 8));
	ok("size too large", clone3(&args, 8192));
	ok("bad pointer", clone3((void *)8, sizeof args));
	args.exit_signal = 200;
	ok("bad exit signal", clone3(&args, sizeof args));
	args = (struct clone_args){.exit_signal = SIGCHLD, .stack = 4096};
	ok("stack without size", clone3(&args, sizeof args));
	args = (struct clone_args){.flags = 1ULL << 40, .exit_signal = SIGCHLD};
	ok("unknown flag", clone3(&args, sizeof args));
	args = (struct clone_args){.flags = CLONE_SIGHAND, .exit_signal = SIGCHLD};
	ok("CLONE_SIGHAND without CLONE_VM", clone3(&args, sizeof args));
	struct { struct clone_args args; uint64_t more; } longer = {{.exit_signal = SIGCHLD}, 1};
	ok("non-zero beyond what the kernel knows", clone3((void *)&longer, sizeof longer));
}

CASE(clone_without_exit_signal)
{
	/* wait(2): a child that delivers no signal is waited for with __WCLONE or __WALL. */
	long child = must(syscall(SYS_clone, 0, 0, 0, 0, 0));
	if (child == 0)
		_exit(4);
	int wait_status;
	num("waitpid without __WALL", waitpid(child, &wait_status, 0));
	yes("waitpid with __WALL", waitpid(child, &wait_status, __WALL) == child);
	status("child", wait_status);
}

CASE(orphans_are_adopted)
{
	struct turn turn = turn_new(), told = turn_new();
	pid_t child = must(fork());
	if (child == 0) {
		if (fork() == 0) {
			turn_take(turn);
			say("the orphan's parent is process %d", getppid());
			turn_give(told);
		}
		_exit(0);
	}
	status("child", reap(child));
	turn_give(turn);
	turn_take(told);
}

CASE(child_subreaper)
{
	struct turn turn = turn_new();
	int is = 0;
	num("PR_SET_CHILD_SUBREAPER", prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
	must(prctl(PR_GET_CHILD_SUBREAPER, &is, 0, 0, 0));
	say("PR_GET_CHILD_SUBREAPER: %d", is);
	pid_t me = getpid(), child = must(fork());
	if (child == 0) {
		if (fork() == 0) {
			turn_take(turn);
			_exit(getppid() == me ? 11 : 12);
		}
		_exit(0);
	}
	status("child", reap(child));
	turn_give(turn);
	status("grandchild, adopted", reap(-1));
}

CASE(exit_group_ends_every_thread)
{
	static char stack[65536] __attribute__((aligned(16)));
	int entry(void *argument) { (void)argument; syscall(SYS_exit_group, 21); return 0; }
	pid_t child = must(fork());

	if (child == 0) {
		must(clone(entry, stack + sizeof stack, CLONE_VM | CLONE_THREAD | CLONE_SIGHAND | CLONE_FILES | CLONE_FS, NULL));
		for (;;)
			pause();
	}
	status("child", reap(child));
}

CASE(leader_exit_keeps_process)
{
	/* A process lives until its last thread ends; its status is then the leader's exit_group or the last exit. */
	static char stack[65536] __attribute__((aligned(16)));
	int entry(void *argument) { (void)argument; nap(30); syscall(SYS_exit_group, 22); return 0; }
	pid_t child = must(fork());

	if (child == 0) {
		must(clone(entry, stack + sizeof stack, CLONE_VM | CLONE_THREAD | CLONE_SIGHAND | CLONE_FILES | CLONE_FS, NULL));
		syscall(SYS_exit, 1);
	}
	status("child", reap(child));
}

CASE(sessions_and_groups)
{
	pid_t me = getpid();
	yes("getpgid(0) is me: the harness made a group", getpgid(0) == me && getpgrp() == me);
	num("setsid of a group leader", setsid());
	pid_t child = must(fork());
	if (child == 0) {
		yes("group inherited", getpgrp() == me);
		yes("setsid gives my id", setsid() == getpid());
		yes("getsid, getpgrp are mine", getsid(0) == getpid() && getpgrp() == getpid());
		num("setsid again", setsid());
		num("setpgid of a session leader", setpgid(0, 0));
		_exit(0);
	}
	status("child", reap(child));
	num("getpgid of an absent process", getpgid(99999));
	num("getsid of an absent process", getsid(99999));
}

CASE(setpgid_rules)
{
	/* setpgid(2): a child may be moved until it executes; only to a group of its own session. */
	struct turn turn = turn_new(), ready = turn_new();
	char to_wait[12], to_give[12];
	snprintf(to_wait, sizeof to_wait, "%d", turn.fds[0]);
	snprintf(to_give, sizeof to_give, "%d", ready.fds[1]);
	char *args[] = {"x", "@ready_and_wait", to_wait, to_give, NULL};
	pid_t child = must(fork());
	if (child == 0) {
		turn_take(turn);
		execv(SELF, args);
		_exit(127);
	}
	num("a child into its own group", setpgid(child, child));
	num("back into mine", setpgid(child, 0 + getpgrp()));
	num("into a group that is not there", setpgid(child, 99999));
	num("negative group", setpgid(child, -1));
	num("a process that is no child", setpgid(getppid(), 0));
	turn_give(turn);
	turn_take(ready);
	num("after it executed", setpgid(child, child));
	turn_give(turn);
	status("child", reap(child));
}

HELPER(ready_and_wait)
{
	char byte;
	(void)argc;
	must(write(atoi(argv[1]), "!", 1));
	must(read(atoi(argv[0]), &byte, 1));
	return 0;
}

CASE(kill_errors)
{
	num("no such process", kill(99999, 0));
	num("signal 0 to myself", kill(getpid(), 0));
	num("bad signal", kill(getpid(), 65));
	num("negative signal", kill(getpid(), -1));
	num("no such group", kill(-99999, SIGTERM));
	num("tgkill: wrong group", syscall(SYS_tgkill, 99999, gettid(), 0));
	num("tgkill: bad thread", syscall(SYS_tgkill, getpid(), 0, 0));
	num("tkill: absent", syscall(SYS_tkill, 99999, 0));
}

CASE(parent_death_signal)
{
	struct turn ready = turn_new(), done = turn_new();
	pid_t child = must(fork());
	if (child == 0) {
		if (fork() == 0) {
			block_signal(SIGUSR1);
			must(prctl(PR_SET_PDEATHSIG, SIGUSR1));
			turn_give(ready);
			sigset_t set;
			sigemptyset(&set);
			sigaddset(&set, SIGUSR1);
			siginfo_t info;
			say("grandchild got %s", signal_name(sigwaitinfo(&set, &info)));
			turn_give(done);
			_exit(0);
		}
		turn_take(ready);
		_exit(0);
	}
	int wait_status = reap(child);
	turn_take(done);
	status("child", wait_status);
}

CASE(process_vm_calls)
{
	char *there = must_map(mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	struct turn ready = turn_new(), go = turn_new();
	pid_t child = must(fork());
	if (child == 0) {
		strcpy(there, "the child's memory");
		turn_give(ready);
		turn_take(go);
		say("child has: %s", there);
		_exit(0);
	}
	turn_take(ready);
	char here[32] = "";
	struct iovec local = {here, 18}, remote = {there, 18};
	num("process_vm_readv", process_vm_readv(child, &local, 1, &remote, 1, 0));
	say("read: %s", here);
	strcpy(here, "written from here.");
	num("process_vm_writev", process_vm_writev(child, &local, 1, &remote, 1, 0));
	remote.iov_base = (void *)8;
	num("bad remote address", process_vm_readv(child, &local, 1, &remote, 1, 0));
	num("absent process", process_vm_readv(99999, &local, 1, &remote, 1, 0));
	turn_give(go);
	status("child", reap(child));
}

static long kcmp(pid_t first, pid_t second, int kind, int first_fd, int second_fd)
{
	long order = syscall(SYS_kcmp, first, second, kind, first_fd, second_fd);
	return order < 2 ? order : 1; /* different: which is less depends on where they are */
}

CASE(kcmp_calls)
{
	int file = must(open("f", O_RDWR | O_CREAT, 0644)), again = must(open("f", O_RDWR)), copy = must(dup(file));
	pid_t own = getpid(), child = must(fork());
	if (child == 0) {
		pause();
		_exit(0);
	}
	num("dup", kcmp(own, own, KCMP_FILE, file, copy));
	num("opened again", kcmp(own, own, KCMP_FILE, file, again));
	num("the child's", kcmp(own, child, KCMP_FILE, copy, file));
	num("bad descriptor", kcmp(own, own, KCMP_FILE, file, 99));
	for (int kind = KCMP_VM; kind <= KCMP_SIGHAND; kind++) {
		num("own", kcmp(own, own, kind, 0, 0));
		num("child", kcmp(own, child, kind, 0, 0));
	}
	num("unknown", kcmp(own, own, 99, 0, 0));
	num("no such process", kcmp(own, 999999, KCMP_VM, 0, 0));
	must(kill(child, SIGKILL));
	reap(child);
}
