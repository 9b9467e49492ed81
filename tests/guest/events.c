/* Readiness: eventfd(2), epoll(7), poll(2), ppoll(2), select(2), signalfd(2). */
#include "guest.h"

#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

static void ignore(int number) { (void)number; }

CASE(eventfd_counter)
{
	uint64_t value = 0;
	int fd = must(eventfd(3, EFD_NONBLOCK));
	num("read", read(fd, &value, 8));
	say("value %lu", (unsigned long)value);
	num("read zero", read(fd, &value, 8));
	num("write", write(fd, &(uint64_t){5}, 8));
	num("write", write(fd, &(uint64_t){6}, 8));
	num("read", read(fd, &value, 8));
	say("value %lu", (unsigned long)value);
	num("write of the largest", write(fd, &(uint64_t){UINT64_MAX - 1}, 8));
	num("one more", write(fd, &(uint64_t){1}, 8));
	num("all ones", write(fd, &(uint64_t){UINT64_MAX}, 8));
	num("read 4 bytes", read(fd, &value, 4));
	num("write 4 bytes", write(fd, &value, 4));
	struct pollfd ready = {fd, POLLIN | POLLOUT, 0};
	poll(&ready, 1, 0);
	say("full %#x", ready.revents);
	must(read(fd, &value, 8));
	poll(&ready, 1, 0);
	say("empty %#x", ready.revents);
	num("unknown flags", eventfd(0, 8));
}

CASE(eventfd_semaphore)
{
	uint64_t value = 0;
	int fd = must(eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK));
	for (int turn = 0; turn < 3; turn++) {
		value = 0;
		num("read", read(fd, &value, 8));
		say("value %lu", (unsigned long)value);
	}
}

CASE(eventfd_wakes)
{
	int fd = must(eventfd(0, 0));
	pid_t child = must(fork());
	if (child == 0) {
		uint64_t value;
		num("child reads", read(fd, &value, 8));
		say("value %lu", (unsigned long)value);
		_exit(0);
	}
	until_asleep(child);
	must(write(fd, &(uint64_t){7}, 8));
	status("child", reap(child));
}

static struct epoll_event event(uint32_t events, uint64_t data) { return (struct epoll_event){.events = events, .data.u64 = data}; }

static int compare(const void *left, const void *right)
{
	return (int)((const struct epoll_event *)left)->data.u64 - (int)((const struct epoll_event *)right)->data.u64;
}

/* What is ready now, by data: the order among several is not defined. */
static void show_events(int epoll)
{
	struct epoll_event events[8];
	int count = epoll_wait(epoll, events, 8, 0);
	if (count > 1)
		qsort(events, count, sizeof *events, compare);
	if (count < 0)
		say("epoll_wait: %s", error_name(errno));
	else if (count == 0)
		say("  nothing");
	for (int index = 0; index < count; index++)
		say("  %lu: %#x", (unsigned long)events[index].data.u64, events[index].events);
}

CASE(epoll_level)
{
	int epoll = must(epoll_create1(EPOLL_CLOEXEC)), fds[2];
	char byte;
	must(pipe(fds));
	num("F_GETFD", fcntl(epoll, F_GETFD));
	num("add", epoll_ctl(epoll, EPOLL_CTL_ADD, fds[0], &(struct epoll_event){.events = EPOLLIN, .data.u64 = 1}));
	show_events(epoll);
	must(write(fds[1], "ab", 2));
	show_events(epoll);
	must(read(fds[0], &byte, 1));
	show_events(epoll);
	must(read(fds[0], &byte, 1));
	show_events(epoll);
	struct epoll_event changed = event(EPOLLIN, 99);
	must(epoll_ctl(epoll, EPOLL_CTL_MOD, fds[0], &changed));
	close(fds[1]);
	show_events(epoll);
	num("delete", epoll_ctl(epoll, EPOLL_CTL_DEL, fds[0], NULL));
	show_events(epoll);
}

