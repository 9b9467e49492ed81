/* Pipes and transfers: pipe(7), fifo(7), splice(2), tee(2), vmsplice(2), sendfile(2), copy_file_range(2). */
#include "guest.h"

#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>

static void ignore(int number) { (void)number; }

CASE(pipe_basics)
{
	int fds[2];
	char buffer[32] = "";
	num("pipe", pipe(fds));
	num("write", write(fds[1], "hello", 5));
	num("FIONREAD", ({ int bytes; must(ioctl(fds[0], FIONREAD, &bytes)); bytes; }));
	num("read is what is there", read(fds[0], buffer, 30));
	say("%s", buffer);
	num("write to the reading end", write(fds[0], "x", 1));
	num("read of the writing end", read(fds[1], buffer, 1));
	close(fds[1]);
	num("end of file", read(fds[0], buffer, 1));
	num("pread", pread(fds[0], buffer, 1, 0));
	num("pipe2 unknown flag", pipe2(fds, O_APPEND));
	num("pipe2", pipe2(fds, O_CLOEXEC | O_NONBLOCK));
	say("F_GETFD %d F_GETFL %#x %#x", fcntl(fds[0], F_GETFD), fcntl(fds[0], F_GETFL), fcntl(fds[1], F_GETFL));
	num("nothing to read", read(fds[0], buffer, 1));
	num("length 0", read(fds[0], buffer, 0));
}

CASE(pipe_capacity)
{
	int fds[2];
	static char block[1 << 20];
	must(pipe2(fds, O_NONBLOCK));
	num("F_GETPIPE_SZ", fcntl(fds[0], F_GETPIPE_SZ));
	num("a write of 1 MiB is cut", write(fds[1], block, sizeof block));
	num("full", write(fds[1], block, 1));
	num("F_SETPIPE_SZ below what is in", fcntl(fds[0], F_SETPIPE_SZ, 4096));
	num("read 4096", read(fds[0], block, 4096));
	num("room for one page again", write(fds[1], block, 1 << 20));
	num("F_SETPIPE_SZ", fcntl(fds[0], F_SETPIPE_SZ, 100000));
	num("more room", write(fds[1], block, 1 << 20));
	num("F_SETPIPE_SZ too much", fcntl(fds[0], F_SETPIPE_SZ, 1 << 30));
	num("F_GETPIPE_SZ of a file", fcntl(must(open("f", O_RDWR | O_CREAT, 0644)), F_GETPIPE_SZ));
}

CASE(pipe_atomic_writes)
{
	/* pipe(7): writes of up to PIPE_BUF bytes are atomic: all or EAGAIN, and never interleaved. */
	int fds[2];
	char block[4096];
	must(pipe2(fds, O_NONBLOCK));
	while (write(fds[1], block, 4096) == 4096)
		;
	must(read(fds[0], block, 100));
	num("4096 where less is free", write(fds[1], block, 4096));
	int pipes[2], mixed = 0;
	must(pipe(pipes));
	for (int writer = 0; writer < 4; writer++)
		if (must(fork()) == 0) {
			memset(block, 'a' + writer, 512);
			for (int turn = 0; turn < 200; turn++)
				must(write(pipes[1], block, 512));
			_exit(0);
		}
	close(pipes[1]);
	int total = 0, fill = 0;
	for (ssize_t got; (got = must(read(pipes[0], block + fill, 512 - fill))) > 0;) {
		fill += got;
		if (fill == 512) {
			for (int index = 1; index < 512; index++)
				mixed += block[index] != block[0];
			total++;
			fill = 0;
		}
	}
	say("%d blocks, %d mixed", total, mixed);
}

CASE(pipe_stream)
{
	/* Eight mebibytes through a pipe, in uneven pieces, arrive whole and in order. */
	int fds[2];
	must(pipe(fds));
	pid_t child = must(fork());
	if (child == 0) {
		unsigned char block[7001];
		unsigned value = 0;
		close(fds[0]);
		for (long sent = 0; sent < 8 << 20;) {
			size_t length = 1 + sent % 7000;
			if (sent + (long)length > 8 << 20)
				length = (8 << 20) - sent;
			for (size_t index = 0; index < length; index++)
				block[index] = (value++ * 2654435761U) >> 24;
			must(write(fds[1], block, length));
			sent += length;
		}
		_exit(0);
	}
	close(fds[1]);
	unsigned char block[9000];
	unsigned value = 0;
	long total = 0, wrong = 0;
	for (ssize_t got; (got = must(read(fds[0], block, sizeof block))) > 0; total += got)
		for (ssize_t index = 0; index < got; index++)
			wrong += block[index] != (unsigned char)((value++ * 2654435761U) >> 24);
	say("%ld bytes, %ld wrong", total, wrong);
	status("writer", reap(child));
}

