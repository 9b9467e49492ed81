/*
 * One operation, measured: `ops ROW` prints its cost in nanoseconds (streams: MB/s), the median of several batches, and how
 * often it was done (0: not counted). `ops ROW hold` then waits for the end of its input, so that somebody can look at the
 * counters of what served it. `ops clock` prints the monotonic clock.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, BATCHES = 7, BATCH_NS = 30000000, STREAM_BYTES = 64 << 20 };

static void check(int good, const char *what)
{
	if (!good) {
		fprintf(stderr, "ops: %s: %s\n", what, strerror(errno));
		exit(1);
	}
}

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e9 + time.tv_nsec;
}

static int file, zero;
static char block[1 << 20];

static void open_file(void)
{
	file = open("bench-file", O_RDWR | O_CREAT, 0644);
	check(file >= 0, "bench-file");
	for (int part = 0; part < 16; part++)
		check(write(file, block, sizeof block) == sizeof block, "write");
}

/* Rows: `prepare` once, then `run(n)` does the operation n times. */

static void getppid_run(long n) { while (n--) syscall(SYS_getppid); }
static void clock_run(long n) { struct timespec t; while (n--) clock_gettime(CLOCK_MONOTONIC, &t); }
static void zero_prepare(void) { zero = open("/dev/zero", O_RDONLY); }
static void read_run(long n) { while (n--) check(read(zero, block, 1) == 1, "read"); }
static void pread_run(long n) { for (long i = 0; i < n; i++) check(pread(file, block, PAGE, i % 4096 * PAGE) == PAGE, "pread"); }
static void pwrite_run(long n) { for (long i = 0; i < n; i++) check(pwrite(file, block, PAGE, i % 4096 * PAGE) == PAGE, "pwrite"); }
static void open_run(long n) { while (n--) close(open("bench-file", O_RDONLY)); }
static void stat_run(long n) { struct stat s; while (n--) check(stat("bench-file", &s) == 0, "stat"); }
static void absent_run(long n) { struct stat s; while (n--) check(stat("absent", &s) == -1, "stat"); }

static void create_run(long n)
{
	while (n--) {
		close(open("created", O_WRONLY | O_CREAT | O_EXCL, 0644));
		check(unlink("created") == 0, "unlink");
	}
}

static int here, there; /* this side's reading and writing ends */
static pid_t peer;

static void echo(int in, int out)
{
	char byte;
	while (read(in, &byte, 1) == 1)
		if (write(out, &byte, 1) != 1)
			break;
	_exit(0);
}

static void pong_run(long n)
{
	char byte = 1;
	while (n--) {
		check(write(there, &byte, 1) == 1, "write");
		check(read(here, &byte, 1) == 1, "read");
	}
}

static void pipe_prepare(void)
{
	int a[2], b[2];
	check(pipe(a) == 0 && pipe(b) == 0, "pipe");
	if ((peer = fork()) == 0) {
		close(a[1]);
		close(b[0]);
		echo(a[0], b[1]);
	}
	there = a[1];
	here = b[0];
}

static void unix_prepare(void)
{
	int pair[2];
	check(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "socketpair");
	if ((peer = fork()) == 0) {
		close(pair[0]);
		echo(pair[1], pair[1]);
	}
	here = there = pair[0];
}

static struct sockaddr_in address = {.sin_family = AF_INET};
static int listener;

static void listen_here(void)
{
	socklen_t length = sizeof address;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listener = socket(AF_INET, SOCK_STREAM, 0);
	check(bind(listener, (void *)&address, sizeof address) == 0 && listen(listener, 128) == 0, "listen");
	getsockname(listener, (void *)&address, &length);
}

