/* Memory: mmap(2), munmap(2), mremap(2), mprotect(2), madvise(2), brk(2), mincore(2), msync(2), mlock(2). */
#include "guest.h"

#include <setjmp.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/uio.h>

enum { PAGE = 4096, RW = PROT_READ | PROT_WRITE, ANON = MAP_PRIVATE | MAP_ANONYMOUS };

static char *map(size_t size, int protection, int flags)
{
	return must_map(mmap(NULL, size, protection, flags, -1, 0));
}

/* Prints the result of a mapping call without its address. */
static void *mapped(const char *what, void *result)
{
	ok(what, result == MAP_FAILED ? -1 : 0);
	return result;
}

static sigjmp_buf recover;
static volatile int fault_signal, fault_code;
static void *volatile fault_address;

static void on_fault(int number, siginfo_t *info, void *context)
{
	(void)context;
	fault_signal = number;
	fault_code = info->si_code;
	fault_address = info->si_addr;
	siglongjmp(recover, 1);
}

static void catch_faults(void)
{
	on_siginfo(SIGSEGV, on_fault, 0);
	on_siginfo(SIGBUS, on_fault, 0);
}

static const char *code_name(int number, int code)
{
	if (number == SIGSEGV)
		return code == SEGV_MAPERR ? "SEGV_MAPERR" : code == SEGV_ACCERR ? "SEGV_ACCERR" : code == SI_KERNEL ? "SI_KERNEL" : "?";
	return code == BUS_ADRERR ? "BUS_ADRERR" : code == BUS_ADRALN ? "BUS_ADRALN" : "?";
}

enum access { LOAD, STORE, JUMP };

/* Tries one access; says what happened, the fault's address relative to the one touched. */
static void touch(const char *what, void *address, enum access access)
{
	catch_faults();
	if (sigsetjmp(recover, 1) == 0) {
		if (access == LOAD)
			say("%s: loads %d", what, *(volatile unsigned char *)address);
		else if (access == STORE) {
			*(volatile char *)address = 1;
			say("%s: stores", what);
		} else {
			((void (*)(void))address)();
			say("%s: runs", what);
		}
		return;
	}
	say("%s: %s %s, si_addr %+ld", what, signal_name(fault_signal), code_name(fault_signal, fault_code),
	    (long)((char *)fault_address - (char *)address));
}

static int file_of(const char *name, size_t size)
{
	int fd = must(open(name, O_RDWR | O_CREAT | O_TRUNC, 0644));
	char block[PAGE];

	for (size_t done = 0; done < size; done += PAGE) {
		memset(block, 'a' + done / PAGE % 26, PAGE);
		must(write(fd, block, size - done < PAGE ? size - done : PAGE));
	}
	return fd;
}

CASE(anonymous_is_zero)
{
	char *memory = map(1 << 20, RW, ANON);
	int wrong = 0;

	for (int index = 0; index < 1 << 20; index++)
		wrong += memory[index] != 0;
	say("non-zero bytes: %d", wrong);
	memset(memory, 1, 1 << 20);
	num("munmap", munmap(memory, 1 << 20));
	touch("after munmap", memory, LOAD);
}

CASE(mmap_errors)
{
	int fd = file_of("f", PAGE), reader = must(open("f", O_RDONLY)), writer = must(open("f", O_WRONLY));
	int folder = must(open(".", O_RDONLY));

	mapped("length 0", mmap(NULL, 0, RW, ANON, -1, 0));
	mapped("neither shared nor private", mmap(NULL, PAGE, RW, MAP_ANONYMOUS, -1, 0));
	mapped("both kinds wrong", mmap(NULL, PAGE, RW, 0, fd, 0));
	mapped("unaligned offset", mmap(NULL, PAGE, RW, MAP_PRIVATE, fd, 100));
	mapped("bad descriptor", mmap(NULL, PAGE, RW, MAP_PRIVATE, 77, 0));
	mapped("folder", mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, folder, 0));
	mapped("shared writable, descriptor read-only", mmap(NULL, PAGE, RW, MAP_SHARED, reader, 0));
	mapped("private writable, descriptor read-only", mmap(NULL, PAGE, RW, MAP_PRIVATE, reader, 0));
	mapped("descriptor write-only", mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, writer, 0));
	mapped("more than the address space", mmap(NULL, 1UL << 47, RW, ANON | MAP_NORESERVE, -1, 0));
	mapped("length overflows", mmap(NULL, -1UL, RW, ANON, -1, 0));
	mapped("fixed, unaligned", mmap((void *)0x10001, PAGE, RW, ANON | MAP_FIXED, -1, 0));
	mapped("fixed beyond the end", mmap((void *)(1UL << 47), PAGE, RW, ANON | MAP_FIXED, -1, 0));
	mapped("unknown flag with MAP_SHARED_VALIDATE", mmap(NULL, PAGE, RW, MAP_SHARED_VALIDATE | (1 << 25), fd, 0));
	mapped("MAP_SHARED_VALIDATE", mmap(NULL, PAGE, RW, MAP_SHARED_VALIDATE, fd, 0));
	int pipes[2];
	must(pipe(pipes));
	mapped("pipe", mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, pipes[0], 0));
}