CASE(pipe_poll)
{
	int fds[2];
	char block[4096] = "";
	must(pipe2(fds, O_NONBLOCK));
	struct pollfd both[2] = {{fds[0], POLLIN | POLLOUT, 0}, {fds[1], POLLIN | POLLOUT, 0}};
	num("empty", poll(both, 2, 0));
	say("%#x %#x", both[0].revents, both[1].revents);
	must(write(fds[1], "x", 1));
	num("one byte", poll(both, 2, 0));
	say("%#x %#x", both[0].revents, both[1].revents);
	while (write(fds[1], block, sizeof block) > 0)
		;
	num("full", poll(both, 2, 0));
	say("%#x %#x", both[0].revents, both[1].revents);
	close(fds[0]);
	num("no reader", poll(both + 1, 1, 0));
	say("%#x", both[1].revents);
	must(pipe(fds));
	close(fds[1]);
	both[0].fd = fds[0];
	num("no writer", poll(both, 1, 0));
	say("%#x", both[0].revents);
}

/* What a shell does for `>(command)`: the write end is opened once more by its name, and both are closed. */
CASE(pipe_opened_by_its_link)
{
	int fds[2];
	char path[32], link[64], byte;
	struct pollfd ready = {0, POLLIN, 0};
	must(pipe(fds));
	snprintf(path, sizeof path, "/proc/self/fd/%d", fds[1]);
	must(readlink(path, link, sizeof link));
	int again = must(open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666));
	must(write(again, "x", 1));
	close(fds[1]);
	num("read", read(fds[0], &byte, 1));
	ready.fd = fds[0];
	num("one writer left", poll(&ready, 1, 0));
	close(again);
	num("none left", poll(&ready, 1, 0));
	say("%#x", ready.revents);
	num("read", read(fds[0], &byte, 1));
	ok("the link afterwards", open(path, O_WRONLY));
}

CASE(pipe_blocks_and_wakes)
{
	int fds[2];
	char block[4096];
	must(pipe(fds));
	pid_t child = must(fork());
	if (child == 0) {
		char byte;
		close(fds[1]);
		num("child reads", read(fds[0], &byte, 1));
		num("child sees the end", read(fds[0], &byte, 1));
		_exit(0);
	}
	close(fds[0]);
	until_asleep(child);
	must(write(fds[1], "x", 1));
	until_asleep(child);
	close(fds[1]);
	status("child", reap(child));
	must(pipe(fds));
	child = must(fork());
	if (child == 0) {
		close(fds[0]);
		signal(SIGPIPE, SIG_IGN);
		while (write(fds[1], block, sizeof block) > 0)
			;
		say("the blocked writer gets %s", error_name(errno));
		_exit(0);
	}
	close(fds[1]);
	until_asleep(child);
	close(fds[0]);
	status("child", reap(child));
}

CASE(fifos)
{
	char byte;
	num("mkfifo", mkfifo("f", 0644));
	num("again", mkfifo("f", 0644));
	num("O_WRONLY|O_NONBLOCK without reader", open("f", O_WRONLY | O_NONBLOCK));
	ok("O_RDONLY|O_NONBLOCK", open("f", O_RDONLY | O_NONBLOCK));
	ok("now a writer", open("f", O_WRONLY | O_NONBLOCK));
	ok("O_RDWR never blocks", open("f", O_RDWR));
	must(mkfifo("g", 0644));
	pid_t child = must(fork());
	if (child == 0) {
		int fd = must(open("g", O_WRONLY)); /* waits for the reader */
		must(write(fd, "through", 7));
		_exit(0);
	}
	until_asleep(child);
	int fd = must(open("g", O_RDONLY));
	char text[8] = "";
	num("read", read(fd, text, 7));
	say("%s", text);
	reap(child);
	num("all writers gone", read(fd, &byte, 1));
	struct pollfd ready = {fd, POLLIN, 0};
	num("poll", poll(&ready, 1, 0));
	say("%#x", ready.revents);
	int writer = must(open("g", O_WRONLY));
	num("a new writer", poll(&ready, 1, 0));
	must(write(writer, "y", 1));
	num("read", read(fd, &byte, 1));
}

CASE(fifo_open_is_interrupted)
{
	must(mkfifo("f", 0644));
	on_signal(SIGUSR1, ignore, 0);
	pid_t parent = getpid(), child = must(fork());
	if (child == 0) {
		for (;;) {
			until_asleep(parent);
			kill(parent, SIGUSR1);
			nap(10);
		}
	}
	num("open", open("f", O_RDONLY));
	kill(child, SIGKILL);
	reap(child);
}

