/*
 * `calls WAY ROUNDS`: system calls by the places of the C library that programs use most, again and again; then "done", and
 * it waits for the end of its input. A round of `calls` is some 20 system calls, one of `threads` a thread that is created
 * and joined and takes a lock in turn with its creator, one of `programs` a child that executes `calls nothing`.
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
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void check(int good, const char *what)
{
	if (!good) {
		perror(what);
		exit(1);
	}
}

static void one_round(const int pair[2], int poller)
{
	char byte = 1;
	struct stat status;
	struct epoll_event event;
	struct pollfd watched = {.fd = pair[0], .events = POLLIN};
	sigset_t old;
	int file = open("/dev/zero", O_RDONLY | O_CLOEXEC);

	check(file >= 0, "open");
	check(read(file, &byte, 1) == 1 && pread(file, &byte, 1, 0) == 1, "read");
	check(fstat(file, &status) == 0 && stat("/", &status) == 0 && access("/", R_OK) == 0, "stat");
	check(lseek(file, 0, SEEK_SET) == 0, "lseek");
	check(fcntl(file, F_GETFD) == FD_CLOEXEC, "fcntl");
	check(close(file) == 0, "close");
	check(write(pair[1], &byte, 1) == 1 && poll(&watched, 1, -1) == 1, "poll");
	check(epoll_wait(poller, &event, 1, -1) == 1 && read(pair[0], &byte, 1) == 1, "epoll_wait");
	check(send(pair[1], &byte, 1, 0) == 1 && recv(pair[0], &byte, 1, 0) == 1, "recv");
	check(pthread_sigmask(SIG_BLOCK, NULL, &old) == 0 && getppid() >= 0 && kill(getpid(), 0) == 0, "kill");
	void *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(page != MAP_FAILED && mprotect(page, 4096, PROT_NONE) == 0 && munmap(page, 4096) == 0, "mmap");
}

static void calls(int rounds)
{
	int pair[2], poller = epoll_create1(0);
	struct epoll_event event = {.events = EPOLLIN};

	check(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "socketpair");
	check(epoll_ctl(poller, EPOLL_CTL_ADD, pair[0], &event) == 0, "epoll_ctl");
	while (rounds--)
		one_round(pair, poller);
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int turns;

static void *take_turn(void *argument)
{
	pthread_mutex_lock(&mutex);
	turns++;
	pthread_cond_signal(&changed);
	pthread_mutex_unlock(&mutex);
	return argument;
}

static void threads(int rounds)
{
	for (int round = 1; round <= rounds; round++) {
		pthread_t thread;
		check(pthread_create(&thread, NULL, take_turn, NULL) == 0, "pthread_create");
		pthread_mutex_lock(&mutex);
		while (turns < round)
			pthread_cond_wait(&changed, &mutex);
		pthread_mutex_unlock(&mutex);
		check(pthread_join(thread, NULL) == 0, "pthread_join");
	}
}

static void programs(int rounds)
{
	while (rounds--) {
		int status;
		pid_t child = fork();
		if (child == 0) {
			execl("/proc/self/exe", "calls", "nothing", "0", NULL);
			_exit(1);
		}
		check(waitpid(child, &status, 0) == child && status == 0, "child");
	}
}

int main(int argc, char **argv)
{
	char byte;

	check(argc == 3, "usage: calls WAY ROUNDS");
	if (strcmp(argv[1], "nothing") == 0)
		return 0;
	(strcmp(argv[1], "calls") == 0 ? calls : strcmp(argv[1], "threads") == 0 ? threads : programs)(atoi(argv[2]));
	puts("done");
	fflush(stdout);
	return read(STDIN_FILENO, &byte, 1) != 0;
}
