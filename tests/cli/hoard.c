/*
 * Takes what the kernel has to remember for a program, and little memory of its own, until it gets no more or one of its processes is
 * killed; then all of them go.
 *
 *   hoard NAME
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PROCESSES = 1000 };

/* Does something in one process after the other, since each has its limits; they stay. */
static void in_many(int (*once)(void))
{
	sigset_t told;
	sigemptyset(&told);
	sigaddset(&told, SIGUSR1);
	sigaddset(&told, SIGCHLD);
	sigprocmask(SIG_BLOCK, &told, NULL);
	for (int process = 0; process < PROCESSES; process++) {
		pid_t child = fork();
		if (child < 0)
			return;
		if (child == 0) {
			while (once() == 0)
				;
			kill(getppid(), SIGUSR1);
			for (;;)
				pause();
		}
		if (sigwaitinfo(&told, NULL) == SIGCHLD)
			return;
	}
}

static int fill_pair(void)
{
	static char block[65536];
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) < 0)
		return -1;
	while (write(pair[0], block, sizeof block) > 0)
		;
	return 0;
}

static int fill_pipe(void)
{
	static char block[65536];
	int ends[2];
	if (pipe2(ends, O_NONBLOCK) < 0)
		return -1;
	while (write(ends[1], block, sizeof block) > 0)
		;
	return 0;
}

static int watch_pipe(void)
{
	static int ends[2];
	if (ends[1] == 0 && pipe(ends) < 0)
		return -1;
	return epoll_ctl(epoll_create1(0), EPOLL_CTL_ADD, ends[0], &(struct epoll_event){.events = EPOLLIN});
}

static int map_one(void)
{
	return mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0;
}

static int queue_signal(void)
{
	sigset_t all;
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	return sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 1});
}

static int make_timer(void)
{
	timer_t timer;
	return timer_create(CLOCK_MONOTONIC, &(struct sigevent){.sigev_notify = SIGEV_NONE}, &timer);
}

static void *sleep_for_ever(void *unused)
{
	for (;;)
		pause();
	return unused;
}

static int start_thread(void)
{
	pthread_t thread;
	pthread_attr_t attributes;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 16384);
	return pthread_create(&thread, &attributes, sleep_for_ever, NULL);
}

static void sockets(void) { in_many(fill_pair); }
static void pipes(void) { in_many(fill_pipe); }
static void epolls(void) { in_many(watch_pipe); }
static void mappings(void) { in_many(map_one); }
static void queued(void) { in_many(queue_signal); }
static void timers(void) { in_many(make_timer); }
static void threads(void) { in_many(start_thread); }

static int nothing(void) { return -1; }
static void processes(void) { in_many(nothing); }

/* In /tmp, a tmpfs. */
static void files(void)
{
	char name[64];
	for (int number = 0;; number++) {
		snprintf(name, sizeof name, "/tmp/file-with-a-name-that-takes-some-room-%d", number);
		int fd = open(name, O_WRONLY | O_CREAT, 0600);
		if (fd < 0)
			return;
		close(fd);
	}
}

int main(int argc, char **argv)
{
	static const struct { const char *name; void (*run)(void); } ways[] = {
		{"sockets", sockets}, {"pipes", pipes}, {"epolls", epolls}, {"mappings", mappings}, {"queued", queued},
		{"timers", timers}, {"threads", threads}, {"processes", processes}, {"files", files},
	};
	setpgid(0, 0);
	struct rlimit limit;
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	/* Like all that it starts, this is to go first. */
	int adjustment = open("/proc/self/oom_score_adj", O_WRONLY);
	if (adjustment < 0 || write(adjustment, "1000", 4) != 4)
		return 3;
	for (size_t index = 0; index < sizeof ways / sizeof *ways; index++)
		if (argc > 1 && strcmp(argv[1], ways[index].name) == 0) {
			ways[index].run();
			kill(0, SIGKILL);
		}
	return 2;
}
