/* Unix sockets: unix(7), socketpair(2), sendmsg(2), SCM_RIGHTS, SCM_CREDENTIALS, SO_PEERCRED, shutdown(2). */
#include "guest.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

static struct sockaddr_un address(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	strncpy(address.sun_path, path, sizeof address.sun_path - 1);
	return address;
}

static int bound(int type, const char *path)
{
	struct sockaddr_un name = address(path);
	int fd = must(socket(AF_UNIX, type, 0));
	must(bind(fd, (void *)&name, sizeof name));
	return fd;
}

static long connect_to(int fd, const char *path)
{
	struct sockaddr_un name = address(path);
	return connect(fd, (void *)&name, sizeof name);
}

CASE(creating)
{
	int pair[2];
	struct stat info;
	ok("stream", socket(AF_UNIX, SOCK_STREAM, 0));
	int fd = ok("flags", socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
	say("F_GETFD %d F_GETFL %#x", fcntl(fd, F_GETFD), fcntl(fd, F_GETFL));
	ok("unknown type", socket(AF_UNIX, 77, 0));
	ok("unknown family", socket(200, SOCK_STREAM, 0));
	ok("unknown protocol", socket(AF_UNIX, SOCK_STREAM, 99));
	ok("SOCK_RAW becomes a datagram", fd = socket(AF_UNIX, SOCK_RAW, 0));
	int type;
	socklen_t length = sizeof type;
	must(getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length));
	num("SO_TYPE", type);
	num("socketpair", socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair));
	num("socketpair inet", socketpair(AF_INET, SOCK_STREAM, 0, pair));
	must(fstat(fd, &info));
	say("S_ISSOCK %d", S_ISSOCK(info.st_mode));
	num("lseek", lseek(fd, 0, SEEK_CUR));
}

CASE(stream_pair)
{
	int pair[2];
	char buffer[32] = "";
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	num("write", write(pair[0], "hello", 5));
	num("write", write(pair[0], "world", 5));
	num("FIONREAD", ({ int bytes; must(ioctl(pair[1], FIONREAD, &bytes)); bytes; }));
	num("MSG_PEEK", recv(pair[1], buffer, 3, MSG_PEEK));
	num("one read takes both", read(pair[1], buffer, 31));
	say("%s", buffer);
	num("MSG_DONTWAIT", recv(pair[1], buffer, 1, MSG_DONTWAIT));
	num("back", send(pair[1], "back", 4, 0));
	num("MSG_WAITALL", recv(pair[0], buffer, 4, MSG_WAITALL));
	num("shutdown SHUT_WR", shutdown(pair[0], SHUT_WR));
	num("the other reads the end", read(pair[1], buffer, 1));
	num("write after shutdown", send(pair[0], "x", 1, MSG_NOSIGNAL));
	num("the other direction lives", write(pair[1], "y", 1));
	num("read", read(pair[0], buffer, 5));
	close(pair[0]);
	num("write to a closed peer", send(pair[1], "x", 1, MSG_NOSIGNAL));
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	must(write(pair[0], "unread", 6));
	close(pair[1]);
	num("peer closed with unread data: read", read(pair[0], buffer, 1));
}

