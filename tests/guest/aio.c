/* Asynchronous I/O of the kernel's own: io_setup(2), io_submit(2), io_getevents(2). */
#include "guest.h"

#include <linux/aio_abi.h>
#include <sys/eventfd.h>
#include <sys/uio.h>

static long setup(unsigned most, aio_context_t *context) { return syscall(SYS_io_setup, most, context); }
static long destroy(aio_context_t context) { return syscall(SYS_io_destroy, context); }
static long submit(aio_context_t context, long count, struct iocb **requests) { return syscall(SYS_io_submit, context, count, requests); }
static long events(aio_context_t context, long least, long most, struct io_event *found, struct timespec *limit)
{
	return syscall(SYS_io_getevents, context, least, most, found, limit);
}

static struct iocb request(int operation, int fd, void *buffer, size_t bytes, off_t offset)
{
	return (struct iocb){.aio_data = 77, .aio_lio_opcode = operation, .aio_fildes = fd, .aio_buf = (uintptr_t)buffer,
			     .aio_nbytes = bytes, .aio_offset = offset};
}

/* Submits one request and says what came of it. */
static void one(const char *what, aio_context_t context, struct iocb *request)
{
	struct io_event event;
	struct timespec second = {.tv_sec = 1};
	if (submit(context, 1, &request) != 1) {
		say("%s: not submitted, %s", what, error_name(errno));
		return;
	}
	if (events(context, 1, 1, &event, &second) != 1)
		say("%s: no event", what);
	else
		say("%s: %s %lld, own data %d, own request %d", what, event.res < 0 ? error_name(-event.res) : "result", event.res < 0 ? -1 : event.res,
		    event.data == 77, event.obj == (uintptr_t)request);
}

CASE(aio_requests)
{
	aio_context_t context = 0;
	char bytes[32] = "";
	int fd = must(open("f", O_RDWR | O_CREAT, 0600));
	ok("io_setup", setup(8, &context));
	struct iocb write = request(IOCB_CMD_PWRITE, fd, "hello, world", 12, 3);
	one("write", context, &write);
	struct iocb read = request(IOCB_CMD_PREAD, fd, bytes, sizeof(bytes), 3);
	one("read", context, &read);
	say("got \"%s\"", bytes);
	struct iovec vectors[2] = {{bytes, 3}, {bytes + 8, 4}};
	struct iocb scattered = request(IOCB_CMD_PREADV, fd, vectors, 2, 3);
	one("vector", context, &scattered);
	struct iocb sync = request(IOCB_CMD_FDSYNC, fd, NULL, 0, 0);
	one("sync", context, &sync);
	struct iocb nowhere = request(IOCB_CMD_PREAD, fd, (void *)8, 8, 0);
	one("to no address", context, &nowhere);
	int counter = must(eventfd(0, 0));
	write.aio_flags = IOCB_FLAG_RESFD;
	write.aio_resfd = counter;
	one("told by an eventfd", context, &write);
	uint64_t count = 0;
	must(syscall(SYS_read, counter, &count, 8));
	say("count %d", (int)count);
	ok("io_destroy", destroy(context));
	ok("twice", destroy(context));
}

CASE(aio_order)
{
	aio_context_t context = 0;
	struct io_event found[4];
	int fd = must(open("f", O_RDWR | O_CREAT, 0600));
	must(setup(8, &context));
	struct iocb first = request(IOCB_CMD_PWRITE, fd, "abc", 3, 0), second = request(IOCB_CMD_PWRITE, fd, "def", 3, 3), bad = request(99, fd, NULL, 0, 0);
	struct iocb *all[] = {&first, &second, &bad};
	num("submitted up to the bad one", submit(context, 3, all));
	num("events", events(context, 2, 4, found, NULL));
	struct timespec short_time = {.tv_nsec = 20000000};
	num("no more", events(context, 1, 4, found, &short_time));
	num("none wanted", events(context, 0, 4, found, NULL));
	num("with a mask", syscall(SYS_io_pgetevents, context, 0, 4, found, NULL, NULL));
	num("of a wrong context", syscall(SYS_io_pgetevents, context + 1, 0, 4, found, NULL, NULL));
	say("%s", get_file("f"));
}

CASE(aio_errors)
{
	aio_context_t context = 0, used = 1;
	struct io_event found;
	int fd = must(open("f", O_WRONLY | O_CREAT, 0600)), pipes[2];
	char bytes[8];
	must(pipe(pipes));
	ok("no room", setup(0, &context));
	ok("used variable", setup(1, &used));
	ok("too many", setup(1 << 20, &context));
	ok("no address", setup(1, NULL));
	must(setup(4, &context));
	struct iocb read = request(IOCB_CMD_PREAD, fd, bytes, 8, 0), *list = &read;
	one("not open for reading", context, &read);
	read.aio_fildes = 99;
	one("no descriptor", context, &read);
	read = request(IOCB_CMD_PREAD, fd, bytes, 8, 0);
	read.aio_flags = IOCB_FLAG_RESFD;
	read.aio_fildes = must(open("f", O_RDONLY));
	read.aio_resfd = fd;
	one("no eventfd", context, &read);
	read.aio_flags = 0;
	read.aio_reserved2 = 1;
	one("reserved", context, &read);
	ok("a wrong context", submit(context + 1, 1, &list));
	ok("a negative number", submit(context, -1, &list));
	ok("no list", submit(context, 1, NULL));
	ok("no request", submit(context, 1, &(struct iocb *){NULL}));
	num("nothing", submit(context, 0, &list));
	ok("events of a wrong context", events(context + 1, 0, 1, &found, NULL));
	ok("more than fit", events(context, 2, 1, &found, NULL));
	ok("a negative least", events(context, -1, 1, &found, NULL));
	ok("cancel of none", syscall(SYS_io_cancel, context, &read, &found));
	ok("cancel of no address", syscall(SYS_io_cancel, context, NULL, &found));
	pid_t child = must(fork());
	if (child == 0) {
		ok("a child does not inherit it", submit(context, 0, &list));
		_exit(0);
	}
	reap(child);
}
