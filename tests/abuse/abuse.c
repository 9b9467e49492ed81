/*
 * A program that attacks what serves it. The library OS shares its ring, so it may well destroy its own container; the
 * question is what the host sees: the virtual machine ends, or can be ended, and nothing else happens.
 *
 *   abuse NAME      prints "ready", then does it, for ever where that makes sense
 *
 * What only asks for much (`exhausts` below) must not end the container: the library OS refuses, or kills who has most.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static sigjmp_buf back;
static void recover(int number) { (void)number; siglongjmp(back, 1); }

static void catch_all(void)
{
	static char stack[65536];
	sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof stack}, NULL);
	for (int number = 1; number < 32; number++)
		sigaction(number, &(struct sigaction){.sa_handler = recover, .sa_flags = SA_ONSTACK | SA_NODEFER}, NULL);
}

#define TRY(...) do { if (sigsetjmp(back, 1) == 0) { __VA_ARGS__; } } while (0)

static uint64_t state = 88172645463325252ULL;
static uint64_t chance(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	return state ^= state << 17;
}

static void ports(void)
{
	for (;;)
		for (int port = 0; port < 65536; port++) {
			TRY(asm volatile("outb %b0, %w1" : : "a"((int)chance()), "d"(port)));
			TRY(asm volatile("outl %0, %w1" : : "a"((int)chance()), "d"(port)));
			TRY(asm volatile("inl %w1, %0" : "=a"((int){0}) : "d"(port)));
		}
}

static void instructions(void)
{
	for (;;) {
		TRY(asm volatile("cli"));
		TRY(asm volatile("hlt"));
		TRY(asm volatile("mov %0, %%cr3" : : "r"(chance())));
		TRY(asm volatile("mov %0, %%cr0" : : "r"(0L)));
		TRY(asm volatile("mov %0, %%cr4" : : "r"(chance())));
		TRY(asm volatile("mov %0, %%dr7" : : "r"(chance())));
		TRY(asm volatile("wrmsr" : : "a"((int)chance()), "d"((int)chance()), "c"((int)(0xc0000080 + chance() % 8))));
		TRY(asm volatile("lgdt %0" : : "m"(*(char(*)[10])&state)));
		TRY(asm volatile("lidt %0" : : "m"(*(char(*)[10])&state)));
		TRY(asm volatile("ltr %w0" : : "r"(0x28)));
		TRY(asm volatile("invlpg (%0)" : : "r"(0L)));
		TRY(asm volatile("wbinvd"));
		TRY(asm volatile("swapgs"));
		TRY(asm volatile("vmcall"));
		TRY(asm volatile("vmmcall"));
		TRY(asm volatile("lmsw %w0" : : "r"(0)));
		TRY(asm volatile("clts"));
		TRY(asm volatile("sti"));
		TRY(asm volatile("iretq"));
		TRY(asm volatile("sysretq"));
		TRY(asm volatile("wrgsbase %0" : : "r"(chance())));
		TRY(asm volatile("mov %w0, %%ds" : : "r"(0x10)));
	}
}

static void interrupts(void)
{
	/* Every vector from ring 3, with every register garbage. */
	char *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memcpy(code, "\xcd\x00\xc3", 3);
	for (;;)
		for (int vector = 0; vector < 256; vector++) {
			code[1] = vector;
			TRY(asm volatile("call *%0" : : "r"(code), "a"(chance()), "b"(chance()), "c"(chance()), "d"(chance()), "S"(chance()), "D"(chance()) : "memory", "r8", "r9", "r10", "r11", "r12"));
		}
}

static void scribble(void)
{
	/* Garbage over every page of the lower half that can be written, the library OS's and the shared ones among them. */
	for (uint64_t address = 0x7fffffffe000; address > 0x7f0000000000; address -= 4096)
		TRY(for (int word = 0; word < 512; word++)((volatile uint64_t *)address)[word] = chance());
	for (;;)
		TRY(((volatile uint64_t *)(0x7f0000000000 + chance() % 0xffffff000 / 8 * 8))[0] = chance());
}

static void forks(void)
{
	for (;;)
		fork();
}

static void threads(void)
{
	pthread_t thread;
	pthread_attr_t small;
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 16384);
	for (;;)
		pthread_create(&thread, &small, (void *(*)(void *))pause, NULL);
}

