/* Signals about open files: O_ASYNC with F_SETOWN and F_SETSIG, F_NOTIFY, leases. */
#include "guest.h"

#include <netinet/in.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>

/* Waits for the (blocked) signal and says what came with it. */
static void expect(const char *what, int number)
{
	sigset_t set;
	siginfo_t info;
	sigemptyset(&set);
	sigaddset(&set, number);
	if (sigtimedwait(&set, &info, &(struct timespec){.tv_sec = 2}) == -1) {
		say("%s: %s", what, error_name(errno));
		return;
	}
	if (info.si_code == SI_KERNEL)
		say("%s: %s, of the kernel", what, signal_name(number));
	else
		say("%s: %s, code %d, band %#lx, descriptor %d", what, signal_name(number), info.si_code, info.si_band, info.si_fd);
}

static void expect_none(const char *what, int number)
{
	sigset_t pending;
	nap(30);
	sigpending(&pending);
	yes(what, !sigismember(&pending, number));
}

static void make_async(int fd)
{
	must(fcntl(fd, F_SETOWN, getpid()));
	must(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_ASYNC));
}

CASE(pipe_readiness)
{
	int fds[2];
	must(pipe(fds));
	block_signal(SIGIO);
	block_signal(SIGRTMIN);
	make_async(fds[0]);
	yes("F_GETFL has it", fcntl(fds[0], F_GETFL) & O_ASYNC);
	must(write(fds[1], "x", 1));
	expect("written", SIGIO);
	must(fcntl(fds[0], F_SETSIG, SIGRTMIN));
	must(write(fds[1], "x", 1));
	expect("with F_SETSIG", SIGRTMIN);
	must(fcntl(fds[0], F_SETFL, 0));
	must(write(fds[1], "x", 1));
	expect_none("nothing without O_ASYNC", SIGRTMIN);
	must(fcntl(fds[0], F_SETFL, O_ASYNC));
	must(close(fds[1]));
	expect("the writer is gone", SIGRTMIN);
}

CASE(pipe_room)
{
	static char all[65536];
	int fds[2];
	must(pipe2(fds, O_NONBLOCK));
	block_signal(SIGRTMIN);
	must(fcntl(fds[1], F_SETSIG, SIGRTMIN));
	must(write(fds[1], all, sizeof(all)));
	make_async(fds[1]);
	must(read(fds[0], all, sizeof(all)));
	expect("room again", SIGRTMIN);
}

static void socket_case(int domain, int type)
{
	int fds[2];
	must(socketpair(domain, type, 0, fds));
	block_signal(SIGIO);
	block_signal(SIGRTMIN);
	make_async(fds[0]);
	must(write(fds[1], "x", 1));
	expect("written", SIGIO);
	must(fcntl(fds[0], F_SETSIG, SIGRTMIN));
	must(write(fds[1], "x", 1));
	expect("with F_SETSIG", SIGRTMIN);
	char bytes[8];
	must(read(fds[0], bytes, 1));
	int on = 0;
	ok("FIOASYNC off", ioctl(fds[0], FIOASYNC, &on));
	yes("F_GETFL says so", !(fcntl(fds[0], F_GETFL) & O_ASYNC));
}

CASE(stream_socket) { socket_case(AF_UNIX, SOCK_STREAM); }
CASE(datagram_socket) { socket_case(AF_UNIX, SOCK_DGRAM); }

CASE(terminal)
{
	int master = must(posix_openpt(O_RDWR | O_NOCTTY));
	must(grantpt(master));
	must(unlockpt(master));
	int slave = must(open(ptsname(master), O_RDWR | O_NOCTTY));
	block_signal(SIGIO);
	must(fcntl(slave, F_SETFL, O_RDWR | O_ASYNC));
	yes("the caller owns it", fcntl(slave, F_GETOWN) == getpid());
	must(write(master, "line\n", 5));
	expect("a line", SIGIO);
}