CASE(private_file_mapping)
{
	int fd = file_of("f", 3 * PAGE);
	char *memory = must_map(mmap(NULL, 3 * PAGE, RW, MAP_PRIVATE, fd, 0));

	say("pages: %c %c %c", memory[0], memory[PAGE], memory[2 * PAGE]);
	memory[PAGE] = 'X';
	char byte;
	must(pread(fd, &byte, 1, PAGE));
	say("file keeps %c, mapping has %c", byte, memory[PAGE]);
	char *second = must_map(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 2 * PAGE));
	say("with an offset: %c", second[0]);
	must(close(fd));
	say("after close: %c", memory[2 * PAGE]);
}

CASE(private_mapping_of_many_pages)
{
	enum { PAGES = 300 };
	int fd = must(open("file", O_RDWR | O_CREAT, 0600));
	for (int page = 0; page < PAGES; page++)
		must(pwrite(fd, &page, sizeof page, page * 4096L));
	must(ftruncate(fd, PAGES * 4096L));
	char *map = must_map(mmap(NULL, PAGES * 4096L, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0));
	char *part = must_map(mmap(NULL, 64 * 4096L, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 100 * 4096L));
	static const int written[] = {0, 17, 18, 19, 150, 299};
	int wrong = 0, in_file;
	for (size_t index = 0; index < COUNT(written); index++)
		map[written[index] * 4096L + 8] = 'x';
	must(mprotect(map, 32 * 4096L, PROT_READ));
	pid_t child = must(fork());
	for (int page = 0; page < PAGES; page++) {
		char expected = 0;
		for (size_t index = 0; index < COUNT(written); index++)
			if (written[index] == page)
				expected = 'x';
		wrong += *(int *)(map + page * 4096L) != page || map[page * 4096L + 8] != expected;
		if (page < 64)
			wrong += *(int *)(part + page * 4096L) != page + 100 || part[page * 4096L + 8] != 0;
		must(pread(fd, &in_file, sizeof in_file, page * 4096L + 8));
		wrong += in_file != 0;
		if (child == 0 && page >= 32)
			map[page * 4096L + 8] = expected, map[page * 4096L + 12] = 'y';
	}
	if (child == 0)
		_exit(wrong != 0);
	status("child", reap(child));
	num("wrong", wrong);
	for (int page = 32; page < PAGES; page++)
		wrong += map[page * 4096L + 12] != 0;
	num("written by the child", wrong);
}

CASE(shared_file_mapping)
{
	int fd = file_of("f", 2 * PAGE);
	char *memory = must_map(mmap(NULL, 2 * PAGE, RW, MAP_SHARED, fd, 0)), byte = 0;

	memory[0] = 'X';
	must(pread(fd, &byte, 1, 0));
	say("read sees %c", byte);
	must(pwrite(fd, "Y", 1, PAGE));
	say("mapping sees %c", memory[PAGE]);
	pid_t child = must(fork());
	if (child == 0) {
		memory[1] = 'Z';
		_exit(0);
	}
	reap(child);
	say("the child's store: %c", memory[1]);
	num("msync", msync(memory, 2 * PAGE, MS_SYNC));
	char *other = must_map(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, must(open("f", O_RDONLY)), 0));
	say("a second mapping: %c%c", other[0], other[1]);
}

CASE(mapping_of_an_unlinked_file)
{
	int fd = file_of("f", PAGE);
	char *memory = must_map(mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0));
	must(unlink("f"));
	close(fd);
	memory[5] = '!';
	say("still there: %c%c", memory[0], memory[5]);
}

CASE(end_of_file_in_a_page)
{
	/* mmap(2): bytes beyond the end in the last page are zero, stores there are not written; pages beyond raise SIGBUS. */
	int fd = file_of("f", 100);
	char *memory = must_map(mmap(NULL, 2 * PAGE, RW, MAP_SHARED, fd, 0));
	struct stat info;

	say("byte 99 %c, byte 100 %d", memory[99], memory[100]);
	memory[200] = 'x';
	touch("second page", memory + PAGE, LOAD);
	touch("second page + 10", memory + PAGE + 10, STORE);
	must(fstat(fd, &info));
	say("size %ld", (long)info.st_size);
	must(ftruncate(fd, 2 * PAGE));
	touch("second page after growth", memory + PAGE, LOAD);
}

