#include "guest.h"

#include <sys/mman.h>
#include <sys/prctl.h>

enum { CASE_SECONDS = 60 };

static struct guest_entry *first, **last = &first;

void guest_register(struct guest_entry *entry)
{
	*last = entry;
	last = &entry->next;
}

void say(const char *format, ...)
{
	char line[4096];
	int saved = errno;
	va_list arguments;

	va_start(arguments, format);
	int length = vsnprintf(line, sizeof line - 1, format, arguments);
	va_end(arguments);
	if (length > (int)sizeof line - 2)
		length = sizeof line - 2;
	line[length++] = '\n';
	for (int done = 0; done < length;) {
		ssize_t wrote = write(STDOUT_FILENO, line + done, length - done);
		if (wrote < 0 && errno != EINTR)
			break;
		if (wrote > 0)
			done += wrote;
	}
	errno = saved;
}

const char *error_name(int error)
{
	const char *name = strerrorname_np(error);
	return name ? name : "unknown error";
}

const char *signal_name(int number)
{
	static _Thread_local char names[4][24]; /* in turn, so that one line may name several */
	static _Thread_local unsigned turn;
	char *name = names[turn++ % 4];
	const char *abbreviation = sigabbrev_np(number);

	if (number == 0)
		return "0";
	if (number >= SIGRTMIN)
		snprintf(name, sizeof names[0], "SIGRTMIN+%d", number - SIGRTMIN);
	else if (abbreviation)
		snprintf(name, sizeof names[0], "SIG%s", abbreviation);
	else
		snprintf(name, sizeof names[0], "signal %d", number);
	return name;
}

long ok(const char *what, long result)
{
	say("%s: %s", what, result == -1 ? error_name(errno) : "ok");
	return result;
}

long num(const char *what, long result)
{
	if (result == -1)
		say("%s: %s", what, error_name(errno));
	else
		say("%s: %ld", what, result);
	return result;
}

bool yes(const char *what, bool fact)
{
	say("%s: %s", what, fact ? "yes" : "no");
	return fact;
}

void status(const char *what, int wait_status)
{
	if (WIFEXITED(wait_status))
		say("%s: exit %d", what, WEXITSTATUS(wait_status));
	else if (WIFSIGNALED(wait_status))
		say("%s: killed %s", what, signal_name(WTERMSIG(wait_status)));
	else if (WIFSTOPPED(wait_status))
		say("%s: stopped %s", what, signal_name(WSTOPSIG(wait_status)));
	else if (WIFCONTINUED(wait_status))
		say("%s: continued", what);
	else
		say("%s: status %#x", what, wait_status);
}

long guest_must(long result, const char *call, int line)
{
	if (result == -1) {
		say("setup failed at line %d: %s: %s", line, call, error_name(errno));
		_exit(99);
	}
	return result;
}

void *guest_must_map(void *result, const char *call, int line)
{
	guest_must(result == MAP_FAILED ? -1 : 0, call, line);
	return result;
}

void nap(int milliseconds)
{
	struct timespec left = {milliseconds / 1000, milliseconds % 1000 * 1000000L};

	while (nanosleep(&left, &left) == -1 && errno == EINTR)
		;
}

int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

void put_file(const char *path, const char *text)
{
	int fd = must(open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644));

	must(write(fd, text, strlen(text)));
	close(fd);
}

char *get_file(const char *path)
{
	static char text[1 << 16];
	int fd = must(open(path, O_RDONLY));
	size_t length = 0;

	for (;;) {
		ssize_t got = must(read(fd, text + length, sizeof text - 1 - length));
		if (got == 0)
			break;
		length += got;
	}
	text[length] = 0;
	close(fd);
	return text;
}

int reap(pid_t child)
{
	int wait_status = 0;

	while (waitpid(child, &wait_status, 0) == -1)
		must(errno == EINTR ? 0 : -1);
	return wait_status;
}

