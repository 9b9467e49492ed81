// Ways to write to standard output that are collected, or must not be. writer WAY

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LINES = 20000, LARGE = 2 << 20, PIPE = 4096 };

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void say(const char *text)
{
	if (write(1, text, strlen(text)) != (ssize_t)strlen(text))
		fail("write");
}

// Line `number` of a writer; some are as long as a pipe takes at once.
static size_t line(char *at, char writer, int number)
{
	int bytes = sprintf(at, "%c %d ", writer, number), length = number % 64 ? 20 + number % 200 : PIPE;
	memset(at + bytes, writer, length - bytes);
	at[length - 1] = '\n';
	return length;
}

static void *lines(void *writer)
{
	char text[PIPE];
	for (int number = 0; number < LINES; number++) {
		size_t length = line(text, *(char *)writer, number);
		if (write(1, text, length) != (ssize_t)length)
			fail("write");
	}
	return NULL;
}

static void prompt(void)
{
	say("one\n");
	say("two\n");
	say("name: ");
}

static void sleeps(void)
{
	prompt();
	pause();
}

static void computes(void)
{
	prompt();
	for (;;)
		;
}

static void large(void)
{
	char *much = malloc(LARGE);
	memset(much, 'x', LARGE);
	much[LARGE - 1] = '\n';
	say("before\n");
	say("just before\n");
	if (write(1, much, LARGE) != LARGE)
		fail("write");
	say("after\n");
}

static void nonblocking(void)
{
	char text[PIPE];
	int refused = 0;
	fcntl(1, F_SETFL, O_NONBLOCK);
	for (int number = 0; number < LINES;) {
		size_t length = line(text, 'N', number);
		ssize_t written = write(1, text, length);
		if (written == (ssize_t)length)
			number++;
		else if (written >= 0 || errno != EAGAIN)
			fail("a part of a line");
		else if (poll(&(struct pollfd){.fd = 1, .events = POLLOUT}, 1, -1) != 1)
			fail("poll");
		else
			refused++;
	}
	exit(refused ? 0 : 2);
}

static void threads(void)
{
	pthread_t other;
	pthread_create(&other, NULL, lines, "A");
	lines("B");
	pthread_join(other, NULL);
}

static void processes(void)
{
	for (const char *writer = "ABC"; *writer; writer++)
		if (!fork()) {
			lines((void *)writer);
			exit(0);
		}
	while (wait(NULL) > 0)
		;
}

static void both(void)
{
	for (int number = 0; number < LINES; number++)
		dprintf(1 + number % 3 / 2, "%d\n", number);
}

// Ends as soon as everything is written, by a signal that nobody can do anything about.
static void killed(void)
{
	if (getpid() == 1) {
		int status;
		if (!fork())
			killed();
		wait(&status);
		exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : 1);
	}
	lines("K");
	raise(SIGKILL);
}

// More than a pipe takes, less than what is collected.
static void much(void)
{
	for (int number = 0; number < 40; number++) {
		char text[PIPE];
		line(text, 'M', number * 64);
		if (write(1, text, PIPE) != PIPE)
			fail("write");
	}
}

static const struct way {
	const char *name;
	void (*run)(void);
} WAYS[] = {
    {"sleeps", sleeps},   {"computes", computes},   {"large", large}, {"nonblocking", nonblocking},
    {"threads", threads}, {"processes", processes}, {"both", both},   {"killed", killed},
    {"much", much},
};

int main(int count, char **arguments)
{
	for (size_t way = 0; count == 2 && way < sizeof(WAYS) / sizeof(*WAYS); way++)
		if (!strcmp(arguments[1], WAYS[way].name)) {
			WAYS[way].run();
			return 0;
		}
	return 64;
}
