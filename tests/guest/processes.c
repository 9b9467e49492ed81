/* Processes: fork(2), vfork(2), clone(2), clone3(2), execve(2), wait(2), pidfd_open(2), exit(2), setsid(2), setpgid(2). */
#include "guest.h"

#include <linux/sched.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <elf.h>

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

HELPER(echo)
{
	for (int index = 0; index < argc; index++)
		say("arg %d: %s", index, argv[index]);
	return argc;
}

HELPER(env)
{
	for (char **entry = environ; *entry; entry++)
		say("env: %s", *entry);
	return 0;
}

CASE(vfork_and_exec)
{
	char *args[] = {"x", "@echo", "one", NULL};
	pid_t child = vfork();

	if (child == 0) {
		execv(SELF, args);
		_exit(127);
	}
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

CASE(exec_args_and_environment)
{
	char *args[] = {"name", "@echo", "a b", "", "ü", NULL};
	char *no_environment[] = {NULL}, *environment[] = {"A=1", "B=", "=odd", NULL};
	pid_t child = must(fork());

	if (child == 0) {
		execve(SELF, args, no_environment);
		_exit(127);
	}
	status("echo", reap(child));
	char *env_args[] = {"name", "@env", NULL};
	child = must(fork());
	if (child == 0) {
		execve(SELF, env_args, environment);
		_exit(127);
	}
	status("env", reap(child));
}

CASE(exec_many_arguments)
{
	enum { ARGUMENTS = 2000 };
	static char *args[ARGUMENTS + 3];
	char big[100000];

	memset(big, 'x', sizeof big - 1);
	big[sizeof big - 1] = 0;
	args[0] = "x";
	args[1] = "@count";
	for (int index = 0; index < ARGUMENTS; index++)
		args[index + 2] = "argument";
	args[ARGUMENTS + 1] = big;
	pid_t child = must(fork());
	if (child == 0) {
		execv(SELF, args);
		_exit(127);
	}
	status("child", reap(child));
}

HELPER(count)
{
	size_t bytes = 0;

	for (int index = 0; index < argc; index++)
		bytes += strlen(argv[index]);
	say("%d arguments, %zu bytes", argc, bytes);
	return 0;
}

CASE(exec_argument_too_long)
{
	/* execve(2): a single string is limited to MAX_ARG_STRLEN (32 pages). */
	char *big = malloc(32 * 4096 + 1);
	memset(big, 'x', 32 * 4096);
	big[32 * 4096] = 0;
	char *args[] = {"x", big, NULL};
	ok("a string of 128 KiB", execv(SELF, args));
}

CASE(exec_errors)
{
	char *args[] = {"x", NULL};
	char *loop_args[] = {"x", NULL};

	put_file("plain", "no magic");
	put_file("empty", "");
	put_file("notexec", "#!/bin/sh\n");
	must(chmod("plain", 0755));
	must(chmod("empty", 0755));
	must(mkdir("folder", 0755));
	must(symlink("loop", "loop"));
	put_file("interp", "#!/nonexistent/interpreter\n");
	must(chmod("interp", 0755));
	put_file("selfloop", "#!./selfloop\n");
	must(chmod("selfloop", 0755));
	ok("absent", execv("absent", args));
	ok("below a file", execv("plain/x", args));
	ok("a folder", execv("folder", args));
	ok("without x permission", execv("notexec", args));
	ok("no known format", execv("plain", args));
	ok("empty file", execv("empty", args));
	ok("symbolic link loop", execv("loop", args));
	ok("absent interpreter", execv("interp", args));
	ok("#! of itself", execv("selfloop", loop_args));
	ok("empty path", execv("", args));
	ok("bad path pointer", syscall(SYS_execve, 8, args, NULL));
	ok("bad argv pointer", syscall(SYS_execve, SELF, 8, NULL));
	char *bad[] = {(char *)8, NULL};
	ok("bad argument pointer", execv(SELF, bad));
	char path[5000];
	memset(path, 'a', sizeof path - 1);
	path[sizeof path - 1] = 0;
	ok("name too long", execv(path, args));
}

CASE(exec_corrupted_elf)
{
	/* An ELF header that lies is ENOEXEC (or a signal once the old image is gone), never more. */
	static char image[8192];
	int source = must(open(SELF, O_RDONLY));
	must(read(source, image, sizeof image));
	close(source);
	Elf64_Ehdr *header = (void *)image;
	struct { const char *what; size_t offset, size; uint64_t value; } lies[] = {
		{"magic", 0, 4, 0x464c4500},
		{"type", offsetof(Elf64_Ehdr, e_type), 2, ET_REL},
		{"machine", offsetof(Elf64_Ehdr, e_machine), 2, EM_AARCH64},
		{"phentsize", offsetof(Elf64_Ehdr, e_phentsize), 2, 7},
		{"phnum", offsetof(Elf64_Ehdr, e_phnum), 2, 0},
	};
	(void)header;
	for (size_t index = 0; index < COUNT(lies); index++) {
		static char lie[8192];
		memcpy(lie, image, sizeof lie);
		memcpy(lie + lies[index].offset, &lies[index].value, lies[index].size);
		int fd = must(open("lie", O_WRONLY | O_CREAT | O_TRUNC, 0755));
		must(write(fd, lie, sizeof lie));
		close(fd);
		char *args[] = {"lie", NULL};
		pid_t child = must(fork());
		if (child == 0) {
			execv("./lie", args);
			say("%s: %s", lies[index].what, error_name(errno));
			_exit(0);
		}
		status(lies[index].what, reap(child));
	}
	int fd = must(open("lie", O_WRONLY | O_CREAT | O_TRUNC, 0755));
	must(write(fd, image, 40)); /* cut in the header */
	close(fd);
	char *args[] = {"lie", NULL};
	ok("cut in the header", execv("./lie", args));
}

CASE(exec_interpreter_script)
{
	/* execve(2): #! passes at most one argument, then the script's path, then the rest of argv. */
	put_file("script", "#!/proc/self/exe @echo\nignored\n");
	char *args[] = {"dropped", "first", "second", NULL};
	must(chmod("script", 0755));
	pid_t child = must(fork());
	if (child == 0) {
		execv("./script", args);
		_exit(127);
	}
	status("script", reap(child));
	put_file("shell", "#! /bin/sh -e\necho \"$0 $# $1\"\nfalse\necho not reached\n");
	must(chmod("shell", 0755));
	child = must(fork());
	if (child == 0) {
		execv("./shell", args);
		_exit(127);
	}
	status("shell", reap(child));
	put_file("nested", "#!./shell two words\n");
	must(chmod("nested", 0755));
	child = must(fork());
	if (child == 0) {
		execv("./nested", args);
		_exit(127);
	}
	status("nested", reap(child));
}

CASE(exec_resets)
{
	/* execve(2): handlers become default, ignored stays ignored, the mask stays, close-on-exec descriptors close. */
	signal(SIGUSR1, SIG_IGN);
	on_signal(SIGUSR2, (void (*)(int))nap, 0);
	block_signal(SIGTERM);
	must(open("/dev/null", O_RDONLY | O_CLOEXEC));
	int kept = must(open("/dev/null", O_RDONLY));
	must(dup2(kept, 20));
	must(dup3(kept, 21, O_CLOEXEC));
	char *args[] = {"x", "@resets", NULL};
	must(execv(SELF, args));
}

HELPER(resets)
{
	struct sigaction action;
	sigset_t mask;

	sigaction(SIGUSR1, NULL, &action);
	yes("SIGUSR1 ignored", action.sa_handler == SIG_IGN);
	sigaction(SIGUSR2, NULL, &action);
	yes("SIGUSR2 default", action.sa_handler == SIG_DFL);
	sigprocmask(SIG_SETMASK, NULL, &mask);
	yes("SIGTERM blocked", sigismember(&mask, SIGTERM));
	num("fd 20", fcntl(20, F_GETFD));
	num("fd 21", fcntl(21, F_GETFD));
	return 0;
}

CASE(exec_keeps_pid_and_pending)
{
	char text[32];
	block_signal(SIGUSR1);
	raise(SIGUSR1);
	snprintf(text, sizeof text, "%d", getpid());
	char *args[] = {"x", "@keeps", text, NULL};
	must(execv(SELF, args));
}

HELPER(keeps)
{
	sigset_t set;
	(void)argc;
	yes("the same process id", atoi(argv[0]) == getpid());
	sigpending(&set);
	yes("SIGUSR1 pending", sigismember(&set, SIGUSR1));
	return 0;
}

CASE(execveat_variants)
{
	char *args[] = {"x", "@echo", "via", NULL};
	struct { const char *what; int at; const char *path; int flags; } ways[] = {
		{"absolute", AT_FDCWD, SELF, 0},
		{"descriptor and empty path", open(SELF, O_PATH), "", AT_EMPTY_PATH},
		{"descriptor, empty path, no flag", open(SELF, O_PATH), "", 0},
		{"folder and name", open("/proc/self", O_PATH | O_DIRECTORY), "exe", 0},
		{"symbolic link refused", AT_FDCWD, SELF, AT_SYMLINK_NOFOLLOW},
		{"bad descriptor", 77, "x", 0},
		{"unknown flag", AT_FDCWD, SELF, 0x8000000},
	};

	for (size_t index = 0; index < COUNT(ways); index++) {
		pid_t child = must(fork());
		if (child == 0) {
			syscall(SYS_execveat, ways[index].at, ways[index].path, args, environ, ways[index].flags);
			say("%s: %s", ways[index].what, error_name(errno));
			_exit(50);
		}
		status(ways[index].what, reap(child));
	}
}

CASE(exec_from_memfd)
{
	int memory = must(memfd_create("program", 0));
	int source = must(open(SELF, O_RDONLY));
	char block[65536];
	ssize_t got;

	while ((got = must(read(source, block, sizeof block))) > 0)
		must(write(memory, block, got));
	char *args[] = {"x", "@echo", "from memory", NULL};
	must(syscall(SYS_execveat, memory, "", args, environ, AT_EMPTY_PATH));
}

CASE(exec_busy_text)
{
	/* open(2), execve(2): ETXTBSY both ways. */
	char block[65536];
	ssize_t got;
	int source = must(open(SELF, O_RDONLY)), copy = must(open("copy", O_WRONLY | O_CREAT, 0755));

	while ((got = must(read(source, block, sizeof block))) > 0)
		must(write(copy, block, got));
	char *args[] = {"copy", "@echo", NULL};
	ok("execute a file open for writing", execv("./copy", args));
	close(copy);
	struct turn turn = turn_new();
	char number[12];
	snprintf(number, sizeof number, "%d", turn.fds[1]);
	char *wait_args[] = {"copy", "@announce_and_pause", number, NULL};
	pid_t child = must(fork());
	if (child == 0) {
		execv("./copy", wait_args);
		_exit(127);
	}
	turn_take(turn);
	ok("open a running program for writing", open("copy", O_WRONLY));
	kill(child, SIGKILL);
	status("child", reap(child));
	ok("open it afterwards", open("copy", O_WRONLY));
}

HELPER(announce_and_pause)
{
	(void)argc;
	must(write(atoi(argv[0]), "!", 1));
	pause();
	return 0;
}

CASE(auxiliary_vector)
{
	yes("AT_PAGESZ 4096", getauxval(AT_PAGESZ) == 4096);
	yes("AT_PHDR is mapped", getauxval(AT_PHDR) != 0);
	num("AT_PHENT", getauxval(AT_PHENT));
	yes("AT_ENTRY", getauxval(AT_ENTRY) != 0);
	yes("AT_RANDOM", getauxval(AT_RANDOM) != 0);
	say("AT_PLATFORM %s", (char *)getauxval(AT_PLATFORM));
	say("AT_UID %lu AT_EUID %lu AT_GID %lu AT_EGID %lu AT_SECURE %lu", getauxval(AT_UID), getauxval(AT_EUID),
	    getauxval(AT_GID), getauxval(AT_EGID), getauxval(AT_SECURE));
	num("AT_CLKTCK", getauxval(AT_CLKTCK));
	yes("AT_SYSINFO_EHDR is an ELF image",
	    getauxval(AT_SYSINFO_EHDR) && memcmp((void *)getauxval(AT_SYSINFO_EHDR), ELFMAG, 4) == 0);
	const char *name = (char *)getauxval(AT_EXECFN);
	yes("AT_EXECFN names the program", name && strncmp(name, "/bin/processes", 14) == 0);
}

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
	num("sched_getscheduler of an absent one", sched_getscheduler(99999));
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
	#include <sys/uio.h>
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