CASE(owners)
{
	int fds[2];
	struct f_owner_ex owner = {0};
	must(pipe(fds));
	num("F_GETOWN of none", fcntl(fds[0], F_GETOWN));
	ok("F_SETOWN", fcntl(fds[0], F_SETOWN, getpid()));
	yes("F_GETOWN", fcntl(fds[0], F_GETOWN) == getpid());
	ok("F_GETOWN_EX", fcntl(fds[0], F_GETOWN_EX, &owner));
	say("kind %d, own %d", owner.type, owner.pid == getpid());
	ok("F_SETOWN of a group", fcntl(fds[0], F_SETOWN, -getpgrp()));
	ok("F_GETOWN_EX", fcntl(fds[0], F_GETOWN_EX, &owner));
	say("kind %d, own %d", owner.type, owner.pid == getpgrp());
	owner = (struct f_owner_ex){.type = F_OWNER_TID, .pid = gettid()};
	ok("F_SETOWN_EX of a thread", fcntl(fds[0], F_SETOWN_EX, &owner));
	yes("F_GETOWN", fcntl(fds[0], F_GETOWN) == gettid());
	owner.type = 7;
	ok("an unknown kind", fcntl(fds[0], F_SETOWN_EX, &owner));
	ok("nobody's id", fcntl(fds[0], F_SETOWN, 4000000));
	ok("no id", fcntl(fds[0], F_SETOWN, INT_MIN));
	ok("F_SETOWN_EX of no address", fcntl(fds[0], F_SETOWN_EX, NULL));
	ok("an unknown signal", fcntl(fds[0], F_SETSIG, 65));
	ok("F_SETOWN of nobody", fcntl(fds[0], F_SETOWN, 0));
	num("F_GETOWN", fcntl(fds[0], F_GETOWN));
	pid_t child = must(fork());
	if (child == 0)
		_exit(0);
	ok("F_SETOWN of a child", fcntl(fds[0], F_SETOWN, child));
	reap(child);
	num("F_GETOWN once it is gone", fcntl(fds[0], F_GETOWN));
}

CASE(other_process)
{
	int fds[2];
	struct turn ready = turn_new();
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
	block_signal(SIGIO);
	pid_t child = must(fork());
	if (child == 0) {
		turn_take(ready);
		expect("the child owns it", SIGIO);
		_exit(0);
	}
	must(fcntl(fds[0], F_SETOWN, child));
	must(fcntl(fds[0], F_SETFL, O_ASYNC));
	must(write(fds[1], "x", 1));
	turn_give(ready);
	status("child", reap(child));
	expect_none("nothing here", SIGIO);
}

CASE(files_without)
{
	int fd = must(open("f", O_RDWR | O_CREAT, 0600)), on = 1;
	ok("F_SETFL on a regular file", fcntl(fd, F_SETFL, O_ASYNC));
	yes("it has no effect", !(fcntl(fd, F_GETFL) & O_ASYNC));
	ok("FIOASYNC", ioctl(fd, FIOASYNC, &on));
}

CASE(urgent_data)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(address);
	int listener = must(socket(AF_INET, SOCK_STREAM, 0)), client = must(socket(AF_INET, SOCK_STREAM, 0));
	must(bind(listener, (struct sockaddr *)&address, length));
	must(listen(listener, 1));
	must(getsockname(listener, (struct sockaddr *)&address, &length));
	must(connect(client, (struct sockaddr *)&address, length));
	int server = must(accept(listener, NULL, NULL));
	block_signal(SIGURG);
	must(fcntl(server, F_SETOWN, getpid()));
	must(send(client, "!", 1, MSG_OOB));
	expect("urgent byte, without O_ASYNC", SIGURG);
	block_signal(SIGIO);
	must(fcntl(server, F_SETFL, O_ASYNC));
	must(send(client, "x", 1, 0));
	expect("data", SIGIO);
}