CASE(epoll_edge)
{
	int epoll = must(epoll_create1(0)), fds[2];
	char byte;
	must(pipe(fds));
	struct epoll_event in = event(EPOLLIN | EPOLLET, 1), out = event(EPOLLOUT | EPOLLET, 2);
	must(epoll_ctl(epoll, EPOLL_CTL_ADD, fds[0], &in));
	must(epoll_ctl(epoll, EPOLL_CTL_ADD, fds[1], &out));
	show_events(epoll);
	show_events(epoll);
	must(write(fds[1], "ab", 2));
	show_events(epoll);
	show_events(epoll);
	must(read(fds[0], &byte, 1));
	say("after reading a part");
	show_events(epoll);
	must(write(fds[1], "c", 1));
	say("after a new write");
	show_events(epoll);
	must(epoll_ctl(epoll, EPOLL_CTL_MOD, fds[0], &in));
	say("after EPOLL_CTL_MOD");
	show_events(epoll);
}

CASE(epoll_oneshot)
{
	int epoll = must(epoll_create1(0)), fds[2];
	must(pipe(fds));
	struct epoll_event once = event(EPOLLIN | EPOLLONESHOT, 1);
	must(epoll_ctl(epoll, EPOLL_CTL_ADD, fds[0], &once));
	must(write(fds[1], "a", 1));
	show_events(epoll);
	show_events(epoll);
	num("add again", epoll_ctl(epoll, EPOLL_CTL_ADD, fds[0], &once));
	must(epoll_ctl(epoll, EPOLL_CTL_MOD, fds[0], &once));
	show_events(epoll);
}

CASE(epoll_errors)
{
	int epoll = must(epoll_create1(0)), fds[2], file = must(open("f", O_RDWR | O_CREAT, 0644));
	struct epoll_event in = event(EPOLLIN, 1), events[4];
	must(pipe(fds));
	num("epoll_create 0", epoll_create(0));
	num("epoll_create1 unknown flag", epoll_create1(1));
	num("a regular file", epoll_ctl(epoll, EPOLL_CTL_ADD, file, &in));
	num("a folder", epoll_ctl(epoll, EPOLL_CTL_ADD, must(open(".", O_RDONLY)), &in));
	num("itself", epoll_ctl(epoll, EPOLL_CTL_ADD, epoll, &in));
	num("bad descriptor", epoll_ctl(epoll, EPOLL_CTL_ADD, 99, &in));
	num("no epoll", epoll_ctl(fds[0], EPOLL_CTL_ADD, fds[1], &in));
	num("twice", (must(epoll_ctl(epoll, EPOLL_CTL_ADD, fds[0], &in)), epoll_ctl(epoll, EPOLL_CTL_ADD, fds[0], &in)));
	num("modify an absent one", epoll_ctl(epoll, EPOLL_CTL_MOD, fds[1], &in));
	num("delete an absent one", epoll_ctl(epoll, EPOLL_CTL_DEL, fds[1], NULL));
	num("unknown operation", epoll_ctl(epoll, 9, fds[1], &in));
	num("bad pointer", epoll_ctl(epoll, EPOLL_CTL_ADD, fds[1], (void *)8));
	num("wait for 0 events", epoll_wait(epoll, events, 0, 0));
	num("wait on no epoll", epoll_wait(fds[0], events, 4, 0));
	must(write(fds[1], "x", 1));
	num("wait with a bad pointer", epoll_wait(epoll, (void *)8, 4, 0));
	num("read", read(epoll, events, 8));
	int chain = epoll;
	int depth = 0;
	for (; depth < 10; depth++) {
		int next = must(epoll_create1(0));
		if (epoll_ctl(next, EPOLL_CTL_ADD, chain, &in) == -1)
			break;
		chain = next;
	}
	say("nesting stops at %d: %s", depth, error_name(errno));
	int other = must(epoll_create1(0)), third = must(epoll_create1(0));
	must(epoll_ctl(other, EPOLL_CTL_ADD, third, &in));
	num("a loop", epoll_ctl(third, EPOLL_CTL_ADD, other, &in));
}