CASE(truncate_under_a_mapping)
{
	int fd = file_of("f", 4 * PAGE);
	char *shared = must_map(mmap(NULL, 4 * PAGE, RW, MAP_SHARED, fd, 0));
	char *private = must_map(mmap(NULL, 4 * PAGE, RW, MAP_PRIVATE, fd, 0));

	say("%c %c", shared[3 * PAGE], private[3 * PAGE]);
	private[2 * PAGE] = 'P';
	must(ftruncate(fd, PAGE));
	touch("shared, first page", shared, LOAD);
	touch("shared, third page", shared + 2 * PAGE, LOAD);
	touch("private, last page", private + 3 * PAGE, LOAD);
	touch("private copy of the third page", private + 2 * PAGE, LOAD);
	char buffer[8];
	must(lseek(fd, 0, SEEK_SET));
	num("a system call on such memory", read(fd, shared + 3 * PAGE, 8));
	num("and as a source", pwrite(fd, shared + 3 * PAGE, 8, 0));
	(void)buffer;
}

CASE(fixed_replaces)
{
	char *memory = map(4 * PAGE, RW, ANON);

	memset(memory, 'a', 4 * PAGE);
	yes("MAP_FIXED gives the address", mmap(memory + PAGE, PAGE, RW, ANON | MAP_FIXED, -1, 0) == memory + PAGE);
	say("%d %d %d", memory[0], memory[PAGE], memory[2 * PAGE]);
	mapped("MAP_FIXED_NOREPLACE over it", mmap(memory, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0));
	must(munmap(memory + PAGE, PAGE));
	yes("MAP_FIXED_NOREPLACE in a hole", mmap(memory + PAGE, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0) == memory + PAGE);
	must(munmap(memory + 2 * PAGE, PAGE));
	yes("a free hint is taken", mmap(memory + 2 * PAGE, PAGE, RW, ANON, -1, 0) == memory + 2 * PAGE);
	void *elsewhere = mmap(memory, PAGE, RW, ANON, -1, 0);
	yes("a hint that is taken gives another place", elsewhere != MAP_FAILED && elsewhere != memory);
	yes("MAP_32BIT is below 2 GiB", (uintptr_t)map(PAGE, RW, ANON | MAP_32BIT) < 1UL << 31);
}

CASE(munmap_parts)
{
	char *memory = map(5 * PAGE, RW, ANON);

	num("the middle", munmap(memory + 2 * PAGE, PAGE));
	touch("before", memory + PAGE, STORE);
	touch("the hole", memory + 2 * PAGE, STORE);
	touch("after", memory + 3 * PAGE, STORE);
	num("all, with the hole", munmap(memory, 5 * PAGE));
	num("nothing there", munmap(memory, 5 * PAGE));
	num("unaligned", munmap(memory + 1, PAGE));
	num("length 0", munmap(memory, 0));
	num("beyond the end", munmap((void *)(1UL << 47), PAGE));
}

CASE(mremap_grow_and_shrink)
{
	char *memory = map(8 * PAGE, RW, ANON);

	for (int page = 0; page < 8; page++)
		memory[page * PAGE] = 'a' + page;
	yes("shrink stays", mremap(memory, 8 * PAGE, 2 * PAGE, 0) == memory);
	touch("what was cut off", memory + 4 * PAGE, LOAD);
	yes("grow into the free room", mremap(memory, 2 * PAGE, 4 * PAGE, 0) == memory);
	say("new pages are zero: %d", memory[3 * PAGE]);
	must_map(mmap(memory + 4 * PAGE, PAGE, RW, ANON | MAP_FIXED, -1, 0));
	mapped("no room, may not move", mremap(memory, 4 * PAGE, 6 * PAGE, 0));
	char *moved = mapped("may move", mremap(memory, 4 * PAGE, 600 * PAGE, MREMAP_MAYMOVE));
	say("content moved: %c %c, zero %d", moved[0], moved[PAGE], moved[599 * PAGE]);
	touch("the old place", memory, LOAD);
}

CASE(mremap_fixed_and_dontunmap)
{
	char *memory = map(2 * PAGE, RW, ANON), *target = map(4 * PAGE, RW, ANON);

	memory[0] = 'm';
	target[0] = 't';
	yes("MREMAP_FIXED", mremap(memory, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target + PAGE) == target + PAGE);
	say("%c %c", target[0], target[PAGE]);
	touch("the old place", memory, LOAD);
	char *copy = mapped("MREMAP_DONTUNMAP", mremap(target + PAGE, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL));
	say("moved %c", copy[0]);
	touch("the old place is there and empty", target + PAGE, LOAD);
	mapped("old size 0 of private memory", mremap(target, 0, PAGE, MREMAP_MAYMOVE));
	char *shared = map(PAGE, RW, MAP_SHARED | MAP_ANONYMOUS);
	shared[0] = 's';
	char *second = mapped("old size 0 of shared memory doubles it", mremap(shared, 0, PAGE, MREMAP_MAYMOVE));
	second[1] = 'S';
	say("%c%c", shared[0], shared[1]);
}