static void memory(void)
{
	for (;;) {
		char *block = mmap(NULL, 16 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (block != MAP_FAILED)
			memset(block, 1, 16 << 20);
	}
}

static void files(void)
{
	static char block[1 << 20];
	for (int number = 0;; number++) {
		char name[64];
		snprintf(name, sizeof name, "/tmp/file%d", number);
		int fd = open(name, O_WRONLY | O_CREAT, 0644);
		if (fd >= 0 && write(fd, block, sizeof block) < 0)
			close(fd);
	}
}

/* A file of its own for each descriptor, in as many processes as it takes; says so when there are no more. */
static void descriptors(void)
{
	char name[64];
	int told = 0;
	for (int process = 0;; process++) {
		for (int number = 0;; number++) {
			snprintf(name, sizeof name, "/opened-%d-%d", process, number);
			if (open(name, O_RDWR | O_CREAT, 0600) < 0)
				break;
		}
		if (process >= 4 && !told++) {
			puts("full");
			fflush(stdout);
		}
		if (process >= 4 || fork() > 0)
			for (;;)
				pause();
	}
}

static void calls(void)
{
	/* Random system calls with random arguments, but for those that end or stop the program. */
	for (;;) {
		long number = chance() % 450;
		if (number == SYS_exit || number == SYS_exit_group || number == SYS_pause || number == SYS_rt_sigsuspend || number == SYS_kill)
			continue;
		uint64_t arguments[6];
		for (int index = 0; index < 6; index++)
			arguments[index] = chance() >> chance() % 64;
		TRY(syscall(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]));
	}
}

static void in_child(void (*use)(void))
{
	/* So that the out-of-memory killer has somebody else to choose than the container's first process. */
	for (;;) {
		pid_t child = fork();
		if (child == 0) {
			use();
			_exit(0);
		}
		if (child > 0)
			waitpid(child, NULL, 0);
	}
}

static char block[65536];

static void fill(int socket)
{
	while (write(socket, block, 60000) > 0)
		;
}

static void pipes(void)
{
	for (int fds[2]; pipe2(fds, O_NONBLOCK) == 0;)
		fill(fds[1]);
}

static void stream_sockets(void)
{
	for (int fds[2]; socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0;)
		fill(fds[1]);
}

static void datagrams(void)
{
	for (int fds[2]; socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, fds) == 0;)
		fill(fds[1]);
}

static void messages(void)
{
	for (int queue; (queue = msgget(IPC_PRIVATE, 0600)) >= 0;) {
		*(long *)block = 1;
		while (msgsnd(queue, block, 8000, IPC_NOWAIT) == 0)
			;
	}
}

static void semaphores(void)
{
	while (semget(IPC_PRIVATE, 32000, 0600) >= 0)
		;
}

static void areas(void)
{
	for (int processes = 0; processes < 20; processes++)
		if (fork() == 0) {
			for (char *area; (area = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) != MAP_FAILED;)
				mprotect(area, 4096, PROT_READ);
			pause();
		}
	pause();
}

static void huge_requests(void)
{
	char *memory = mmap(NULL, 1L << 42, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	mincore(memory, 1L << 42, (unsigned char *)block);
	syscall(SYS_mbind, memory, 1L << 42, 0, NULL, 0, 0);
	int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t length = sizeof address;
	bind(listener, (struct sockaddr *)&address, length);
	listen(listener, 1);
	getsockname(listener, (struct sockaddr *)&address, &length);
	connect(client, (struct sockaddr *)&address, length);
	mprotect(memory, 1L << 30, PROT_READ | PROT_WRITE);
	send(client, memory, 1L << 30, MSG_OOB);
	dup2(0, (1 << 20) - 1);
	poll((struct pollfd *)memory, 1000000, 0);
	setgroups(65536, (gid_t *)memory);
}

static void deaf(void)
{
	sigset_t all;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	for (volatile long turns = 0;; turns++)
		;
}

int main(int argc, char **argv)
{
	static const struct { const char *name; void (*run)(void); } ways[] = {
		{"ports", ports}, {"instructions", instructions}, {"interrupts", interrupts}, {"scribble", scribble}, {"forks", forks},
		{"threads", threads}, {"memory", memory}, {"files", files}, {"calls", calls}, {"deaf", deaf},
		{"descriptors", descriptors},
	};
	static const struct { const char *name; void (*use)(void); } exhausts[] = {
		{"pipes", pipes}, {"stream_sockets", stream_sockets}, {"datagrams", datagrams}, {"messages", messages},
		{"semaphores", semaphores}, {"areas", areas}, {"huge_requests", huge_requests},
	};
	puts("ready");
	fflush(stdout);
	setrlimit(RLIMIT_NOFILE, &(struct rlimit){1 << 20, 1 << 20});
	for (size_t index = 0; index < sizeof exhausts / sizeof *exhausts; index++)
		if (argc > 1 && strcmp(argv[1], exhausts[index].name) == 0)
			in_child(exhausts[index].use);
	catch_all();
	for (size_t index = 0; index < sizeof ways / sizeof *ways; index++)
		if (argc > 1 && strcmp(argv[1], ways[index].name) == 0)
			ways[index].run();
	return 2;
}