CASE(epoll_descriptions)
{
	/* epoll(7) Q6: a registration lives until all descriptors of the description are closed. */
	int epoll = must(epoll_create1(0)), fds[2];
	struct epoll_event in = event(EPOLLIN, 1), again = event(EPOLLIN, 2);
	must(pipe(fds));
	must(epoll_ctl(epoll, EPOLL_CTL_ADD, fds[0], &in));
	int copy = must(dup(fds[0]));
	num("a duplicate is another key", epoll_ctl(epoll, EPOLL_CTL_ADD, copy, &again));
	must(write(fds[1], "x", 1));
	show_events(epoll);
	must(epoll_ctl(epoll, EPOLL_CTL_DEL, copy, NULL));
	close(fds[0]);
	say("after closing the registered descriptor, the duplicate being open");
	show_events(epoll);
	close(copy);
	say("after closing both");
	show_events(epoll);
}

CASE(epoll_nested)
{
	int inner = must(epoll_create1(0)), outer = must(epoll_create1(0)), fds[2];
	struct epoll_event in = event(EPOLLIN, 1), nested = event(EPOLLIN, 2);
	must(pipe(fds));
	must(epoll_ctl(inner, EPOLL_CTL_ADD, fds[0], &in));
	must(epoll_ctl(outer, EPOLL_CTL_ADD, inner, &nested));
	show_events(outer);
	must(write(fds[1], "x", 1));
	show_events(outer);
	struct pollfd ready = {inner, POLLIN, 0};
	num("poll of an epoll", poll(&ready, 1, 0));
}

CASE(epoll_sees_all_kinds)
{
	int epoll = must(epoll_create1(0)), pair[2], event_fd = must(eventfd(0, 0));
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	struct epoll_event socket_event = event(EPOLLIN | EPOLLRDHUP, 1), counter = event(EPOLLIN, 2), null = event(EPOLLIN, 3);
	must(epoll_ctl(epoll, EPOLL_CTL_ADD, pair[0], &socket_event));
	must(epoll_ctl(epoll, EPOLL_CTL_ADD, event_fd, &counter));
	num("/dev/null", epoll_ctl(epoll, EPOLL_CTL_ADD, must(open("/dev/null", O_RDONLY)), &null));
	must(write(event_fd, &(uint64_t){1}, 8));
	show_events(epoll);
	must(read(event_fd, &(uint64_t){0}, 8));
	must(write(pair[1], "x", 1));
	show_events(epoll);
	close(pair[1]);
	show_events(epoll);
}

CASE(epoll_fairness)
{
	/* With room for one event, a second call returns the other ready descriptor. */
	int epoll = must(epoll_create1(0)), a[2], b[2];
	struct epoll_event one = event(EPOLLIN, 1), two = event(EPOLLIN, 2), got[2];
	must(pipe(a));
	must(pipe(b));
	must(epoll_ctl(epoll, EPOLL_CTL_ADD, a[0], &one));
	must(epoll_ctl(epoll, EPOLL_CTL_ADD, b[0], &two));
	must(write(a[1], "x", 1));
	must(write(b[1], "x", 1));
	must(epoll_wait(epoll, got, 1, 0));
	must(epoll_wait(epoll, got + 1, 1, 0));
	yes("both came", got[0].data.u64 + got[1].data.u64 == 3);
}

CASE(epoll_timeouts)
{
	int epoll = must(epoll_create1(0));
	struct epoll_event got;
	sigset_t set;
	struct timespec soon = {0, 10000000};
	int64_t start = now_ms();
	num("10 ms", epoll_wait(epoll, &got, 1, 10));
	yes("took that long", now_ms() - start >= 9);
	sigfillset(&set);
	num("epoll_pwait", epoll_pwait(epoll, &got, 1, 1, &set));
	num("epoll_pwait2", syscall(SYS_epoll_pwait2, epoll, &got, 1, &soon, NULL, 8));
	num("epoll_pwait bad size", syscall(SYS_epoll_pwait, epoll, &got, 1, 0, &set, 5));
	on_signal(SIGUSR1, ignore, 0);
	block_signal(SIGUSR1);
	raise(SIGUSR1);
	sigemptyset(&set);
	num("epoll_pwait lets the signal in", epoll_pwait(epoll, &got, 1, 10000, &set));
}