CASE(mremap_errors)
{
	char *memory = map(4 * PAGE, RW, ANON);

	must(munmap(memory + 2 * PAGE, PAGE));
	mapped("unaligned", mremap(memory + 1, PAGE, PAGE, 0));
	mapped("new size 0", mremap(memory, PAGE, 0, 0));
	mapped("unknown flag", mremap(memory, PAGE, PAGE, 64));
	mapped("fixed without may move", mremap(memory, PAGE, PAGE, MREMAP_FIXED, memory));
	mapped("fixed over itself", mremap(memory, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, memory + PAGE));
	mapped("not mapped", mremap(memory + 2 * PAGE, PAGE, 2 * PAGE, MREMAP_MAYMOVE));
	mapped("growing over a hole", mremap(memory, 4 * PAGE, 5 * PAGE, MREMAP_MAYMOVE));
}

CASE(mprotect_faults)
{
	char *memory = map(3 * PAGE, RW, ANON);

	memory[PAGE] = 7;
	num("read-only", mprotect(memory + PAGE, PAGE, PROT_READ));
	touch("load", memory + PAGE, LOAD);
	touch("store", memory + PAGE + 100, STORE);
	touch("the neighbour", memory + 2 * PAGE, STORE);
	num("none", mprotect(memory + PAGE, PAGE, PROT_NONE));
	touch("load", memory + PAGE + 4095, LOAD);
	num("back", mprotect(memory + PAGE, PAGE, RW));
	touch("content is kept", memory + PAGE, LOAD);
	touch("store", memory + PAGE, STORE);
	num("unaligned", mprotect(memory + 1, PAGE, RW));
	num("length 0", mprotect(memory, 0, RW));
	num("unknown protection", mprotect(memory, PAGE, 0x100000));
	must(munmap(memory + PAGE, PAGE));
	num("over a hole", mprotect(memory, 3 * PAGE, PROT_READ));
	touch("before the hole it took effect", memory, STORE);
	touch("after the hole it did not", memory + 2 * PAGE, STORE);
	int fd = file_of("f", PAGE), reader = must(open("f", O_RDONLY));
	char *shared = must_map(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, reader, 0));
	num("writable, descriptor was read-only", mprotect(shared, PAGE, RW));
	close(fd);
}

CASE(fault_codes)
{
	char *none = map(PAGE, PROT_NONE, ANON);

	touch("null", (void *)0, LOAD);
	touch("near null", (void *)8, STORE);
	touch("unmapped", (void *)0x10000, LOAD);
	touch("no access", none, LOAD);
	touch("program text", (void *)code_name, STORE);
	catch_faults();
	if (sigsetjmp(recover, 1) == 0)
		*(volatile char *)0x1234567812345678 = 1;
	say("non-canonical: %s %s si_addr %p", signal_name(fault_signal), code_name(fault_signal, fault_code), fault_address);
}

CASE(execute_permission)
{
	char *memory = map(PAGE, RW, ANON);

	memory[0] = (char)0xc3; /* ret */
	touch("data page", memory, JUMP);
	num("mprotect", mprotect(memory, PAGE, PROT_READ | PROT_EXEC));
	touch("executable page", memory, JUMP);
	char *both = map(PAGE, RW | PROT_EXEC, ANON);
	both[0] = (char)0xc3;
	touch("writable and executable", both, JUMP);
	/* A store to code that ran is seen by the next call. */
	memcpy(both, "\xb8\x01\x00\x00\x00\xc3", 6);
	int first = ((int (*)(void))both)();
	both[1] = 2;
	say("rewritten code: %d then %d", first, ((int (*)(void))both)());
}

