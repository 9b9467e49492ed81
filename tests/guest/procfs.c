/* /proc: proc(5). What programs parse: its structure, and the facts that follow from the process itself. */
#include "guest.h"

#include <dirent.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/statfs.h>
#include <sys/utsname.h>

/* The value of a "Name:\tvalue" line. */
static char *field(const char *path, const char *name)
{
	static char value[256];
	char *text = get_file(path), *line = text;
	size_t length = strlen(name);
	while (line) {
		if (strncmp(line, name, length) == 0 && line[length] == ':') {
			line += length + 1;
			line += strspn(line, " \t");
			snprintf(value, sizeof value, "%.*s", (int)strcspn(line, "\n"), line);
			return value;
		}
		line = strchr(line, '\n');
		line = line ? line + 1 : NULL;
	}
	return strcpy(value, "absent");
}

static void say_fields(const char *path, const char *const *names, size_t count)
{
	for (size_t index = 0; index < count; index++)
		say("%s: %s", names[index], field(path, names[index]));
}

CASE(self_status)
{
	prctl(PR_SET_NAME, "my name");
	static const char *const names[] = {"Name", "Umask", "State", "TracerPid", "Uid", "Gid", "Groups", "Threads", "SigPnd", "ShdPnd",
		"SigBlk", "SigIgn", "SigCgt", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"};
	say_fields("/proc/self/status", names, COUNT(names));
	yes("Pid", atoi(field("/proc/self/status", "Pid")) == getpid());
	yes("Tgid", atoi(field("/proc/self/status", "Tgid")) == getpid());
	yes("PPid", atoi(field("/proc/self/status", "PPid")) == getppid());
	yes("VmRSS", atoi(field("/proc/self/status", "VmRSS")) > 0);
	yes("VmSize", atoi(field("/proc/self/status", "VmSize")) > 0);
	signal(SIGUSR1, SIG_IGN);
	on_signal(SIGUSR2, (void (*)(int))nap, 0);
	block_signal(SIGTERM);
	raise(SIGTERM);
	say("SigIgn %s", field("/proc/self/status", "SigIgn"));
	say("SigCgt %s", field("/proc/self/status", "SigCgt"));
	say("SigBlk %s", field("/proc/self/status", "SigBlk"));
	yes("pending somewhere", strcmp(field("/proc/self/status", "SigPnd"), "0000000000000000") != 0 ||
	    strcmp(field("/proc/self/status", "ShdPnd"), "0000000000000000") != 0);
}

CASE(self_stat)
{
	prctl(PR_SET_NAME, "odd) name (");
	char *text = strdup(get_file("/proc/self/stat")), *rest = strrchr(text, ')');
	int pid, parent, group, session, terminal, fields = 2;
	char state;
	pid = atoi(text);
	say("name %.*s", (int)(rest - strchr(text, '(') + 1), strchr(text, '('));
	must(sscanf(rest + 2, "%c %d %d %d %d", &state, &parent, &group, &session, &terminal) == 5 ? 0 : -1);
	for (char *word = strtok(rest + 1, " \n"); word; word = strtok(NULL, " \n"))
		fields++;
	yes("ids", pid == getpid() && parent == getppid() && group == getpgrp() && session == getsid(0));
	say("state %c terminal %d fields %d", state, terminal, fields);
	fields = 0;
	for (char *word = strtok(get_file("/proc/self/statm"), " \n"); word; word = strtok(NULL, " \n"))
		fields++;
	num("statm fields", fields);
}

CASE(self_strings)
{
	char *args[] = {"zero", "@strings", "two words", "", NULL}, *environment[] = {"A=1", "B=two", NULL};
	must(execve(SELF, args, environment));
}

static void say_strings(const char *path)
{
	char text[1024], line[1024];
	int fd = must(open(path, O_RDONLY));
	ssize_t length = must(read(fd, text, sizeof text)), used = 0;
	for (ssize_t index = 0; index < length; index++)
		line[used++] = text[index] ? text[index] : '|';
	line[used] = 0;
	say("%s: %s", path, line);
}

HELPER(strings)
{
	char link[256] = "";
	say_strings("/proc/self/cmdline");
	say_strings("/proc/self/environ");
	say_strings("/proc/self/comm");
	must(readlink("/proc/self/exe", link, sizeof link - 1));
	yes("exe is the program", strncmp(link, "/bin/procfs", 11) == 0);
	must(readlink("/proc/self/cwd", link, sizeof link - 1));
	say("cwd %s", strrchr(link, '/'));
	memset(link, 0, sizeof link);
	must(readlink("/proc/self/root", link, sizeof link - 1));
	say("root %s", link);
	put_file("/proc/self/comm", "renamed");
	say_strings("/proc/self/comm");
	return 0;
}

CASE(self_links)
{
	char link[64] = "", want[64];
	must(readlink("/proc/self", link, sizeof link - 1));
	yes("/proc/self", atoi(link) == getpid());
	memset(link, 0, sizeof link);
	must(readlink("/proc/thread-self", link, sizeof link - 1));
	snprintf(want, sizeof want, "%d/task/%d", getpid(), gettid());
	yes("/proc/thread-self", strcmp(link, want) == 0);
	memset(link, 0, sizeof link);
	must(readlink("/proc/mounts", link, sizeof link - 1));
	say("/proc/mounts %s", link);
}

CASE(descriptors)
{
	char path[64], link[256];
	int fds[2], number = 0;
	put_file("f", "0123456789");
	int file = must(dup2(must(open("f", O_RDWR | O_APPEND | O_CLOEXEC)), 40)), pair;
	must(lseek(file, 3, SEEK_SET));
	must(pipe(fds));
	pair = fds[0];
	snprintf(path, sizeof path, "/proc/self/fd/%d", file);
	memset(link, 0, sizeof link);
	must(readlink(path, link, sizeof link - 1));
	say("a file: %s", strrchr(link, '/'));
	snprintf(path, sizeof path, "/proc/self/fd/%d", pair);
	memset(link, 0, sizeof link);
	must(readlink(path, link, sizeof link - 1));
	say("a pipe: %.6s", link);
	ok("opening a pipe through it", open(path, O_RDONLY | O_NONBLOCK));
	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", file);
	say("pos %s", field(path, "pos"));
	say("flags %s", field(path, "flags"));
	DIR *folder = opendir("/proc/self/fd");
	for (struct dirent *entry; (entry = readdir(folder));)
		number += strcmp(entry->d_name, "40") == 0 || strcmp(entry->d_name, "0") == 0;
	num("listed", number);
	num("absent", open("/proc/self/fd/77", O_RDONLY));
	int reopened = must(open("/proc/self/fd/40", O_RDONLY));
	num("a new description has its own offset", lseek(reopened, 0, SEEK_CUR));
}

CASE(maps)
{
	volatile char *grown = malloc(1); /* so that there is a heap */
	grown[0] = 1;
	char *memory = must_map(mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	must(mprotect(memory + 4096, 4096, PROT_NONE));
	int fd = must(open("mapped file", O_RDWR | O_CREAT, 0644));
	must(ftruncate(fd, 8192));
	char *file = must_map(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 4096));
	char *line = strdup(get_file("/proc/self/maps")), *next;
	bool stack = false, heap = false, vdso = false, text = false, middle = false;
	int malformed = 0;
	unsigned long last = 0;
	for (; *line; line = next) {
		unsigned long start, end, offset, inode;
		unsigned major, minor;
		char permissions[5], name[256] = "";
		next = strchr(line, '\n') + 1;
		int fields = sscanf(line, "%lx-%lx %4s %lx %x:%x %lu %255[^\n]", &start, &end, permissions, &offset, &major, &minor, &inode, name);
		malformed += fields < 7 || start >= end || start < last;
		last = end;
		stack |= strcmp(name, "[stack]") == 0;
		heap |= strcmp(name, "[heap]") == 0;
		vdso |= strcmp(name, "[vdso]") == 0;
		text |= strstr(name, "/bin/procfs") && strcmp(permissions, "r-xp") == 0;
		middle |= start == (unsigned long)memory + 4096 && strcmp(permissions, "---p") == 0;
		if (start == (unsigned long)file)
			say("file: %s offset %lx inode %d name %s", permissions, offset, inode > 0, strrchr(name, '/'));
	}
	say("malformed %d stack %d heap %d vdso %d text %d protected part %d", malformed, stack, heap, vdso, text, middle);
	yes("smaps has Rss", strstr(get_file("/proc/self/smaps"), "\nRss:") != NULL);
}

static void *sleeper(void *argument)
{
	turn_take(*(struct turn *)argument);
	return NULL;
}

CASE(tasks)
{
	struct turn turn = turn_new();
	pthread_t threads[3];
	int number = 0;
	for (int index = 0; index < 3; index++)
		pthread_create(&threads[index], NULL, sleeper, &turn);
	DIR *folder = opendir("/proc/self/task");
	for (struct dirent *entry; (entry = readdir(folder));)
		number += entry->d_name[0] != '.';
	num("task folders", number);
	say("Threads %s", field("/proc/self/status", "Threads"));
	for (int index = 0; index < 3; index++)
		turn_give(turn);
	for (int index = 0; index < 3; index++)
		pthread_join(threads[index], NULL);
	say("Threads %s", field("/proc/self/status", "Threads"));
}

CASE(other_processes)
{
	char path[64];
	pid_t child = must(fork());
	if (child == 0) {
		prctl(PR_SET_NAME, "the child");
		for (;;)
			pause();
	}
	until_asleep(child);
	snprintf(path, sizeof path, "/proc/%d/status", child);
	say("Name %s", field(path, "Name"));
	yes("PPid", atoi(field(path, "PPid")) == getpid());
	say("State %s", field(path, "State"));
	kill(child, SIGSTOP);
	must(waitpid(child, NULL, WUNTRACED));
	say("State %s", field(path, "State"));
	kill(child, SIGKILL);
	siginfo_t info;
	must(waitid(P_PID, child, &info, WEXITED | WNOWAIT));
	say("State %s", field(path, "State"));
	reap(child);
	num("gone", access(path, F_OK));
	num("never there", access("/proc/99999", F_OK));
	bool me = false, init = false;
	DIR *folder = opendir("/proc");
	for (struct dirent *entry; (entry = readdir(folder));) {
		me |= atoi(entry->d_name) == getpid();
		init |= strcmp(entry->d_name, "1") == 0;
	}
	say("listed: me %d, init %d", me, init);
}

CASE(system_files)
{
	struct utsname names;
	must(uname(&names));
	double up, idle;
	yes("uptime", sscanf(get_file("/proc/uptime"), "%lf %lf", &up, &idle) == 2 && up > 0);
	float one, five, fifteen;
	int running, total, last;
	yes("loadavg", sscanf(get_file("/proc/loadavg"), "%f %f %f %d/%d %d", &one, &five, &fifteen, &running, &total, &last) == 6);
	yes("version", strncmp(get_file("/proc/version"), "Linux version ", 14) == 0);
	yes("osrelease", strncmp(get_file("/proc/sys/kernel/osrelease"), names.release, strlen(names.release)) == 0);
	yes("hostname", strncmp(get_file("/proc/sys/kernel/hostname"), names.nodename, strlen(names.nodename)) == 0);
	yes("MemTotal", atol(field("/proc/meminfo", "MemTotal")) > 10000);
	yes("MemAvailable", atol(field("/proc/meminfo", "MemAvailable")) > 1000);
	yes("processor", strcmp(field("/proc/cpuinfo", "processor\t"), "absent") != 0);
	yes("cpu line", strncmp(get_file("/proc/stat"), "cpu  ", 5) == 0);
	yes("btime", strstr(get_file("/proc/stat"), "\nbtime ") != NULL);
	yes("filesystems", strstr(get_file("/proc/filesystems"), "nodev\ttmpfs") != NULL);
	say("pid_max ok %d", atoi(get_file("/proc/sys/kernel/pid_max")) >= 32768);
	say("overcommit_memory %d", atoi(get_file("/proc/sys/vm/overcommit_memory")) <= 2);
	yes("boot_id", strlen(get_file("/proc/sys/kernel/random/boot_id")) == 37);
	yes("uuid", strlen(get_file("/proc/sys/kernel/random/uuid")) == 37);
	yes("cap_last_cap", atoi(get_file("/proc/sys/kernel/cap_last_cap")) >= 39);
	yes("ngroups_max", atoi(get_file("/proc/sys/kernel/ngroups_max")) == 65536);
	yes("file-max", atol(get_file("/proc/sys/fs/file-max")) > 1000);
	yes("somaxconn", atoi(get_file("/proc/sys/net/core/somaxconn")) >= 128);
}

CASE(mounts)
{
	char *line = strdup(get_file("/proc/self/mountinfo"));
	static const struct { const char *place, *type; } wanted[] = {
		{"/", NULL}, {"/proc", "proc"}, {"/dev", "tmpfs"}, {"/dev/pts", "devpts"}, {"/dev/shm", "tmpfs"}, {"/sys", "sysfs"}, {"/tmp", "tmpfs"},
	};
	bool found[COUNT(wanted)] = {false};
	int malformed = 0;
	for (line = strtok(line, "\n"); line; line = strtok(NULL, "\n")) {
		int identifier, parent;
		char device[32], root[256], place[256], options[256], type[64];
		char *separator = strstr(line, " - ");
		if (sscanf(line, "%d %d %31s %255s %255s %255s", &identifier, &parent, device, root, place, options) != 6 || !separator ||
		    sscanf(separator, " - %63s", type) != 1) {
			malformed++;
			continue;
		}
		for (size_t index = 0; index < COUNT(wanted); index++)
			found[index] |= strcmp(place, wanted[index].place) == 0 && (!wanted[index].type || strcmp(type, wanted[index].type) == 0);
	}
	num("malformed lines", malformed);
	for (size_t index = 0; index < COUNT(wanted); index++)
		yes(wanted[index].place, found[index]);
	yes("mounts", strstr(get_file("/proc/self/mounts"), " /proc proc ") != NULL);
}

/* The options that follow the mount's own flags. */
CASE(mount_options)
{
	static const char *const places[] = {"/proc", "/dev/pts", "/dev/shm", "/dev/mqueue", "/tmp"};
	char *text = strdup(get_file("/proc/self/mountinfo"));
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		char place[256];
		if (sscanf(line, "%*d %*d %*s %*s %255s", place) != 1)
			continue;
		for (size_t index = 0; index < COUNT(places); index++)
			if (strcmp(place, places[index]) == 0)
				say("%s%s", place, strstr(line, " - "));
		if (strcmp(place, "/") == 0)
			yes("the root's source is no \"rootfs\"", strstr(line, " rootfs ") == NULL);
	}
	struct statfs queue;
	must(statfs("/dev/mqueue", &queue));
	say("%#lx, %ld blocks", (long)queue.f_type, (long)queue.f_blocks);
}