static bool asleep(const char *path)
{
	char text[512];
	int fd = open(path, O_RDONLY);

	if (fd < 0)
		return false;
	ssize_t length = read(fd, text, sizeof text - 1);
	close(fd);
	if (length <= 0)
		return false;
	text[length] = 0;
	const char *end = strrchr(text, ')');
	return end && end[1] == ' ' && end[2] == 'S';
}

static void until_asleep_at(const char *path)
{
	for (int round = 0; round < 400; round++) {
		/* Twice in a row: a task on its way to the blocking call may sleep for a moment somewhere else. */
		if (asleep(path)) {
			nap(5);
			if (asleep(path))
				return;
		}
		nap(5);
	}
}

void until_asleep(pid_t process)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/%d/stat", process);
	until_asleep_at(path);
}

void until_task_asleep(pid_t process, pid_t thread)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/%d/task/%d/stat", process, thread);
	until_asleep_at(path);
}

bool until_changed(const volatile int *word, int old)
{
	for (int round = 0; round < 5000; round++) {
		if (__atomic_load_n(word, __ATOMIC_SEQ_CST) != old)
			return true;
		nap(2);
	}
	return false;
}

void *shared_page(void)
{
	return must_map(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
}

struct turn turn_new(void)
{
	struct turn turn;

	must(pipe(turn.fds));
	return turn;
}

void turn_give(struct turn turn)
{
	must(write(turn.fds[1], "!", 1));
}

void turn_take(struct turn turn)
{
	char byte;
	ssize_t got;

	while ((got = read(turn.fds[0], &byte, 1)) == -1 && errno == EINTR)
		;
	must(got);
}

void on_signal(int number, void (*handler)(int), int flags)
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = flags};

	must(sigaction(number, &action, NULL));
}

void on_siginfo(int number, void (*handler)(int, siginfo_t *, void *), int flags)
{
	struct sigaction action = {.sa_sigaction = handler, .sa_flags = flags | SA_SIGINFO};

	must(sigaction(number, &action, NULL));
}

static void change_mask(int how, int number)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, number);
	must(sigprocmask(how, &set, NULL));
}

void block_signal(int number)
{
	change_mask(SIG_BLOCK, number);
}

void unblock_signal(int number)
{
	change_mask(SIG_UNBLOCK, number);
}

static volatile sig_atomic_t timed_out;
static volatile pid_t running;

static void give_up(int number)
{
	(void)number;
	timed_out = 1;
	kill(running, SIGKILL);
}

static void run_case(const struct guest_entry *entry)
{
	say("== %s", entry->name);
	timed_out = 0;
	pid_t child = fork();
	if (child < 0) {
		say("-- fork: %s", error_name(errno));
		return;
	}
	if (child == 0) {
		signal(SIGALRM, SIG_DFL);
		setpgid(0, 0);
		mkdir(entry->name, 0755);
		must(chdir(entry->name));
		entry->run();
		_exit(0);
	}
	running = child;
	alarm(CASE_SECONDS);
	int wait_status = reap(child);
	alarm(0);
	kill(-child, SIGKILL); /* what the case left behind in its process group */
	if (getpid() == 1)
		kill(-1, SIGKILL);
	while (waitpid(-1, NULL, getpid() == 1 ? 0 : WNOHANG) > 0)
		;
	if (timed_out)
		say("-- timeout");
	else if (WIFSIGNALED(wait_status))
		say("-- signal %s", signal_name(WTERMSIG(wait_status)));
	else
		say("-- exit %d", WEXITSTATUS(wait_status));
}

int main(int argc, char **argv)
{
	if (argc > 1 && argv[1][0] == '@') {
		for (struct guest_entry *entry = first; entry; entry = entry->next)
			if (entry->help && strcmp(entry->name, argv[1] + 1) == 0)
				return entry->help(argc - 2, argv + 2);
		say("no helper %s", argv[1]);
		return 98;
	}
	signal(SIGALRM, give_up);
	umask(022);
	for (struct guest_entry *entry = first; entry; entry = entry->next) {
		bool wanted = argc == 1;
		for (int index = 1; index < argc; index++)
			wanted |= strcmp(argv[index], entry->name) == 0;
		if (entry->run && wanted)
			run_case(entry);
	}
	return 0;
}