CASE(efault)
{
	char *memory = map(3 * PAGE, RW, ANON);
	int fd = file_of("f", 3 * PAGE), pipes[2];

	must(pipe(pipes));
	must(munmap(memory + PAGE, PAGE));
	must(mprotect(memory + 2 * PAGE, PAGE, PROT_READ));
	num("read into nothing", pread(fd, memory + PAGE, 10, 0));
	num("read into read-only memory", pread(fd, memory + 2 * PAGE, 10, 0));
	num("read that ends in a hole is short", pread(fd, memory + PAGE - 100, 200, 0));
	num("write from nothing", write(pipes[1], memory + PAGE, 10));
	num("write that starts well into a file", pwrite(fd, memory + PAGE - 100, 200, 0));
	num("writev of a bad vector", writev(pipes[1], (void *)8, 2));
	num("kernel address", read(fd, (void *)0xffff800000000000, 10));
	num("non-canonical address", read(fd, (void *)0x8000000000001000, 10));
	num("stat", stat((char *)memory + PAGE, (void *)memory));
	num("string that ends in a hole", open(memset(memory + PAGE - 3, 'x', 3), O_RDONLY));
	num("pipe", pipe((int *)(memory + PAGE)));
}

CASE(madvise_dontneed)
{
	char *memory = map(4 * PAGE, RW, ANON), *file = must_map(mmap(NULL, PAGE, RW, MAP_PRIVATE, file_of("f", PAGE), 0));

	memset(memory, 5, 4 * PAGE);
	file[0] = 'X';
	num("anonymous", madvise(memory + PAGE, PAGE, MADV_DONTNEED));
	say("%d %d %d", memory[0], memory[PAGE], memory[2 * PAGE]);
	num("private file", madvise(file, PAGE, MADV_DONTNEED));
	say("back to the file: %c", file[0]);
	char *shared = map(PAGE, RW, MAP_SHARED | MAP_ANONYMOUS);
	shared[0] = 9;
	num("shared anonymous", madvise(shared, PAGE, MADV_DONTNEED));
	say("keeps %d", shared[0]);
	num("shared anonymous MADV_REMOVE", madvise(shared, PAGE, MADV_REMOVE));
	say("now %d", shared[0]);
}

CASE(madvise_others)
{
	char *memory = map(4 * PAGE, RW, ANON);

	num("MADV_FREE", madvise(memory, PAGE, MADV_FREE));
	num("MADV_WILLNEED", madvise(memory, PAGE, MADV_WILLNEED));
	num("MADV_SEQUENTIAL", madvise(memory, PAGE, MADV_SEQUENTIAL));
	num("MADV_HUGEPAGE", madvise(memory, PAGE, MADV_NOHUGEPAGE));
	num("MADV_DONTDUMP", madvise(memory, PAGE, MADV_DONTDUMP));
	num("MADV_POPULATE_WRITE", madvise(memory, 2 * PAGE, MADV_POPULATE_WRITE));
	num("unknown", madvise(memory, PAGE, 12345));
	num("unaligned", madvise(memory + 1, PAGE, MADV_DONTNEED));
	num("length 0", madvise(memory, 0, MADV_DONTNEED));
	must(munmap(memory + PAGE, PAGE));
	memory[2 * PAGE] = 3;
	num("over a hole", madvise(memory, 4 * PAGE, MADV_DONTNEED));
	say("and still done after it: %d", memory[2 * PAGE]);
}

CASE(madvise_and_fork)
{
	char *wiped = map(PAGE, RW, ANON), *missing = map(PAGE, RW, ANON);

	wiped[0] = missing[0] = 4;
	num("MADV_WIPEONFORK", madvise(wiped, PAGE, MADV_WIPEONFORK));
	num("MADV_DONTFORK", madvise(missing, PAGE, MADV_DONTFORK));
	pid_t child = must(fork());
	if (child == 0) {
		touch("wiped", wiped, LOAD);
		touch("not inherited", missing, LOAD);
		_exit(0);
	}
	reap(child);
	say("here %d %d", wiped[0], missing[0]);
}

/* Each child finds what its parent has at the moment, nothing of the child before it. */
CASE(children_one_after_another)
{
	char *memory = map(4 * PAGE, RW, ANON);
	for (int turn = 0; turn < 8; turn++) {
		memory[0] = 'a' + turn;
		if (turn == 2)
			must(mprotect(memory + PAGE, PAGE, PROT_READ));
		if (turn == 3)
			must(mprotect(memory + 2 * PAGE, PAGE, PROT_NONE));
		if (turn == 4)
			must(munmap(memory + 2 * PAGE, PAGE));
		if (turn == 5)
			must(madvise(memory + PAGE, PAGE, MADV_DONTNEED));
		if (turn == 6)
			must(mprotect(memory + PAGE, PAGE, RW));
		if (turn == 7)
			mapped("again", mmap(memory + 2 * PAGE, PAGE, RW, ANON | MAP_FIXED, -1, 0));
		pid_t child = must(fork());
		if (child == 0) {
			char *own = map(PAGE, RW, ANON);
			say("turn %d: %c, %d in a new page", turn, memory[0], *own);
			*own = 1;
			memory[0] = 'Z';
			for (int page = 1; page < 4; page++) {
				touch("load", memory + page * PAGE, LOAD);
				touch("store", memory + page * PAGE, STORE);
			}
			_exit(turn);
		}
		reap(child);
		say("parent: %c", memory[0]);
	}
}