static int connected(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
	check(connect(fd, (void *)&address, sizeof address) == 0, "connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	return fd;
}

static void tcp_prepare(void)
{
	listen_here();
	if ((peer = fork()) == 0) {
		int fd = accept(listener, NULL, NULL), on = 1;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		echo(fd, fd);
	}
	here = there = connected();
}

static void connect_prepare(void)
{
	listen_here();
	if ((peer = fork()) == 0)
		for (;;)
			close(accept(listener, NULL, NULL));
}

static void connect_run(long n)
{
	char byte;
	while (n--) {
		int fd = connected();
		check(read(fd, &byte, 1) == 0, "read");
		close(fd);
	}
}

static int word[2];
static long futex(int *at, int operation, int value) { return syscall(SYS_futex, at, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0); }

static void wait_for(int *at, int value)
{
	int seen;
	while ((seen = __atomic_load_n(at, __ATOMIC_ACQUIRE)) != value)
		futex(at, FUTEX_WAIT, seen);
}

static void hand(int *at, int value)
{
	__atomic_store_n(at, value, __ATOMIC_RELEASE);
	futex(at, FUTEX_WAKE, 1);
}

static void *futex_thread(void *argument)
{
	for (int turn = 1;; turn++) {
		wait_for(&word[0], turn);
		hand(&word[1], turn);
	}
	return argument;
}

static void futex_prepare(void)
{
	pthread_t thread;
	pthread_create(&thread, NULL, futex_thread, NULL);
}

static void futex_run(long n)
{
	static int turn;
	while (n--) {
		hand(&word[0], ++turn);
		wait_for(&word[1], turn);
	}
}

static int epoll, pair[2];
static void epoll_prepare(void)
{
	epoll = epoll_create1(0);
	check(pipe(pair) == 0, "pipe");
}

static void epoll_run(long n)
{
	char byte = 1;
	struct epoll_event event = {.events = EPOLLIN}, got;
	while (n--) {
		epoll_ctl(epoll, EPOLL_CTL_ADD, pair[0], &event);
		check(write(pair[1], &byte, 1) == 1, "write");
		check(epoll_wait(epoll, &got, 1, -1) == 1, "epoll_wait");
		check(read(pair[0], &byte, 1) == 1, "read");
		epoll_ctl(epoll, EPOLL_CTL_DEL, pair[0], NULL);
	}
}

static void nothing(int number) { (void)number; }
static void signal_prepare(void) { signal(SIGUSR1, nothing); }
static void signal_run(long n) { pid_t me = getpid(); while (n--) kill(me, SIGUSR1); }

static void fork_run(long n)
{
	while (n--) {
		pid_t child = fork();
		if (child == 0)
			_exit(0);
		check(waitpid(child, NULL, 0) == child, "waitpid");
	}
}

static char *const EXEC_ARGUMENTS[] = {"ops", "exit", NULL};
static void fork_exec_run(long n)
{
	while (n--) {
		pid_t child = fork();
		if (child == 0) {
			execv("/proc/self/exe", EXEC_ARGUMENTS);
			_exit(127);
		}
		check(waitpid(child, NULL, 0) == child, "waitpid");
	}
}

static void vfork_exec_run(long n)
{
	while (n--) {
		pid_t child = vfork();
		if (child == 0) {
			execv("/proc/self/exe", EXEC_ARGUMENTS);
			_exit(127);
		}
		check(waitpid(child, NULL, 0) == child, "waitpid");
	}
}

static void *idle(void *argument) { return argument; }
static void thread_run(long n)
{
	while (n--) {
		pthread_t thread;
		check(pthread_create(&thread, NULL, idle, NULL) == 0, "pthread_create");
		pthread_join(thread, NULL);
	}
}

static void touch_run(long n)
{
	while (n > 0) {
		long pages = n < 1024 ? n : 1024;
		volatile char *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		for (long page = 0; page < pages; page++)
			memory[page * PAGE] = 1;
		munmap((void *)memory, pages * PAGE);
		n -= pages;
	}
}

static void map_run(long n)
{
	while (n > 0) {
		long pages = n < 4096 ? n : 4096;
		volatile char *memory = mmap(NULL, 4096L * PAGE, PROT_READ, MAP_SHARED, file, 0);
		for (long page = 0; page < pages; page++)
			(void)memory[page * PAGE];
		munmap((void *)memory, 4096L * PAGE);
		n -= pages;
	}
}

/* The child writes to what it shares; its own time is what counts, without fork and exit. */
enum { COW_PAGES = 512 };
static volatile char *cow;
static double *cow_time;
static void cow_prepare(void)
{
	cow = mmap(NULL, COW_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset((void *)cow, 1, COW_PAGES * PAGE);
	cow_time = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

static double cow_measure(void)
{
	pid_t child = fork();
	if (child == 0) {
		double start = now();
		for (long page = 0; page < COW_PAGES; page++)
			cow[page * PAGE] = 2;
		*cow_time = (now() - start) / COW_PAGES;
		_exit(0);
	}
	waitpid(child, NULL, 0);
	return *cow_time;
}

static char *protected;
static void protect_prepare(void)
{
	protected = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	protected[0] = 1;
}

static void protect_run(long n)
{
	for (long i = 0; i < n; i++)
		check(mprotect(protected, PAGE, i % 2 ? PROT_READ | PROT_WRITE : PROT_READ) == 0, "mprotect");
}

static double stream_measure(int tcp)
{
	int ends[2];
	if (tcp) {
		listen_here();
		if ((peer = fork()) == 0) {
			ends[1] = connected();
		} else {
			ends[0] = accept(listener, NULL, NULL);
		}
		close(listener);
	} else {
		check(pipe(ends) == 0, "pipe");
		if ((peer = fork()) == 0)
			close(ends[0]);
		else
			close(ends[1]);
	}
	if (peer == 0) {
		for (long sent = 0; sent < STREAM_BYTES;)
			sent += write(ends[1], block, 65536);
		_exit(0);
	}
	double start = now();
	long total = 0;
	for (ssize_t got; (got = read(ends[0], block, 65536)) > 0;)
		total += got;
	double seconds = (now() - start) / 1e9;
	close(ends[0]);
	waitpid(peer, NULL, 0);
	return total / seconds / 1e6;
}

static double pipe_stream(void) { return stream_measure(0); }
static double tcp_stream(void) { return stream_measure(1); }

/* Arithmetic that fits the first cache: what a processor does, no matter who serves the system calls. */
static void compute_run(long n)
{
	static volatile unsigned long sink;
	unsigned long a = 1, b = 2;
	for (long i = 0; i < n * 1000; i++) {
		a = a * 6364136223846793005UL + b;
		b ^= a >> 29;
	}
	sink = a + b;
	(void)sink;
}

static const struct row {
	const char *name;
	void (*prepare)(void);
	void (*run)(long n);
	double (*measure)(void);
} rows[] = {
	{"getppid", NULL, getppid_run, NULL},
	{"clock_gettime", NULL, clock_run, NULL},
	{"read-zero", zero_prepare, read_run, NULL},
	{"pread", open_file, pread_run, NULL},
	{"pwrite", open_file, pwrite_run, NULL},
	{"open-close", open_file, open_run, NULL},
	{"stat", open_file, stat_run, NULL},
	{"stat-absent", NULL, absent_run, NULL},
	{"create-unlink", NULL, create_run, NULL},
	{"pipe", pipe_prepare, pong_run, NULL},
	{"futex", futex_prepare, futex_run, NULL},
	{"unix", unix_prepare, pong_run, NULL},
	{"tcp", tcp_prepare, pong_run, NULL},
	{"tcp-connect", connect_prepare, connect_run, NULL},
	{"epoll", epoll_prepare, epoll_run, NULL},
	{"signal", signal_prepare, signal_run, NULL},
	{"fork", NULL, fork_run, NULL},
	{"fork-exec", NULL, fork_exec_run, NULL},
	{"vfork-exec", NULL, vfork_exec_run, NULL},
	{"thread", NULL, thread_run, NULL},
	{"touch-anonymous", NULL, touch_run, NULL},
	{"touch-file", open_file, map_run, NULL},
	{"touch-copied", cow_prepare, NULL, cow_measure},
	{"mprotect", protect_prepare, protect_run, NULL},
	{"pipe-stream", NULL, NULL, pipe_stream},
	{"tcp-stream", NULL, NULL, tcp_stream},
	{"compute", NULL, compute_run, NULL},
};

static int ascending(const void *a, const void *b) { return (*(double *)a > *(double *)b) - (*(double *)a < *(double *)b); }

int main(int argc, char **argv)
{
	const struct row *row = rows;
	double results[BATCHES];

	if (argc < 2 || strcmp(argv[1], "exit") == 0)
		return 0;
	if (strcmp(argv[1], "clock") == 0)
		return printf("%.0f\n", now()) < 0;
	signal(SIGPIPE, SIG_IGN);
	while (row < rows + sizeof rows / sizeof *rows && strcmp(row->name, argv[1]) != 0)
		row++;
	check(row < rows + sizeof rows / sizeof *rows, argv[1]);
	if (row->prepare)
		row->prepare();
	long count = 1, total = 0;
	if (row->run) {
		/* Enough operations for a batch; the first ones warm up. */
		for (double start = now(); row->run(count), now() - start < BATCH_NS / 4 && count < 1L << 30; start = now())
			count *= 2;
		total = 2 * count - 1 + BATCHES * count;
	}
	for (int batch = 0; batch < BATCHES; batch++) {
		if (row->measure) {
			results[batch] = row->measure();
			continue;
		}
		double start = now();
		row->run(count);
		results[batch] = (now() - start) / count;
	}
	qsort(results, BATCHES, sizeof *results, ascending);
	printf("%.1f %ld\n", results[BATCHES / 2], total);
	fflush(stdout);
	if (argc > 2)
		while (read(0, block, sizeof block) > 0)
			;
	if (peer > 0)
		kill(peer, SIGKILL);
	return 0;
}