static void *waiter(void *argument)
{
	struct epoll_event got;
	return (void *)(intptr_t)epoll_wait(*(int *)argument, &got, 1, 10000);
}

CASE(epoll_wakes_a_thread)
{
	int epoll = must(epoll_create1(0)), fds[2];
	pthread_t thread;
	must(pipe(fds));
	pthread_create(&thread, NULL, waiter, &epoll);
	nap(10);
	struct epoll_event in = event(EPOLLIN, 1);
	must(write(fds[1], "x", 1));
	num("added while another thread waits", epoll_ctl(epoll, EPOLL_CTL_ADD, fds[0], &in));
	void *result;
	pthread_join(thread, &result);
	num("events", (intptr_t)result);
}

CASE(epoll_exclusive_and_many)
{
	enum { PIPES = 200 };
	int epoll = must(epoll_create1(0)), fds[PIPES][2];
	for (int index = 0; index < PIPES; index++) {
		must(pipe(fds[index]));
		struct epoll_event in = event(EPOLLIN, index);
		must(epoll_ctl(epoll, EPOLL_CTL_ADD, fds[index][0], &in));
	}
	for (int index = 0; index < PIPES; index += 3)
		must(write(fds[index][1], "x", 1));
	struct epoll_event got[PIPES];
	int count = epoll_wait(epoll, got, PIPES, 0), wrong = 0;
	for (int index = 0; index < count; index++)
		wrong += got[index].data.u64 % 3 != 0;
	say("%d events, %d wrong", count, wrong);
	int again = must(epoll_create1(0));
	struct epoll_event exclusive = event(EPOLLIN | EPOLLEXCLUSIVE, 1);
	num("EPOLLEXCLUSIVE", epoll_ctl(again, EPOLL_CTL_ADD, fds[0][0], &exclusive));
	num("modifying it", epoll_ctl(again, EPOLL_CTL_MOD, fds[0][0], &exclusive));
}

CASE(poll_calls)
{
	int fds[2];
	must(pipe(fds));
	struct pollfd set[3] = {{fds[0], POLLIN, 0}, {99, POLLIN, 0}, {-1, POLLIN, 77}};
	num("invalid and negative descriptors", poll(set, 3, 0));
	say("%#x %#x %#x", set[0].revents, set[1].revents, set[2].revents);
	int64_t start = now_ms();
	num("timeout", poll(set, 1, 20));
	yes("took that long", now_ms() - start >= 19);
	num("nobody, as a sleep", poll(NULL, 0, 5));
	num("bad pointer", poll((void *)8, 1, 0));
	num("too many", poll(set, 100000, 0));
	struct pollfd file = {must(open("f", O_RDWR | O_CREAT, 0644)), POLLIN | POLLOUT, 0};
	num("a file is always ready", poll(&file, 1, 0));
	say("%#x", file.revents);
	struct timespec bad = {0, 1000000000}, none = {0, 0};
	num("ppoll", ppoll(set, 1, &none, NULL));
	num("ppoll bad timeout", ppoll(set, 1, &bad, NULL));
	sigset_t empty;
	sigemptyset(&empty);
	on_signal(SIGUSR1, ignore, SA_RESTART);
	block_signal(SIGUSR1);
	raise(SIGUSR1);
	num("ppoll lets the signal in", ppoll(set, 1, NULL, &empty));
	sigset_t now;
	sigprocmask(SIG_SETMASK, NULL, &now);
	num("mask restored", sigismember(&now, SIGUSR1));
}

CASE(poll_wakes)
{
	int fds[2], other[2];
	must(pipe(fds));
	must(pipe(other));
	pid_t child = must(fork());
	if (child == 0) {
		struct pollfd set[2] = {{fds[0], POLLIN, 0}, {other[0], POLLIN, 0}};
		num("child polls", poll(set, 2, 10000));
		say("%#x %#x", set[0].revents, set[1].revents);
		_exit(0);
	}
	until_asleep(child);
	must(write(other[1], "x", 1));
	status("child", reap(child));
}