CASE(brk_moves)
{
	char *start = (char *)syscall(SYS_brk, 0);
	char *grown = (char *)syscall(SYS_brk, start + 5 * PAGE + 10);

	yes("grown exactly", grown == start + 5 * PAGE + 10);
	memset(start, 1, 5 * PAGE + 10);
	yes("shrunk", (char *)syscall(SYS_brk, start + 10) == start + 10);
	yes("grown again", (char *)syscall(SYS_brk, start + 5 * PAGE) == start + 5 * PAGE);
	say("what came back is zero: %d", start[3 * PAGE]);
	yes("below the start is refused", (char *)syscall(SYS_brk, PAGE) == start + 5 * PAGE);
	yes("far too much is refused", (char *)syscall(SYS_brk, start + (1UL << 46)) == start + 5 * PAGE);
}

CASE(brk_swings)
{
	enum { PAGES = 48 };
	char *base = (char *)(((unsigned long)syscall(SYS_brk, 0) + PAGE - 1) & -PAGE);
	int dirty = 0, moved = 0;

	for (int round = 0; round < 50; round++) {
		moved += (char *)syscall(SYS_brk, base + PAGES * PAGE) != base + PAGES * PAGE;
		for (int page = 0; page < PAGES; page++) {
			dirty += base[page * PAGE] != 0 || base[page * PAGE + PAGE - 1] != 0;
			base[page * PAGE] = base[page * PAGE + PAGE - 1] = 1;
		}
		for (int page = PAGES - 16; page >= 0; page -= 16)
			moved += (char *)syscall(SYS_brk, base + page * PAGE) != base + page * PAGE;
	}
	say("moved otherwise %d times, old contents %d times", moved, dirty);

	/* What is mapped there instead is new, and so is a heap that comes back after that, or only in a forked child. */
	char *other = mmap(base + PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	yes("mapped above the break", other == base + PAGE);
	say("which is %d", other[0]);
	touch("beside it", base, LOAD);
	munmap(other, PAGE);
	for (int round = 0; round < 10; round++) {
		syscall(SYS_brk, base + PAGES * PAGE);
		memset(base, 1, PAGES * PAGE);
		pid_t child = round == 8 ? fork() : -1;
		if (child == 0)
			pause();
		syscall(SYS_brk, base);
		if (round == 7 && (child = fork()) == 0) {
			touch("in a child", base, LOAD);
			syscall(SYS_brk, base + PAGES * PAGE);
			say("and then %d", base[0]);
			_exit(0);
		}
		if (child > 0) {
			if (round == 8) {
				syscall(SYS_brk, base + PAGES * PAGE);
				say("shared with a child before: %d", base[PAGE]);
				kill(child, SIGKILL);
			}
			reap(child);
		}
	}
	usleep(200000);
	touch("some time later", base, LOAD);
}

static unsigned long large_sum(const char *memory)
{
	unsigned long sum = 0;
	for (unsigned long at = 0; at < 8UL << 20; at += PAGE)
		sum = sum * 31 + (unsigned char)memory[at] + (unsigned char)memory[at + PAGE - 1];
	return sum;
}

CASE(parts_of_large_memory)
{
	/* What may be mapped by huge pages is taken apart, inherited, written by both sides and moved. */
	enum { MIB = 1 << 20 };
	char *memory = map(8 * MIB, RW, ANON);

	for (unsigned long at = 0; at < 8 * MIB; at += PAGE)
		memory[at] = memory[at + PAGE - 1] = (char)(at / PAGE * 7);
	say("sum %lu", large_sum(memory));
	num("a page loses a right", mprotect(memory + 3 * MIB, PAGE, PROT_READ));
	touch("store there", memory + 3 * MIB, STORE);
	touch("store beside it", memory + 3 * MIB + PAGE, STORE);
	num("all of it loses the right", mprotect(memory, 8 * MIB, PROT_READ));
	touch("store", memory + 5 * MIB, STORE);
	num("and has it again", mprotect(memory, 8 * MIB, RW));
	touch("store again", memory + 5 * MIB, STORE);
	num("given back", madvise(memory + 5 * MIB, 16 * PAGE, MADV_DONTNEED));
	say("zero %d, kept %d", memory[5 * MIB + PAGE], memory[5 * MIB + 17 * PAGE]);
	pid_t child = must(fork());
	for (unsigned long at = child == 0 ? 0 : PAGE; at < 8 * MIB; at += child == 0 ? PAGE : 64 * PAGE)
		memory[at] += child == 0 ? 1 : 2;
	if (child == 0) {
		say("the child's sum %lu", large_sum(memory));
		must(munmap(memory + 2 * MIB, 2 * MIB));
		touch("the child's hole", memory + 3 * MIB, LOAD);
		_exit(0);
	}
	reap(child);
	say("sum %lu", large_sum(memory));
	char *moved = must_map(mremap(memory, 8 * MIB, 16 * MIB, MREMAP_MAYMOVE));
	say("sum when moved %lu", large_sum(moved));
	touch("behind it", moved + 15 * MIB, STORE);
	num("a hole", munmap(moved + MIB, 5 * MIB));
	touch("load from it", moved + 2 * MIB, LOAD);
	touch("store before it", moved + MIB - 1, STORE);
	touch("store behind it", moved + 6 * MIB, STORE);
}

CASE(mincore_residency)
{
	unsigned char residency[4];
	char *memory = map(4 * PAGE, RW, ANON);

	memory[PAGE] = 1;
	num("mincore", mincore(memory, 4 * PAGE, residency));
	say("the touched one: %d, an untouched one: %d", residency[1] & 1, residency[3] & 1);
	must(munmap(memory + 2 * PAGE, PAGE));
	num("over a hole", mincore(memory, 4 * PAGE, residency));
	num("unaligned", mincore(memory + 1, PAGE, residency));
	num("bad vector", mincore(memory, PAGE, (void *)8));
}

CASE(huge_sparse_reservation)
{
	/* What Go, Java and the sanitizers do: terabytes of address space, a few pages of it used. */
	char *memory = mapped("1 TiB, no access", mmap(NULL, 1UL << 40, PROT_NONE, ANON | MAP_NORESERVE, -1, 0));
	num("mprotect far inside", mprotect(memory + (777UL << 30), 1 << 20, RW));
	touch("store there", memory + (777UL << 30) + 5 * PAGE, STORE);
	touch("outside", memory + (778UL << 30), LOAD);
	char *writable = mapped("64 GiB, writable, not reserved", mmap(NULL, 64UL << 30, RW, ANON | MAP_NORESERVE, -1, 0));
	for (unsigned long offset = 0; offset < 64UL << 30; offset += 4UL << 30)
		writable[offset] = offset >> 32;
	say("%d %d", writable[0], writable[60UL << 30]);
	num("give it back", munmap(writable, 64UL << 30));
	num("and the terabyte", munmap(memory, 1UL << 40));
}

CASE(many_mappings)
{
	enum { COUNT_OF = 5000 };
	static char *maps[COUNT_OF];
	int wrong = 0;

	char *memory = map(2UL * COUNT_OF * PAGE, PROT_NONE, ANON);
	for (int index = 0; index < COUNT_OF; index++) {
		maps[index] = memory + 2UL * index * PAGE;
		must(mprotect(maps[index], PAGE, RW));
		maps[index][0] = index % 100;
	}
	for (int index = 0; index < COUNT_OF; index++)
		wrong += maps[index][0] != index % 100;
	say("wrong %d", wrong);
	num("munmap of all", munmap(memory, 2UL * COUNT_OF * PAGE));
}

CASE(grows_down)
{
	char *memory = map(64 * PAGE, PROT_NONE, ANON);
	must(munmap(memory, 64 * PAGE));
	char *stack = must_map(mmap(memory + 60 * PAGE, 4 * PAGE, RW, ANON | MAP_GROWSDOWN | MAP_FIXED, -1, 0));
	touch("one page below", stack - 16, STORE);
	touch("the next", stack - PAGE - 16, STORE);
}

CASE(memfd)
{
	int fd = must(memfd_create("name", MFD_CLOEXEC | MFD_ALLOW_SEALING));
	char link[64] = "", path[32];

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	must(readlink(path, link, sizeof link - 1));
	say("link %s", link);
	must(ftruncate(fd, 2 * PAGE));
	char *memory = must_map(mmap(NULL, 2 * PAGE, RW, MAP_SHARED, fd, 0));
	strcpy(memory, "shared");
	pid_t child = must(fork());
	if (child == 0) {
		strcpy(memory + PAGE, "from the child");
		_exit(0);
	}
	reap(child);
	say("%s", memory + PAGE);
	num("F_GET_SEALS", fcntl(fd, F_GET_SEALS));
	num("F_SEAL_WRITE with a writable mapping", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
	num("F_SEAL_SHRINK|GROW", fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW));
	num("shrink", ftruncate(fd, PAGE));
	num("grow", ftruncate(fd, 3 * PAGE));
	must(munmap(memory, 2 * PAGE));
	num("F_SEAL_WRITE", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL));
	num("write", pwrite(fd, "x", 1, 0));
	mapped("shared writable mapping", mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0));
	num("more seals", fcntl(fd, F_ADD_SEALS, F_SEAL_GROW));
	num("F_GET_SEALS", fcntl(fd, F_GET_SEALS));
	num("unknown flags", memfd_create("x", 0x4000));
	int plain = must(memfd_create("x", 0));
	num("seals when not allowed", fcntl(plain, F_ADD_SEALS, F_SEAL_WRITE));
	num("seals of a plain file", fcntl(file_of("f", 10), F_GET_SEALS));
}