CASE(directory_notification)
{
	must(mkdir("d", 0700));
	int fd = must(open("d", O_RDONLY | O_DIRECTORY));
	block_signal(SIGIO);
	block_signal(SIGRTMIN);
	ok("F_NOTIFY", fcntl(fd, F_NOTIFY, DN_CREATE));
	put_file("d/one", "1");
	expect("created", SIGIO);
	put_file("d/two", "2");
	expect_none("told once", SIGIO);
	must(fcntl(fd, F_SETSIG, SIGRTMIN));
	ok("for good", fcntl(fd, F_NOTIFY, DN_CREATE | DN_DELETE | DN_MULTISHOT));
	put_file("d/three", "3");
	expect("created", SIGRTMIN);
	must(unlink("d/three"));
	expect("deleted", SIGRTMIN);
	must(chmod("d/two", 0600));
	expect_none("attributes were not asked for", SIGRTMIN);
	ok("and these too", fcntl(fd, F_NOTIFY, DN_ATTRIB | DN_MULTISHOT));
	must(chmod("d/two", 0640));
	expect("attributes", SIGRTMIN);
	must(rename("d/two", "two"));
	expect("moved away", SIGRTMIN);
	ok("no more", fcntl(fd, F_NOTIFY, 0));
	put_file("d/four", "4");
	expect_none("nothing", SIGRTMIN);
	must(fcntl(fd, F_NOTIFY, DN_CREATE | DN_MULTISHOT));
	int other = must(dup(fd));
	must(close(other));
	put_file("d/five", "5");
	expect_none("any descriptor's close ends it", SIGRTMIN);
	put_file("f", "");
	ok("of a file", fcntl(must(open("f", O_RDONLY)), F_NOTIFY, DN_CREATE));
}

static long lease(int fd, int kind) { return fcntl(fd, F_SETLEASE, kind); }

CASE(leases)
{
	put_file("f", "content");
	int reader = must(open("f", O_RDONLY)), writer = must(open("f", O_RDWR));
	num("none", fcntl(reader, F_GETLEASE));
	ok("read lease while open for writing", lease(reader, F_RDLCK));
	ok("write lease while open twice", lease(writer, F_WRLCK));
	must(close(writer));
	ok("read lease", lease(reader, F_RDLCK));
	num("F_GETLEASE", fcntl(reader, F_GETLEASE));
	int other = must(open("f", O_RDONLY));
	ok("another's open for reading breaks nothing", other);
	ok("a second read lease", lease(other, F_RDLCK));
	ok("write lease besides", lease(reader, F_WRLCK));
	must(close(other));
	ok("alone: it becomes a write lease", lease(reader, F_WRLCK));
	num("F_GETLEASE", fcntl(reader, F_GETLEASE));
	ok("given up", lease(reader, F_UNLCK));
	ok("twice", lease(reader, F_UNLCK));
	ok("an unknown kind", lease(reader, 7));
	int fds[2];
	must(pipe(fds));
	ok("of a pipe", lease(fds[0], F_RDLCK));
	must(mkdir("d", 0700));
	ok("of a directory", lease(must(open("d", O_RDONLY)), F_RDLCK));
	must(chown("f", 1000, 1000));
	must(setresuid(1, 1, 1));
	ok("of another's file", lease(reader, F_RDLCK));
}

CASE(lease_broken)
{
	put_file("f", "content");
	int holder = must(open("f", O_RDONLY));
	block_signal(SIGIO);
	must(lease(holder, F_RDLCK));
	ok("who must not wait", open("f", O_WRONLY | O_NONBLOCK));
	expect("the holder hears of it", SIGIO);
	num("what it has to become", fcntl(holder, F_GETLEASE));
	pid_t child = must(fork());
	if (child == 0) {
		ok("who waits opens", open("f", O_WRONLY));
		_exit(0);
	}
	until_asleep(child);
	must(lease(holder, F_UNLCK));
	reap(child);
	must(close(must(open("f", O_WRONLY))));
	must(lease(holder, F_WRLCK));
	must(fcntl(holder, F_SETSIG, SIGRTMIN));
	block_signal(SIGRTMIN);
	child = must(fork());
	if (child == 0) {
		must(close(holder));
		ok("a reader waits for the writer", open("f", O_RDONLY));
		_exit(0);
	}
	expect("told by the signal it chose", SIGRTMIN);
	num("it may go on reading", fcntl(holder, F_GETLEASE));
	must(lease(holder, F_RDLCK));
	reap(child);
	num("F_GETLEASE", fcntl(holder, F_GETLEASE));
	child = must(fork());
	if (child == 0) {
		must(close(holder));
		ok("truncate waits", truncate("f", 1));
		_exit(0);
	}
	expect("for the holder", SIGRTMIN);
	must(close(holder));
	reap(child);
}
