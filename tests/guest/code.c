/* Code as memory: system calls in it, and files that are executed and changed. */
#include "guest.h"

#include <sys/mman.h>

enum { PAGE = 4096, RW = PROT_READ | PROT_WRITE };

CASE(system_calls_in_written_code)
{
	/* Code made at run time does system calls like any other. */
	char *code = must_map(mmap(NULL, PAGE, RW | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	memcpy(code, "\xb8\x27\x00\x00\x00\x0f\x05\xc3", 8); /* mov $39 (getpid), %eax; syscall; ret */
	int matches = 0;
	for (int turn = 0; turn < 1000; turn++)
		matches += ((int (*)(void))code)() == getpid();
	say("getpid: %d of 1000", matches);
	code[1] = 110; /* getppid, in place */
	yes("rewritten to getppid", ((int (*)(void))code)() == getppid());
	char *jump = code + 64; /* the same, entered at the SYSCALL instruction itself */
	memcpy(jump, "\xb8\xff\x00\x00\x00\x0f\x05\xc3", 8);
	long result;
	asm volatile("call *%2" : "=a"(result) : "a"(39L), "r"(jump + 5) : "rcx", "r11", "memory");
	yes("entered in the middle", result == getpid());
}

CASE(system_call_keeps_registers)
{
	/* syscall(2), x86-64: only rax, rcx and r11 change; the red zone below the stack pointer stays. */
	unsigned long kept = 1;
	asm volatile("mov $0x1111, %%rbx; mov $0x2222, %%rdi; mov $0x3333, %%rsi; mov $0x4444, %%rdx; mov $0x5555, %%r8\n"
		     "mov $0x6666, %%r9; mov $0x7777, %%r10; mov $0x8888, %%r12; mov $0x9999, %%r13\n"
		     "mov $0xaaaa, %%r14; mov $0xbbbb, %%r15; movq %%r15, %%xmm7; movq %%rbx, -64(%%rsp)\n"
		     "mov $39, %%eax; syscall\n"
		     "cmp $0x1111, %%rbx; jne 1f; cmp $0x2222, %%rdi; jne 1f; cmp $0x3333, %%rsi; jne 1f\n"
		     "cmp $0x4444, %%rdx; jne 1f; cmp $0x5555, %%r8; jne 1f; cmp $0x6666, %%r9; jne 1f\n"
		     "cmp $0x7777, %%r10; jne 1f; cmp $0x8888, %%r12; jne 1f; cmp $0x9999, %%r13; jne 1f\n"
		     "cmp $0xaaaa, %%r14; jne 1f; cmp $0xbbbb, %%r15; jne 1f; movq %%xmm7, %%rax; cmp $0xbbbb, %%rax; jne 1f\n"
		     "cmpq $0x1111, -64(%%rsp); jne 1f; jmp 2f\n1: movq $0, %0\n2:"
		     : "+m"(kept)
		     :
		     : "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm7", "memory", "cc");
	yes("all kept", kept);
}

/* Reads a page through mappings of its own, twice in children, so that the file counts as one that is often executed. */
static void show_file(const char *what, int fd, int pages)
{
	for (int round = 0; round < 3; round++) {
		pid_t child = must(fork());
		if (child == 0) {
			char *code = must_map(mmap(NULL, pages * PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0));
			char *data = must_map(mmap(NULL, pages * PAGE, RW, MAP_PRIVATE, fd, 0));
			char first = data[0];
			data[0] = '!';
			say("%s: %c %c %c, data %c %c, end %d", what, code[0], code[17 * PAGE], code[(pages - 1) * PAGE], first,
			    data[17 * PAGE], code[pages * PAGE - 1]);
			_exit(0);
		}
		reap(child);
	}
}

static void fill_file(int fd, char byte, size_t size)
{
	char block[PAGE];
	memset(block, byte, sizeof block);
	for (size_t done = 0; done < size; done += PAGE)
		must(pwrite(fd, block, size - done < PAGE ? size - done : PAGE, done));
}

CASE(changed_program_files)
{
	enum { PAGES = 40, SIZE = PAGES * PAGE - 100 };
	int fd = must(open("program", O_RDWR | O_CREAT, 0700));
	fill_file(fd, 'a', SIZE);
	show_file("new", fd, PAGES);
	nap(3100); /* until its times tell the next change */
	show_file("settled", fd, PAGES);
	char *seen = must_map(mmap(NULL, PAGES * PAGE, PROT_READ, MAP_PRIVATE, fd, 0));
	char *written = must_map(mmap(NULL, PAGES * PAGE, RW, MAP_PRIVATE, fd, 0));
	say("seen: %c %c", seen[0], seen[20 * PAGE]);
	written[0] = '!';
	fill_file(fd, 'b', SIZE);
	say("seen: %c %c, written: %c", seen[0], seen[20 * PAGE], written[0]);
	show_file("rewritten", fd, PAGES);
	nap(3100);
	show_file("settled", fd, PAGES);
	char *shared = must_map(mmap(NULL, PAGES * PAGE, RW, MAP_SHARED, fd, 0));
	shared[20 * PAGE] = 's';
	say("seen: %c %c", seen[0], seen[20 * PAGE]);
	shared[20 * PAGE] = 'b';
	char *old = must_map(mmap(NULL, PAGES * PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0));
	say("kept: %c", old[20 * PAGE]);
	int next = must(open("next", O_RDWR | O_CREAT, 0700));
	fill_file(next, 'c', SIZE);
	must(rename("next", "program"));
	int again = must(open("program", O_RDONLY));
	show_file("replaced", again, PAGES);
	say("kept: %c %c", old[0], old[25 * PAGE]);
	must(pwrite(fd, "x", 1, 0));
	show_file("one byte", fd, PAGES);
	must(ftruncate(next, 18 * PAGE));
	show_file("shorter", again, 18);
	char *part = must_map(mmap(NULL, PAGES * PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, again, 0));
	for (int page = 17; page < 19; page++) {
		pid_t child = must(fork());
		if (child == 0)
			_exit(*(volatile char *)(part + page * PAGE) == 'c' ? 0 : 1);
		status(page == 17 ? "inside" : "behind the end", reap(child));
	}
}
