/* Memory of several processes: mmap(2) MAP_SHARED, and what fork(2) shares until somebody writes. */
#include "guest.h"

#include <sys/mman.h>

enum { PAGE = 4096, RW = PROT_READ | PROT_WRITE, ANON = MAP_PRIVATE | MAP_ANONYMOUS };

static char *map(size_t size, int protection, int flags)
{
	return must_map(mmap(NULL, size, protection, flags, -1, 0));
}

CASE(shared_between_processes)
{
	volatile long *counter = shared_page();
	pid_t children[4];
	for (int index = 0; index < 4; index++) {
		children[index] = must(fork());
		if (children[index] == 0) {
			for (int turn = 0; turn < 50000; turn++)
				__atomic_add_fetch(counter, 1, __ATOMIC_RELAXED);
			_exit(0);
		}
	}
	for (int index = 0; index < 4; index++)
		reap(children[index]);
	say("counter %ld", *counter);
}

CASE(shared_memory_after_generations)
{
	/* A page first touched by a grandchild is the same page for all. */
	char *memory = map(64 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS);
	pid_t child = must(fork());
	if (child == 0) {
		if (fork() == 0) {
			for (int page = 0; page < 64; page++)
				memory[page * PAGE] = page;
			_exit(0);
		}
		wait(NULL);
		_exit(0);
	}
	reap(child);
	int wrong = 0;
	for (int page = 0; page < 64; page++)
		wrong += memory[page * PAGE] != page;
	say("wrong %d", wrong);
}

CASE(copy_on_write_chain)
{
	char *memory = map(PAGE, RW, ANON);
	memory[0] = 0;
	for (int depth = 0; depth < 8; depth++) {
		pid_t child = must(fork());
		if (child) {
			int wait_status = reap(child);
			if (memory[0] != depth)
				_exit(100);
			if (depth == 0)
				status("chain", wait_status);
			else
				_exit(WEXITSTATUS(wait_status) + 1);
			return;
		}
		memory[0]++;
	}
	_exit(0);
}

CASE(read_into_copy_on_write_memory)
{
	/* A system call's store must break sharing just as the program's does. */
	char *memory = map(PAGE, RW, ANON);
	put_file("f", "aaaaaaaa");
	int fd = must(open("f", O_RDONLY));
	strcpy(memory, "before");
	pid_t child = must(fork());
	if (child == 0) {
		must(pread(fd, memory, 6, 0));
		say("child %s", memory);
		_exit(0);
	}
	reap(child);
	say("parent %s", memory);
}

CASE(dev_zero_mapping)
{
	int fd = must(open("/dev/zero", O_RDWR));
	char *private = must_map(mmap(NULL, PAGE, RW, MAP_PRIVATE, fd, 0)), *shared = must_map(mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0));
	private[0] = 1;
	pid_t child = must(fork());
	if (child == 0) {
		shared[0] = 2;
		private[0] = 3;
		_exit(0);
	}
	reap(child);
	say("private %d shared %d", private[0], shared[0]);
}