CASE(listen_and_accept)
{
	char buffer[32] = "";
	struct sockaddr_un name;
	socklen_t length = sizeof name;
	int server = bound(SOCK_STREAM, "s");
	num("connect before listen", connect_to(must(socket(AF_UNIX, SOCK_STREAM, 0)), "s"));
	num("listen", listen(server, 5));
	pid_t child = must(fork());
	if (child == 0) {
		int client = must(socket(AF_UNIX, SOCK_STREAM, 0));
		num("connect", connect_to(client, "s"));
		num("again", connect_to(client, "s"));
		must(write(client, "ping", 4));
		must(read(client, buffer, 4));
		say("client got %s", buffer);
		must(getpeername(client, (void *)&name, &length));
		say("peer is %s", name.sun_path);
		_exit(0);
	}
	int connection = must(accept(server, (void *)&name, &length));
	must(read(connection, buffer, 4));
	num("an unnamed client's address length", length);
	say("server got %s", buffer);
	struct ucred credentials;
	length = sizeof credentials;
	must(getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &credentials, &length));
	yes("SO_PEERCRED", credentials.pid == child && credentials.uid == 0);
	must(write(connection, "pong", 4));
	status("child", reap(child));
	num("accept4 unknown flag", accept4(server, NULL, NULL, 1));
	num("accept on a connection", accept(connection, NULL, NULL));
	must(fcntl(server, F_SETFL, O_NONBLOCK));
	num("nothing to accept", accept(server, NULL, NULL));
	int connections = 0;
	for (int index = 0; index < 3; index++)
		connections += connect_to(must(socket(AF_UNIX, SOCK_STREAM, 0)), "s") == 0;
	num("connected without accept", connections);
	int accepted = accept4(server, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	say("F_GETFD %d F_GETFL %#x", fcntl(accepted, F_GETFD), fcntl(accepted, F_GETFL));
}

CASE(addresses)
{
	struct stat info;
	struct sockaddr_un name = address("s"), got;
	socklen_t length = sizeof got;
	int fd = must(socket(AF_UNIX, SOCK_STREAM, 0));
	must(getsockname(fd, (void *)&got, &length));
	num("unbound: length", length);
	num("bind", bind(fd, (void *)&name, sizeof name));
	length = sizeof got;
	must(getsockname(fd, (void *)&got, &length));
	say("bound: length %u %s", length, got.sun_path);
	must(stat("s", &info));
	say("S_ISSOCK %d mode %o", S_ISSOCK(info.st_mode), info.st_mode & 07777);
	struct sockaddr_un second = address("second");
	num("bind again", bind(fd, (void *)&second, sizeof second));
	num("bind over it", bind(must(socket(AF_UNIX, SOCK_STREAM, 0)), (void *)&name, sizeof name));
	ok("open of a socket", open("s", O_RDWR));
	must(listen(fd, 1));
	close(fd);
	num("connect to a closed one", connect_to(must(socket(AF_UNIX, SOCK_STREAM, 0)), "s"));
	put_file("f", "");
	num("connect to a file", connect_to(must(socket(AF_UNIX, SOCK_STREAM, 0)), "f"));
	num("connect to nothing", connect_to(must(socket(AF_UNIX, SOCK_STREAM, 0)), "absent"));
	name.sun_family = AF_INET;
	num("another family", bind(must(socket(AF_UNIX, SOCK_STREAM, 0)), (void *)&name, sizeof name));
	num("length too small", bind(must(socket(AF_UNIX, SOCK_STREAM, 0)), (void *)&name, 1));
	num("length too big", bind(must(socket(AF_UNIX, SOCK_STREAM, 0)), (void *)&name, 200));
	int datagram = bound(SOCK_DGRAM, "d");
	(void)datagram;
	num("another type", connect_to(must(socket(AF_UNIX, SOCK_STREAM, 0)), "d"));
	fd = must(socket(AF_UNIX, SOCK_STREAM, 0));
	num("autobind", bind(fd, (void *)&(sa_family_t){AF_UNIX}, sizeof(sa_family_t)));
	length = sizeof got;
	must(getsockname(fd, (void *)&got, &length));
	say("length %u, abstract %d", length, got.sun_path[0] == 0);
}

CASE(abstract_names)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	memcpy(name.sun_path, "\0hidden", 7);
	socklen_t length = offsetof(struct sockaddr_un, sun_path) + 7;
	int server = must(socket(AF_UNIX, SOCK_STREAM, 0));
	num("bind", bind(server, (void *)&name, length));
	must(listen(server, 1));
	num("connect", connect(must(socket(AF_UNIX, SOCK_STREAM, 0)), (void *)&name, length));
	num("a longer name is another", connect(must(socket(AF_UNIX, SOCK_STREAM, 0)), (void *)&name, length + 1));
	num("bind again", bind(must(socket(AF_UNIX, SOCK_STREAM, 0)), (void *)&name, length));
	close(server);
	num("gone with its socket", connect(must(socket(AF_UNIX, SOCK_STREAM, 0)), (void *)&name, length));
	num("so free again", bind(must(socket(AF_UNIX, SOCK_STREAM, 0)), (void *)&name, length));
}