CASE(limits_file)
{
	struct rlimit limit;
	char want[128];
	must(getrlimit(RLIMIT_NOFILE, &limit));
	snprintf(want, sizeof want, "Max open files            %-20lu %-20lu files", limit.rlim_cur, limit.rlim_max);
	yes("open files", strstr(get_file("/proc/self/limits"), want) != NULL);
	num("oom_score_adj", atoi(get_file("/proc/self/oom_score_adj")));
	say("uid_map %d", strlen(get_file("/proc/self/uid_map")) > 10);
	yes("cgroup", strchr(get_file("/proc/self/cgroup"), ':') != NULL);
	yes("mem", open("/proc/self/mem", O_RDWR) >= 0);
}

CASE(self_memory)
{
	static volatile int word = 1234;
	int value = 0, fd = must(open("/proc/self/mem", O_RDWR));
	num("read", pread(fd, &value, sizeof value, (off_t)(uintptr_t)&word));
	num("value", value);
	value = 5678;
	num("write", pwrite(fd, &value, sizeof value, (off_t)(uintptr_t)&word));
	num("value", word);
	num("nothing there", pread(fd, &value, sizeof value, 4096));
}

CASE(namespaces)
{
	static const char *const names[] = {"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"};
	for (size_t index = 0; index < COUNT(names); index++) {
		char path[64], link[64] = "";
		snprintf(path, sizeof path, "/proc/self/ns/%s", names[index]);
		must(readlink(path, link, sizeof link - 1));
		say("%.*s", (int)strcspn(link, "["), link);
	}
}