CASE(splicing)
{
	int fds[2], other[2];
	char buffer[32] = "";
	loff_t offset = 2;
	put_file("f", "0123456789");
	int file = must(open("f", O_RDWR)), out = must(open("out", O_RDWR | O_CREAT, 0644));
	must(pipe(fds));
	must(pipe(other));
	num("file to pipe", splice(file, &offset, fds[1], NULL, 5, 0));
	say("offset %ld, the file's own %ld", (long)offset, (long)lseek(file, 0, SEEK_CUR));
	num("tee", tee(fds[0], other[1], 3, 0));
	num("pipe to file", splice(fds[0], NULL, out, NULL, 100, 0));
	must(pread(out, buffer, 31, 0));
	say("file: %s", buffer);
	memset(buffer, 0, sizeof buffer);
	must(read(other[0], buffer, 31));
	say("tee: %s", buffer);
	num("no pipe", splice(file, NULL, out, NULL, 5, 0));
	num("offset for a pipe", splice(file, NULL, fds[1], &offset, 5, 0));
	num("empty pipe, SPLICE_F_NONBLOCK", splice(fds[0], NULL, out, NULL, 5, SPLICE_F_NONBLOCK));
	num("pipe to pipe", (must(write(fds[1], "abc", 3)), splice(fds[0], NULL, other[1], NULL, 2, 0)));
	num("unknown flag", splice(fds[0], NULL, out, NULL, 5, 1024));
	num("tee to itself", tee(fds[0], fds[1], 5, 0));
	struct iovec parts = {"vmsplice", 8};
	num("vmsplice", vmsplice(other[1], &parts, 1, 0));
	memset(buffer, 0, sizeof buffer);
	must(read(other[0], buffer, 31));
	say("%s", buffer);
	close(fds[1]);
	must(read(fds[0], buffer, 31));
	num("at the end", splice(fds[0], NULL, out, NULL, 5, 0));
}

CASE(splice_leaves_what_the_socket_does_not_take)
{
	/* A proxy's way (Go, HAProxy): socket to pipe to a socket that takes only a part. Not a byte may get lost. */
	enum { BYTES = 3 << 20 };
	int in[2], out[2], pipes[2];
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, in));
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, out));
	must(pipe(pipes));
	must(fcntl(out[0], F_SETFL, O_NONBLOCK));
	if (must(fork()) == 0) {
		for (unsigned word = 0; word < BYTES / sizeof word; word++)
			must(write(in[0], &word, sizeof word));
		_exit(0);
	}
	if (must(fork()) == 0) {
		long moved = 0;
		while (moved < BYTES) {
			long got = must(splice(in[1], NULL, pipes[1], NULL, BYTES, 0));
			for (long left = got; left > 0;) {
				long sent = splice(pipes[0], NULL, out[0], NULL, left, SPLICE_F_NONBLOCK);
				if (sent > 0)
					left -= sent;
				else
					must(poll(&(struct pollfd){out[0], POLLOUT, 0}, 1, -1));
			}
			moved += got;
		}
		_exit(0);
	}
	close(out[0]);
	unsigned expected = 0, word, wrong = 0;
	while (recv(out[1], &word, sizeof word, MSG_WAITALL) == sizeof word)
		wrong += word != expected++;
	num("words", expected);
	num("wrong", wrong);
}

CASE(splice_from_pipe_of_packets)
{
	int fds[2], other[2], bytes;
	char buffer[64] = "";
	must(pipe2(fds, O_DIRECT | O_NONBLOCK));
	must(pipe2(other, O_NONBLOCK));
	must(write(fds[1], "first", 5));
	must(write(fds[1], "second", 6));
	must(write(fds[1], "third", 5));
	num("the first packet and a part of the second", splice(fds[0], NULL, other[1], NULL, 8, 0));
	num("there", ({ must(ioctl(other[0], FIONREAD, &bytes)); bytes; }));
	num("the rest of it", read(fds[0], buffer, sizeof buffer));
	num("the third", read(fds[0], buffer, sizeof buffer));
	num("no more", read(fds[0], buffer, sizeof buffer));
}

