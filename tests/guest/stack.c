/* The first thread's stack: it grows, and ends (getrlimit(2), sigaltstack(2)). */
#include "guest.h"

#include <sys/mman.h>

static int deep(int levels)
{
	volatile char frame[8192];
	frame[0] = levels;
	return levels == 0 ? 0 : deep(levels - 1) + (frame[0] == (char)levels);
}

CASE(stack_grows)
{
	say("6 MiB of frames: %d", deep(768));
}

static long forever(long depth)
{
	volatile char frame[4096];
	frame[0] = 1;
	return forever(depth + 1) + frame[0];
}

static volatile long stack_size;
static char *stack_start;

static void on_overflow(int number, siginfo_t *info, void *context)
{
	(void)context;
	stack_size = stack_start - (char *)info->si_addr;
	say("%s on the alternate stack", signal_name(number));
	yes("about 8 MiB below", stack_size > 7 << 20 && stack_size < 9 << 20);
	_exit(0);
}

CASE(stack_overflow)
{
	stack_t stack = {.ss_sp = must_map(mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)), .ss_size = 65536};
	char here;
	stack_start = &here;
	must(sigaltstack(&stack, NULL));
	on_siginfo(SIGSEGV, on_overflow, SA_ONSTACK);
	forever(0);
}

CASE(stack_overflow_without_alternate_stack)
{
	on_siginfo(SIGSEGV, on_overflow, 0);
	forever(0);
}