CASE(network_files)
{
	yes("net/dev has lo", strstr(get_file("/proc/net/dev"), "lo:") != NULL);
	yes("net/tcp", strstr(get_file("/proc/net/tcp"), "local_address") != NULL);
	yes("net/udp", strstr(get_file("/proc/net/udp"), "local_address") != NULL);
	yes("net/unix", strncmp(get_file("/proc/net/unix"), "Num ", 4) == 0);
	yes("net/route", strncmp(get_file("/proc/net/route"), "Iface", 5) == 0);
	char link[64] = "";
	must(readlink("/proc/net", link, sizeof link - 1));
	say("/proc/net %s", link);
}

CASE(errors)
{
	ok("create", open("/proc/new", O_CREAT | O_RDWR, 0644));
	num("mkdir", mkdir("/proc/new", 0755));
	num("unlink", unlink("/proc/version"));
	ok("write to a read-only file", open("/proc/version", O_WRONLY) >= 0 ? 0 : 0);
	num("rmdir", rmdir("/proc/self"));
	num("truncate", truncate("/proc/version", 0));
	struct stat info;
	must(stat("/proc/version", &info));
	say("size %ld mode %o", (long)info.st_size, info.st_mode & 07777);
	must(lstat("/proc/self", &info));
	say("/proc/self is a link: %d", S_ISLNK(info.st_mode));
	char byte;
	int fd = must(open("/proc/version", O_RDONLY));
	must(lseek(fd, 6, SEEK_SET));
	must(read(fd, &byte, 1));
	say("seek and read: %c", byte);
}