CASE(splice_of_what_is_no_stream)
{
	int pipes[2], file = must(open("f", O_RDWR | O_CREAT, 0644));
	must(pipe(pipes));
	int events = must(eventfd(1, 0)), timer = must(timerfd_create(CLOCK_MONOTONIC, 0)), watch = must(inotify_init());
	int epoll = must(epoll_create1(0));
	must(write(pipes[1], "x", 1));
	num("eventfd", splice(events, NULL, pipes[1], NULL, 1, 0));
	num("timerfd", splice(timer, NULL, pipes[1], NULL, 1, 0));
	num("inotify", splice(watch, NULL, pipes[1], NULL, 1, 0));
	num("epoll", splice(epoll, NULL, pipes[1], NULL, 1, 0));
	num("to an eventfd", splice(pipes[0], NULL, events, NULL, 1, 0));
	num("to an epoll", splice(pipes[0], NULL, epoll, NULL, 1, 0));
	must(write(file, "12345678", 8));
	must(lseek(file, 0, SEEK_SET));
	num("sendfile to an eventfd", sendfile(events, file, NULL, 8));
}

CASE(vmsplice_takes_what_fits)
{
	static char all[200000] ALIGNED_PAGE;
	int fds[2];
	must(pipe(fds));
	struct iovec vector = {all, sizeof(all)};
	num("vmsplice", vmsplice(fds[1], &vector, 1, 0));
	ok("full", vmsplice(fds[1], &vector, 1, SPLICE_F_NONBLOCK));
}

CASE(sendfile_calls)
{
	int fds[2], pair[2];
	char buffer[32] = "";
	off_t offset = 3;
	put_file("f", "0123456789");
	int file = must(open("f", O_RDONLY)), out = must(open("out", O_RDWR | O_CREAT, 0644));
	must(pipe(fds));
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	num("to a file", sendfile(out, file, NULL, 4));
	num("offset", lseek(file, 0, SEEK_CUR));
	num("to a socket, with an offset", sendfile(pair[0], file, &offset, 100));
	say("offset %ld, the file's own %ld", (long)offset, (long)lseek(file, 0, SEEK_CUR));
	must(read(pair[1], buffer, 31));
	say("%s", buffer);
	num("to a pipe", sendfile(fds[1], file, NULL, 2));
	num("at the end", (lseek(file, 0, SEEK_END), sendfile(out, file, NULL, 5)));
	num("from a pipe", sendfile(out, fds[0], NULL, 1));
	num("to an O_APPEND file", sendfile(must(open("out", O_WRONLY | O_APPEND)), file, NULL, 1));
	num("to a reader", sendfile(file, file, NULL, 1));
	num("bad descriptor", sendfile(99, file, NULL, 1));
	offset = -1;
	num("negative offset", sendfile(out, file, &offset, 1));
}

CASE(copying_file_ranges)
{
	char buffer[32] = "";
	loff_t in = 2, out = 5;
	put_file("f", "0123456789");
	int from = must(open("f", O_RDWR)), to = must(open("g", O_RDWR | O_CREAT, 0644));
	num("with offsets", copy_file_range(from, &in, to, &out, 4, 0));
	say("in %ld out %ld", (long)in, (long)out);
	must(pread(to, buffer, 31, 5));
	say("%s", buffer);
	num("with the files' own", copy_file_range(from, NULL, to, NULL, 3, 0));
	num("to its end", copy_file_range(from, NULL, to, NULL, 100, 0));
	num("at the end", copy_file_range(from, NULL, to, NULL, 100, 0));
	num("flags", copy_file_range(from, NULL, to, NULL, 1, 1));
	in = 0, out = 1;
	num("overlapping in one file", copy_file_range(from, &in, from, &out, 5, 0));
	int fds[2];
	must(pipe(fds));
	num("pipe", copy_file_range(from, &in, fds[1], NULL, 1, 0));
	num("to a reader", copy_file_range(from, &in, must(open("g", O_RDONLY)), NULL, 1, 0));
	num("folder", copy_file_range(must(open(".", O_RDONLY)), NULL, to, NULL, 1, 0));
	num("to an O_APPEND file", copy_file_range(from, &in, must(open("g", O_WRONLY | O_APPEND)), NULL, 1, 0));
}

CASE(many_descriptors)
{
	/* A shell's pipeline by hand: 8 processes in a row, each passing on what it reads. */
	int input, output[2];
	must(pipe(output));
	int start = output[1];
	input = output[0];
	for (int stage = 0; stage < 8; stage++) {
		must(pipe(output));
		if (must(fork()) == 0) {
			char byte;
			close(start);
			while (read(input, &byte, 1) == 1) {
				byte++;
				must(write(output[1], &byte, 1));
			}
			_exit(0);
		}
		close(input);
		close(output[1]);
		input = output[0];
	}
	must(write(start, "ABC", 3));
	close(start);
	char text[8] = "";
	int length = 0;
	while (read(input, text + length, 1) == 1)
		length++;
	say("%s", text);
}