CASE(datagrams)
{
	char buffer[32] = "";
	struct sockaddr_un name = address("server"), from;
	socklen_t length = sizeof from;
	int server = bound(SOCK_DGRAM, "server"), client = bound(SOCK_DGRAM, "client");
	num("sendto", sendto(client, "one", 3, 0, (void *)&name, sizeof name));
	num("sendto", sendto(client, "second", 6, 0, (void *)&name, sizeof name));
	num("recvfrom", recvfrom(server, buffer, 31, 0, (void *)&from, &length));
	say("%s from %s", buffer, from.sun_path);
	memset(buffer, 0, sizeof buffer);
	num("cut to the buffer", recv(server, buffer, 3, MSG_TRUNC));
	say("%s", buffer);
	num("the rest is gone", recv(server, buffer, 31, MSG_DONTWAIT));
	num("send unconnected", send(client, "x", 1, 0));
	num("connect", connect_to(client, "server"));
	num("send", send(client, "", 0, 0));
	num("an empty message", recv(server, buffer, 31, 0));
	num("listen", listen(server, 1));
	num("too long", send(client, malloc(1 << 24), 1 << 24, 0));
	int other = must(socket(AF_UNIX, SOCK_DGRAM, 0));
	must(connect_to(server, "client"));
	num("to one who is connected elsewhere", sendto(other, "x", 1, 0, (void *)&name, sizeof name));
	close(server);
	num("to a closed one", send(client, "x", 1, 0));
}

CASE(sequenced_packets)
{
	int pair[2];
	char buffer[32] = "";
	must(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair));
	must(send(pair[0], "first", 5, 0));
	must(send(pair[0], "second", 6, 0));
	num("one at a time", recv(pair[1], buffer, 31, 0));
	struct iovec part = {buffer, 3};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
	num("cut", recvmsg(pair[1], &message, 0));
	say("MSG_TRUNC %d", (message.msg_flags & MSG_TRUNC) != 0);
	close(pair[0]);
	num("end", recv(pair[1], buffer, 31, 0));
}

union control { struct cmsghdr header; char bytes[CMSG_SPACE(sizeof(int) * 300)]; };

static long send_fds(int socket, const int *fds, int count, const char *text)
{
	union control control = {0};
	struct iovec part = {(void *)text, strlen(text)};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_SPACE(sizeof(int) * count)};
	control.header = (struct cmsghdr){CMSG_LEN(sizeof(int) * count), SOL_SOCKET, SCM_RIGHTS};
	memcpy(CMSG_DATA(&control.header), fds, sizeof(int) * count);
	return sendmsg(socket, &message, 0);
}

static int receive_fds(int socket, int *fds, int room, int flags)
{
	union control control = {0};
	char text[32] = "";
	struct iovec part = {text, sizeof text - 1};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_SPACE(sizeof(int) * room)};
	must(recvmsg(socket, &message, flags));
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	int count = header && header->cmsg_type == SCM_RIGHTS ? (header->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;
	if (header)
		memcpy(fds, CMSG_DATA(header), count * sizeof(int));
	say("received \"%s\" with %d descriptors, MSG_CTRUNC %d", text, count, (message.msg_flags & MSG_CTRUNC) != 0);
	return count;
}