CASE(msync_and_mlock)
{
	char *memory = map(2 * PAGE, RW, ANON);

	num("msync MS_ASYNC", msync(memory, PAGE, MS_ASYNC));
	num("MS_SYNC and MS_ASYNC", msync(memory, PAGE, MS_ASYNC | MS_SYNC));
	num("unaligned", msync(memory + 1, PAGE, MS_SYNC));
	num("mlock", mlock(memory, PAGE));
	num("MS_INVALIDATE of locked memory", msync(memory, PAGE, MS_INVALIDATE));
	num("munlock", munlock(memory, PAGE));
	must(munmap(memory + PAGE, PAGE));
	num("msync of a hole", msync(memory, 2 * PAGE, MS_SYNC));
	num("mlock of a hole", mlock(memory, 2 * PAGE));
	num("mlock2 unknown flag", mlock2(memory, PAGE, 8));
	num("mlockall of nothing", mlockall(0));
	num("munlockall", munlockall());
}

HELPER(address)
{
	int here;
	(void)argc;
	must(pwrite(atoi(argv[0]), &(uintptr_t){(uintptr_t)&here}, sizeof(uintptr_t), 0));
	return 0;
}

CASE(address_space_is_randomized)
{
	uintptr_t addresses[3];
	int fd = must(open("a", O_RDWR | O_CREAT, 0644));
	char number[12];
	snprintf(number, sizeof number, "%d", fd);
	char *args[] = {"x", "@address", number, NULL};
	for (int index = 0; index < 3; index++) {
		pid_t child = must(fork());
		if (child == 0) {
			execv(SELF, args);
			_exit(127);
		}
		reap(child);
		must(pread(fd, &addresses[index], sizeof addresses[index], 0));
	}
	yes("stack addresses differ", addresses[0] != addresses[1] && addresses[1] != addresses[2]);
}