CASE(select_calls)
{
	int fds[2];
	fd_set in, out, error;
	struct timeval timeout = {0, 0};
	must(pipe(fds));
	FD_ZERO(&in);
	FD_ZERO(&out);
	FD_ZERO(&error);
	FD_SET(fds[0], &in);
	FD_SET(fds[1], &out);
	num("select", select(fds[1] + 1, &in, &out, &error, &timeout));
	say("in %d out %d", FD_ISSET(fds[0], &in) != 0, FD_ISSET(fds[1], &out) != 0);
	must(write(fds[1], "x", 1));
	FD_SET(fds[0], &in);
	num("both", select(fds[1] + 1, &in, &out, NULL, &timeout));
	FD_ZERO(&in);
	FD_SET(fds[0], &in);
	num("beyond nfds is ignored", select(fds[0], &in, NULL, NULL, &timeout));
	timeout = (struct timeval){0, 10000};
	num("sleep", select(0, NULL, NULL, NULL, &timeout));
	say("the rest of the time is zero: %d", timeout.tv_sec == 0 && timeout.tv_usec == 0);
	FD_ZERO(&in);
	FD_SET(40, &in);
	num("bad descriptor", select(41, &in, NULL, NULL, &timeout));
	num("negative count", select(-1, NULL, NULL, NULL, &timeout));
	num("negative time", select(0, NULL, NULL, NULL, &(struct timeval){-1, 0}));
	sigset_t empty;
	sigemptyset(&empty);
	on_signal(SIGUSR1, ignore, 0);
	block_signal(SIGUSR1);
	raise(SIGUSR1);
	num("pselect lets the signal in", pselect(0, NULL, NULL, NULL, NULL, &empty));
	close(fds[1]);
	FD_ZERO(&in);
	FD_SET(fds[0], &in);
	num("hang-up is readable", select(fds[0] + 1, &in, NULL, NULL, NULL));
}

CASE(signalfd_calls)
{
	sigset_t set;
	struct signalfd_siginfo info[4];
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGRTMIN);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	int fd = must(signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
	num("nothing", read(fd, info, sizeof info));
	raise(SIGUSR1);
	sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 5});
	struct pollfd ready = {fd, POLLIN, 0};
	num("poll", poll(&ready, 1, 0));
	num("two at once", read(fd, info, sizeof info) / (long)sizeof *info);
	say("%s code %d, %s value %d code %d", signal_name(info[0].ssi_signo), info[0].ssi_code, signal_name(info[1].ssi_signo),
	    info[1].ssi_int, info[1].ssi_code);
	pid_t child = must(fork());
	if (child == 0)
		_exit(9);
	must(waitpid(child, NULL, 0));
	num("SIGCHLD", read(fd, info, sizeof info) / (long)sizeof *info);
	say("status %d, pid is the child's: %d", info[0].ssi_status, info[0].ssi_pid == (uint32_t)child);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	num("change its mask", signalfd(fd, &set, 0) == fd ? 0 : -1);
	raise(SIGUSR1);
	num("no longer", read(fd, info, sizeof info));
	raise(SIGUSR2);
	num("but this", read(fd, info, sizeof info) / (long)sizeof *info);
	num("too small", read(fd, info, 10));
	num("unknown flag", signalfd(-1, &set, 8));
	num("no signalfd", signalfd(1, &set, 0));
	int epoll = must(epoll_create1(0));
	struct epoll_event in = event(EPOLLIN, 3);
	must(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &in));
	raise(SIGUSR2);
	show_events(epoll);
}

CASE(signalfd_blocks)
{
	sigset_t set;
	struct signalfd_siginfo info;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	int fd = must(signalfd(-1, &set, 0));
	pid_t parent = getpid(), child = must(fork());
	if (child == 0) {
		until_asleep(parent);
		kill(parent, SIGUSR1);
		_exit(0);
	}
	must(read(fd, &info, sizeof info));
	yes("from the child", info.ssi_pid == (uint32_t)child);
	reap(child);
}