CASE(passing_descriptors)
{
	int pair[2], fds[3], got[300];
	char buffer[16] = "";
	put_file("f", "0123456789");
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	fds[0] = must(open("f", O_RDONLY));
	must(pipe(fds + 1));
	must(lseek(fds[0], 4, SEEK_SET));
	pid_t child = must(fork());
	if (child == 0) {
		close(pair[0]);
		for (int index = 0; index < 3; index++)
			close(fds[index]);
		receive_fds(pair[1], got, 3, 0);
		num("read", read(got[0], buffer, 3));
		say("%s: one offset with the sender", buffer);
		must(write(got[2], "via pipe", 8));
		_exit(0);
	}
	long sent = send_fds(pair[0], fds, 3, "three");
	status("child", reap(child));
	num("sendmsg", sent);
	must(read(fds[1], buffer, 8));
	say("%s", buffer);
	num("offset moved", lseek(fds[0], 0, SEEK_CUR));
	send_fds(pair[0], fds, 1, "cloexec");
	receive_fds(pair[1], got, 1, MSG_CMSG_CLOEXEC);
	num("F_GETFD", fcntl(got[0], F_GETFD));
	send_fds(pair[0], fds, 3, "cut");
	receive_fds(pair[1], got, 1, 0);
	num("bad descriptor", send_fds(pair[0], (int[]){99}, 1, "x"));
	int many[300];
	for (int index = 0; index < 300; index++)
		many[index] = fds[0];
	num("254 are too many", send_fds(pair[0], many, 254, "x"));
	num("253", send_fds(pair[0], many, 253, "x"));
	num("received", receive_fds(pair[1], got, 253, 0));
}

CASE(descriptors_end_a_read)
{
	/* unix(7): ancillary data is a barrier: what was sent after it is not read together with it. */
	int pair[2], fd = must(open("/dev/null", O_RDONLY)), got[4];
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	must(write(pair[0], "before", 6));
	must(send_fds(pair[0], &fd, 1, "with"));
	must(write(pair[0], "after", 5));
	receive_fds(pair[1], got, 4, 0);
	receive_fds(pair[1], got, 4, 0);
	must(send_fds(pair[0], &fd, 1, "dropped by read"));
	char buffer[32] = "";
	num("read drops them", read(pair[1], buffer, 31));
}

CASE(descriptor_of_a_socket_in_flight)
{
	/* A socket sent through itself, then closed: nothing leaks, nothing hangs. */
	int pair[2], got[2];
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	num("send its own end", send_fds(pair[0], &pair[1], 1, "x"));
	num("send the other", send_fds(pair[0], &pair[0], 1, "y"));
	receive_fds(pair[1], got, 1, 0);
	must(write(got[0], "z", 1));
	close(pair[0]);
	close(pair[1]);
	close(got[0]);
	say("closed");
}

