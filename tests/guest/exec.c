/* Program execution: execve(2), execveat(2), #! scripts, what an execution keeps and resets, getauxval(3). */
#include "guest.h"

#include <elf.h>
#include <sys/auxv.h>
#include <sys/mman.h>

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
	yes("AT_EXECFN names the program", name && strncmp(name, "/bin/exec", 9) == 0);
}