CASE(limit_of_address_space)
{
	struct rlimit limit = {256 << 20, 256 << 20};
	must(setrlimit(RLIMIT_AS, &limit));
	mapped("512 MiB under RLIMIT_AS 256 MiB", mmap(NULL, 512 << 20, RW, ANON, -1, 0));
	mapped("64 MiB", mmap(NULL, 64 << 20, RW, ANON, -1, 0));
	limit = (struct rlimit){1 << 20, 1 << 20};
	must(setrlimit(RLIMIT_DATA, &limit));
	char *end = (char *)syscall(SYS_brk, 0);
	yes("brk beyond RLIMIT_DATA refused", (char *)syscall(SYS_brk, end + (4 << 20)) == end);
}

/* A file system that has no room left for names, then for data; argument: an empty one. */
HELPER(full)
{
	static char block[16 * PAGE];
	char name[16];
	int names = 0;
	long written = 0, bytes;
	must(chdir(argv[0]));
	for (int fd; snprintf(name, sizeof name, "n%d", names), (fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0644)) != -1; names++)
		close(fd);
	say("%d files, then %s", names, error_name(errno));
	ok("mkdir", mkdir("d", 0755));
	ok("symlink", symlink("target", "l"));
	ok("link", link("n0", "m"));
	ok("rename", rename("n0", "n1"));
	ok("unlink", unlink("n1"));
	ok("mkdir", mkdir("d", 0755));
	int data = must(open("n2", O_RDWR)), sparse = must(open("n3", O_RDWR));
	while ((bytes = write(data, block, sizeof block)) > 0)
		written += bytes;
	say("%ld bytes, then %s", written, error_name(errno));
	ok("pwrite", pwrite(sparse, block, PAGE, 0));
	ok("fallocate", fallocate(sparse, 0, 0, PAGE));
	must(ftruncate(sparse, 16 * PAGE));
	char *map = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, sparse, 0);
	touch("a hole", map + PAGE, STORE);
	touch("a hole again", map + 2 * PAGE, STORE);
	must(ftruncate(data, 0));
	touch("a hole, with room", map + PAGE, STORE);
	ok("msync", msync(map, 16 * PAGE, MS_SYNC));
	ok("pwrite", pwrite(sparse, block, PAGE, 0));
	return 0;
}