CASE(passing_credentials)
{
	int pair[2], on = 1;
	char text[8] = "";
	union control control = {0};
	struct iovec part = {text, 7};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	num("SO_PASSCRED", setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
	must(write(pair[0], "x", 1));
	must(recvmsg(pair[1], &message, 0));
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	if (yes("credentials came", header && header->cmsg_type == SCM_CREDENTIALS)) {
		struct ucred *credentials = (void *)CMSG_DATA(header);
		say("me %d uid %u gid %u", credentials->pid == getpid(), credentials->uid, credentials->gid);
	}
	struct ucred forged = {getpid(), 1234, 0};
	control.header = (struct cmsghdr){CMSG_LEN(sizeof forged), SOL_SOCKET, SCM_CREDENTIALS};
	memcpy(CMSG_DATA(&control.header), &forged, sizeof forged);
	message.msg_controllen = CMSG_SPACE(sizeof forged);
	num("another uid, with CAP_SETUID", sendmsg(pair[0], &message, 0));
	forged.pid = 1;
	memcpy(CMSG_DATA(&control.header), &forged, sizeof forged);
	num("another pid, without CAP_SYS_ADMIN", sendmsg(pair[0], &message, 0));
}

CASE(messages)
{
	int pair[2];
	char a[4] = "", b[8] = "";
	must(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
	struct iovec out[2] = {{"abc", 3}, {"defgh", 5}}, in[2] = {{a, 3}, {b, 7}};
	struct msghdr message = {.msg_iov = out, .msg_iovlen = 2};
	num("sendmsg", sendmsg(pair[0], &message, 0));
	message.msg_iov = in;
	num("recvmsg", recvmsg(pair[1], &message, 0));
	say("%s %s", a, b);
	struct mmsghdr many[3] = {0};
	for (int index = 0; index < 3; index++)
		many[index].msg_hdr = (struct msghdr){.msg_iov = &out[0], .msg_iovlen = 1};
	num("sendmmsg", sendmmsg(pair[0], many, 3, 0));
	for (int index = 0; index < 3; index++)
		many[index].msg_hdr.msg_iov = &in[0];
	num("recvmmsg", recvmmsg(pair[1], many, 3, MSG_DONTWAIT, NULL));
	say("%u %u %u", many[0].msg_len, many[1].msg_len, many[2].msg_len);
	num("recvmmsg of nothing", recvmmsg(pair[1], many, 3, MSG_DONTWAIT, NULL));
	message.msg_iovlen = 2000;
	num("too many parts", sendmsg(pair[0], &message, 0));
	num("bad pointer", sendmsg(pair[0], (void *)8, 0));
}

CASE(options)
{
	int pair[2], value = 0;
	socklen_t length = sizeof value;
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	static const struct { const char *name; int option; } queries[] = {
		{"SO_DOMAIN", SO_DOMAIN}, {"SO_TYPE", SO_TYPE}, {"SO_PROTOCOL", SO_PROTOCOL}, {"SO_ACCEPTCONN", SO_ACCEPTCONN},
		{"SO_ERROR", SO_ERROR}, {"SO_PASSCRED", SO_PASSCRED},
	};
	for (size_t index = 0; index < COUNT(queries); index++) {
		length = sizeof value;
		value = -5;
		if (getsockopt(pair[0], SOL_SOCKET, queries[index].option, &value, &length) == 0)
			say("%s %d length %u", queries[index].name, value, length);
	}
	struct timeval timeout = {0, 20000};
	num("SO_RCVTIMEO", setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout));
	num("recv times out", recv(pair[0], &value, 1, 0));
	num("unknown option", setsockopt(pair[0], SOL_SOCKET, 9999, &value, sizeof value));
	num("unknown level", setsockopt(pair[0], 9999, 1, &value, sizeof value));
	num("no socket", setsockopt(1, SOL_SOCKET, SO_PASSCRED, &value, sizeof value));
	value = 100000;
	num("SO_SNDBUF", setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &value, sizeof value));
	length = sizeof value;
	must(getsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &value, &length));
	num("doubled", value);
}

CASE(polling)
{
	int pair[2];
	char block[4096] = "";
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair));
	struct pollfd ready = {pair[0], POLLIN | POLLOUT | POLLRDHUP, 0};
	num("idle", poll(&ready, 1, 0));
	say("%#x", ready.revents);
	must(write(pair[1], "x", 1));
	poll(&ready, 1, 0);
	say("data %#x", ready.revents);
	while (write(pair[0], block, sizeof block) > 0)
		;
	poll(&ready, 1, 0);
	say("full %#x", ready.revents);
	must(shutdown(pair[1], SHUT_WR));
	poll(&ready, 1, 0);
	say("half closed %#x", ready.revents);
	close(pair[1]);
	poll(&ready, 1, 0);
	say("closed %#x", ready.revents & ~POLLOUT);
	ready.fd = bound(SOCK_STREAM, "s");
	poll(&ready, 1, 0);
	say("unconnected %#x", ready.revents);
	must(listen(ready.fd, 1));
	poll(&ready, 1, 0);
	say("listening %#x", ready.revents);
	must(connect_to(must(socket(AF_UNIX, SOCK_STREAM, 0)), "s"));
	poll(&ready, 1, 0);
	say("pending %#x", ready.revents);
}

CASE(stream_throughput)
{
	int pair[2];
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	pid_t child = must(fork());
	if (child == 0) {
		static char block[100000];
		close(pair[1]);
		for (int turn = 0; turn < 100; turn++) {
			memset(block, turn, sizeof block);
			for (size_t sent = 0; sent < sizeof block;)
				sent += must(write(pair[0], block + sent, sizeof block - sent));
		}
		_exit(0);
	}
	close(pair[0]);
	char block[30000];
	long total = 0, wrong = 0;
	for (ssize_t got; (got = must(read(pair[1], block, sizeof block))) > 0;)
		for (ssize_t index = 0; index < got; index++, total++)
			wrong += block[index] != (char)(total / 100000);
	say("%ld bytes, %ld wrong", total, wrong);
	reap(child);
}
