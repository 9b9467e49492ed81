/* Internet sockets over loopback: ip(7), ipv6(7), tcp(7), udp(7), socket(7), connect(2), accept(2). */
#include "guest.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <net/if.h>

union address { struct sockaddr any; struct sockaddr_in v4; struct sockaddr_in6 v6; };

static socklen_t loopback(int family, int port, union address *address)
{
	memset(address, 0, sizeof *address);
	if (family == AF_INET) {
		address->v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
		return sizeof address->v4;
	}
	address->v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = in6addr_loopback};
	return sizeof address->v6;
}

static int port_of(int fd)
{
	union address address;
	socklen_t length = sizeof address;
	must(getsockname(fd, &address.any, &length));
	return ntohs(address.any.sa_family == AF_INET ? address.v4.sin_port : address.v6.sin6_port);
}

static int bound(int family, int type)
{
	union address address;
	socklen_t length = loopback(family, 0, &address);
	int fd = must(socket(family, type, 0));
	must(bind(fd, &address.any, length));
	return fd;
}

static int listening(int family)
{
	int fd = bound(family, SOCK_STREAM);
	must(listen(fd, 16));
	return fd;
}

static long connect_port(int fd, int family, int port)
{
	union address address;
	socklen_t length = loopback(family, port, &address);
	return connect(fd, &address.any, length);
}

static void tcp_pair(int family, int pair[2])
{
	int server = listening(family);
	pair[0] = must(socket(family, SOCK_STREAM, 0));
	must(connect_port(pair[0], family, port_of(server)));
	pair[1] = must(accept(server, NULL, NULL));
	close(server);
}

static void stream(int family)
{
	char buffer[32] = "", text[INET6_ADDRSTRLEN];
	union address address;
	socklen_t length = sizeof address;
	int server = listening(family);
	int port = port_of(server);
	yes("bound to a port", port > 0);
	pid_t child = must(fork());
	if (child == 0) {
		int client = must(socket(family, SOCK_STREAM, 0));
		num("connect", connect_port(client, family, port));
		num("getpeername", getpeername(client, &address.any, &length));
		must(write(client, "ping", 4));
		must(shutdown(client, SHUT_WR));
		num("read", read(client, buffer, 31));
		say("client got %s", buffer);
		num("end", read(client, buffer, 31));
		_exit(0);
	}
	int connection = must(accept4(server, &address.any, &length, SOCK_CLOEXEC));
	inet_ntop(family, family == AF_INET ? (void *)&address.v4.sin_addr : (void *)&address.v6.sin6_addr, text, sizeof text);
	must(recv(connection, buffer, 4, MSG_WAITALL));
	num("the client's end", read(connection, buffer, 1));
	must(write(connection, "pong", 4));
	close(connection);
	status("client", reap(child));
	say("server got %s from %s, address length %u", buffer, text, length);
}

CASE(tcp_v4) { stream(AF_INET); }
CASE(tcp_v6) { stream(AF_INET6); }

static void datagrams(int family)
{
	char buffer[32] = "";
	union address address, from;
	socklen_t length, from_length = sizeof from;
	int server = bound(family, SOCK_DGRAM), client = bound(family, SOCK_DGRAM);
	length = loopback(family, port_of(server), &address);
	num("sendto", sendto(client, "one", 3, 0, &address.any, length));
	num("sendto, empty", sendto(client, "", 0, 0, &address.any, length));
	num("recvfrom", recvfrom(server, buffer, 31, 0, &from.any, &from_length));
	yes("from the client's port", ntohs(from.v4.sin_port) == port_of(client));
	num("recvfrom, empty", recvfrom(server, buffer, 31, 0, NULL, NULL));
	num("connect", connect(client, &address.any, length));
	num("send", send(client, "a longer one", 12, 0));
	num("cut", recv(server, buffer, 4, 0));
	num("the rest is gone", recv(server, buffer, 31, MSG_DONTWAIT));
	must(send(client, "sized", 5, 0));
	num("FIONREAD", ({ int n; must(ioctl(server, FIONREAD, &n)); n; }));
	num("MSG_TRUNC tells the size", recv(server, buffer, 1, MSG_TRUNC));
	num("not connected", send(server, "x", 1, 0));
	close(server);
	num("to a closed port", send(client, "x", 1, 0));
	nap(5);
	num("the refusal comes with the next call", send(client, "x", 1, 0));
	num("disconnect", connect(client, &(struct sockaddr){.sa_family = AF_UNSPEC}, sizeof(struct sockaddr)));
	num("send", send(client, "x", 1, 0));
	num("too long", sendto(client, malloc(70000), 70000, 0, &address.any, length));
}

CASE(udp_v4) { datagrams(AF_INET); }
CASE(udp_v6) { datagrams(AF_INET6); }

CASE(socket_errors)
{
	union address address;
	socklen_t length = loopback(AF_INET, 0, &address);
	int server = listening(AF_INET), port = port_of(server);
	num("unknown protocol", socket(AF_INET, SOCK_STREAM, IPPROTO_UDP));
	num("refused", connect_port(must(socket(AF_INET, SOCK_STREAM, 0)), AF_INET, 1));
	address.v4.sin_port = htons(port);
	num("in use", bind(must(socket(AF_INET, SOCK_STREAM, 0)), &address.any, length));
	address.v4.sin_addr.s_addr = htonl(0x08080808);
	num("an address that is not ours", bind(must(socket(AF_INET, SOCK_STREAM, 0)), &address.any, length));
	num("no route", connect(must(socket(AF_INET, SOCK_STREAM, 0)), &address.any, length));
	num("bind twice", bind(server, &address.any, length));
	num("accept without listen", accept(must(socket(AF_INET, SOCK_STREAM, 0)), NULL, NULL));
	num("send unconnected", send(must(socket(AF_INET, SOCK_STREAM, 0)), "x", 1, MSG_NOSIGNAL));
	num("getpeername unconnected", getpeername(must(socket(AF_INET, SOCK_STREAM, 0)), &address.any, &length));
	num("shutdown unconnected", shutdown(must(socket(AF_INET, SOCK_STREAM, 0)), SHUT_RDWR));
	length = sizeof address.v4;
	num("length too small", bind(must(socket(AF_INET, SOCK_STREAM, 0)), &address.any, 4));
	address.any.sa_family = AF_UNIX;
	num("another family", connect(must(socket(AF_INET, SOCK_STREAM, 0)), &address.any, length));
	num("bad pointer", connect(must(socket(AF_INET, SOCK_STREAM, 0)), (void *)8, length));
	num("no socket", connect(1, &address.any, length));
	num("accept bad pointer", ({ int client = must(socket(AF_INET, SOCK_STREAM, 0)); must(connect_port(client, AF_INET, port)); accept(server, (void *)8, (void *)8); }));
	pid_t child = must(fork());
	if (child == 0) {
		must(setuid(1000));
		length = loopback(AF_INET, 80, &address);
		num("port 80 as a user", bind(must(socket(AF_INET, SOCK_STREAM, 0)), &address.any, length));
		_exit(0);
	}
	reap(child);
	length = loopback(AF_INET, 80, &address);
	num("port 80 as root", bind(must(socket(AF_INET, SOCK_STREAM, 0)), &address.any, length));
}

CASE(nonblocking_connect)
{
	int server = listening(AF_INET), client = must(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)), error;
	socklen_t length = sizeof error;
	long result = connect_port(client, AF_INET, port_of(server));
	yes("in progress, or done", result == 0 || errno == EINPROGRESS);
	struct pollfd ready = {client, POLLOUT, 0};
	num("poll", poll(&ready, 1, 10000));
	say("%#x", ready.revents);
	must(getsockopt(client, SOL_SOCKET, SO_ERROR, &error, &length));
	num("SO_ERROR", error);
	num("connect again", connect_port(client, AF_INET, port_of(server)));
	char byte;
	num("nothing to read", recv(client, &byte, 1, 0));
	int refused = must(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
	result = connect_port(refused, AF_INET, 1);
	ready = (struct pollfd){refused, POLLOUT, 0};
	if (result == -1 && errno == EINPROGRESS)
		poll(&ready, 1, 10000);
	else
		ready.revents = POLLOUT | POLLERR | POLLHUP;
	say("refused: %#x", ready.revents);
	must(fcntl(server, F_SETFL, O_NONBLOCK));
	must(accept(server, NULL, NULL));
	num("nothing to accept", accept(server, NULL, NULL));
	num("SOCK_NONBLOCK is not inherited", ({
		int again = must(socket(AF_INET, SOCK_STREAM, 0));
		must(connect_port(again, AF_INET, port_of(server)));
		ready = (struct pollfd){server, POLLIN, 0};
		poll(&ready, 1, 10000);
		fcntl(must(accept(server, NULL, NULL)), F_GETFL) & O_NONBLOCK; }));
}

CASE(closing_and_resetting)
{
	int pair[2];
	char byte;
	tcp_pair(AF_INET, pair);
	must(write(pair[1], "unread", 6));
	struct pollfd ready = {pair[0], POLLIN, 0};
	poll(&ready, 1, 10000);
	close(pair[0]);
	ready = (struct pollfd){pair[1], POLLIN | POLLRDHUP, 0};
	poll(&ready, 1, 10000);
	say("closed with unread data: %#x", ready.revents);
	num("read", read(pair[1], &byte, 1));
	num("write", send(pair[1], "x", 1, MSG_NOSIGNAL));
	tcp_pair(AF_INET, pair);
	struct linger linger = {1, 0};
	must(setsockopt(pair[0], SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
	close(pair[0]);
	ready = (struct pollfd){pair[1], POLLIN, 0};
	poll(&ready, 1, 10000);
	num("SO_LINGER 0 resets: read", read(pair[1], &byte, 1));
	tcp_pair(AF_INET, pair);
	num("shutdown SHUT_RD: read", (shutdown(pair[0], SHUT_RD), read(pair[0], &byte, 1)));
	tcp_pair(AF_INET, pair);
	must(shutdown(pair[0], SHUT_WR));
	ready = (struct pollfd){pair[1], POLLIN | POLLRDHUP | POLLOUT, 0};
	poll(&ready, 1, 10000);
	nap(5);
	poll(&ready, 1, 10000);
	say("half closed: %#x", ready.revents);
}

CASE(reset_behind_data)
{
	int server = listening(AF_INET), on = 1;
	struct linger linger = {1, 0};
	must(setsockopt(server, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
	must(setsockopt(server, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on));
	for (int writes = 0; writes < 2; writes++) {
		int client = must(socket(AF_INET, SOCK_STREAM, 0));
		must(connect_port(client, AF_INET, port_of(server)));
		int connection = must(accept(server, NULL, NULL));
		must(write(connection, "data", 4));
		struct pollfd ready = {client, POLLIN, 0};
		poll(&ready, 1, 10000);
		close(connection);
		ready.events = POLLRDHUP;
		poll(&ready, 1, 10000);
		union address address;
		socklen_t length = sizeof address;
		char buffer[8];
		num("getpeername", getpeername(client, &address.any, &length));
		if (writes) {
			num("send", send(client, "x", 1, MSG_NOSIGNAL));
			num("send once more", send(client, "x", 1, MSG_NOSIGNAL));
		}
		num("recv", recv(client, buffer, sizeof buffer, 0));
		num("recv once more", recv(client, buffer, sizeof buffer, 0));
		num("recv at the end", recv(client, buffer, sizeof buffer, 0));
		close(client);
	}
	int client = must(socket(AF_INET, SOCK_STREAM, 0));
	must(connect_port(client, AF_INET, port_of(server)));
	int connection = must(accept(server, NULL, NULL));
	must(send(client, "urgent", 6, MSG_OOB));
	char buffer[8] = "";
	num("up to the urgent byte", recv(connection, buffer, 5, MSG_WAITALL));
	num("urgent in the stream", recv(connection, buffer + 5, 1, 0));
	say("%s", buffer);
	num("none beside it", recv(connection, buffer, 1, MSG_OOB));
}

CASE(bulk_transfer)
{
	/* Sixteen mebibytes each way at once, checked byte by byte. */
	int pair[2];
	enum { TOTAL = 16 << 20 };
	tcp_pair(AF_INET, pair);
	pid_t child = must(fork());
	int mine = pair[child == 0];
	if (must(fork()) == 0) {
		static char block[65536];
		for (long sent = 0; sent < TOTAL;) {
			for (int index = 0; index < 4096; index++)
				block[index] = (sent + index) * 31 >> 8;
			sent += must(write(mine, block, 4096 - sent % 4096 > 4096 ? 4096 : 4096 - sent % 4096));
		}
		_exit(0);
	}
	char block[65536];
	long total = 0, wrong = 0;
	while (total < TOTAL) {
		ssize_t got = must(read(mine, block, sizeof block));
		if (got == 0)
			break;
		for (ssize_t index = 0; index < got; index++, total++) {
			long start = total - total % 4096;
			wrong += block[index] != (char)((start + total % 4096) * 31 >> 8);
		}
	}
	if (child == 0)
		_exit(wrong || total != TOTAL);
	say("%ld bytes, %ld wrong", total, wrong);
	status("other side", reap(child));
}

CASE(many_connections)
{
	enum { CLIENTS = 100 };
	int server = listening(AF_INET), clients[CLIENTS], sum = 0;
	pid_t child = must(fork());
	if (child == 0) {
		int epoll = must(epoll_create1(0)), open_count = 0, closed = 0;
		struct epoll_event event = {.events = EPOLLIN, .data.fd = server}, got[16];
		must(epoll_ctl(epoll, EPOLL_CTL_ADD, server, &event));
		while (closed < CLIENTS)
			for (int index = 0, count = must(epoll_wait(epoll, got, 16, 10000)); index < count; index++) {
				char byte;
				int fd = got[index].data.fd;
				if (fd == server) {
					event.data.fd = must(accept(server, NULL, NULL));
					must(epoll_ctl(epoll, EPOLL_CTL_ADD, event.data.fd, &event));
					open_count++;
				} else if (must(read(fd, &byte, 1)) == 1) {
					byte++;
					must(write(fd, &byte, 1));
				} else {
					close(fd);
					closed++;
				}
			}
		_exit(open_count);
	}
	for (int index = 0; index < CLIENTS; index++) {
		clients[index] = must(socket(AF_INET, SOCK_STREAM, 0));
		must(connect_port(clients[index], AF_INET, port_of(server)));
		must(write(clients[index], &(char){index}, 1));
	}
	for (int index = 0; index < CLIENTS; index++) {
		char byte;
		must(read(clients[index], &byte, 1));
		sum += byte - index;
		close(clients[index]);
	}
	num("answers", sum);
	status("server", reap(child));
}

static void option(const char *name, int fd, int level, int number)
{
	int value = -1;
	socklen_t length = sizeof value;
	if (getsockopt(fd, level, number, &value, &length) == -1)
		say("%s: %s", name, error_name(errno));
	else
		say("%s: %d", name, value);
}

CASE(socket_options)
{
	int fd = must(socket(AF_INET, SOCK_STREAM, 0)), on = 1, off = 0;
	option("SO_TYPE", fd, SOL_SOCKET, SO_TYPE);
	option("SO_DOMAIN", fd, SOL_SOCKET, SO_DOMAIN);
	option("SO_PROTOCOL", fd, SOL_SOCKET, SO_PROTOCOL);
	option("SO_REUSEADDR", fd, SOL_SOCKET, SO_REUSEADDR);
	option("SO_KEEPALIVE", fd, SOL_SOCKET, SO_KEEPALIVE);
	option("SO_BROADCAST", fd, SOL_SOCKET, SO_BROADCAST);
	option("SO_OOBINLINE", fd, SOL_SOCKET, SO_OOBINLINE);
	option("SO_ACCEPTCONN", fd, SOL_SOCKET, SO_ACCEPTCONN);
	option("TCP_NODELAY", fd, IPPROTO_TCP, TCP_NODELAY);
	option("TCP_KEEPCNT", fd, IPPROTO_TCP, TCP_KEEPCNT);
	option("TCP_CORK", fd, IPPROTO_TCP, TCP_CORK);
	option("IP_TTL", fd, IPPROTO_IP, IP_TTL);
	option("IP_TOS", fd, IPPROTO_IP, IP_TOS);
	option("unknown", fd, IPPROTO_TCP, 9999);
	num("set SO_REUSEADDR", setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
	num("set SO_REUSEPORT", setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on));
	num("set SO_KEEPALIVE", setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on));
	num("set TCP_NODELAY", setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
	num("set TCP_KEEPIDLE", setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &(int){77}, sizeof on));
	num("set TCP_KEEPINTVL 0", setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &off, sizeof off));
	num("set IP_TTL 300", setsockopt(fd, IPPROTO_IP, IP_TTL, &(int){300}, sizeof on));
	num("set with a short length", setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, 1));
	num("set with a bad pointer", setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, (void *)8, 4));
	option("SO_REUSEADDR", fd, SOL_SOCKET, SO_REUSEADDR);
	option("TCP_NODELAY", fd, IPPROTO_TCP, TCP_NODELAY);
	option("TCP_KEEPIDLE", fd, IPPROTO_TCP, TCP_KEEPIDLE);
	struct linger linger = {1, 5};
	socklen_t length = sizeof linger;
	num("set SO_LINGER", setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
	linger = (struct linger){0};
	must(getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &length));
	say("SO_LINGER %d %d", linger.l_onoff, linger.l_linger);
	int v6 = must(socket(AF_INET6, SOCK_STREAM, 0));
	option("IPV6_V6ONLY", v6, IPPROTO_IPV6, IPV6_V6ONLY);
	num("set IPV6_V6ONLY", setsockopt(v6, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on));
	struct tcp_info info;
	int pair[2];
	tcp_pair(AF_INET, pair);
	length = sizeof info;
	num("TCP_INFO", getsockopt(pair[0], IPPROTO_TCP, TCP_INFO, &info, &length));
	num("state ESTABLISHED", info.tcpi_state);
}

CASE(dual_stack)
{
	union address address;
	socklen_t length = sizeof address;
	int server = must(socket(AF_INET6, SOCK_STREAM, 0));
	address.v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_addr = in6addr_any};
	must(bind(server, &address.any, sizeof address.v6));
	must(listen(server, 4));
	num("v4 client to a v6 server", connect_port(must(socket(AF_INET, SOCK_STREAM, 0)), AF_INET, port_of(server)));
	int connection = must(accept(server, &address.any, &length));
	char text[INET6_ADDRSTRLEN];
	say("peer %s", inet_ntop(AF_INET6, &address.v6.sin6_addr, text, sizeof text));
	(void)connection;
}

CASE(timeouts_and_peeks)
{
	int pair[2];
	char buffer[16] = "";
	tcp_pair(AF_INET, pair);
	struct timeval timeout = {0, 20000};
	must(setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout));
	num("recv times out", recv(pair[0], buffer, 1, 0));
	must(write(pair[1], "hello", 5));
	num("MSG_PEEK", recv(pair[0], buffer, 3, MSG_PEEK));
	num("MSG_PEEK again", recv(pair[0], buffer, 15, MSG_PEEK));
	num("recv", recv(pair[0], buffer, 15, 0));
	say("%s", buffer);
	must(send(pair[1], "!", 1, MSG_OOB));
	struct pollfd ready = {pair[0], POLLPRI, 0};
	num("urgent data", poll(&ready, 1, 10000));
	say("%#x", ready.revents);
	num("MSG_OOB", recv(pair[0], buffer, 1, MSG_OOB));
	say("%c", buffer[0]);
	timeout = (struct timeval){0, 20000};
	int server = listening(AF_INET);
	must(setsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout));
	num("accept times out", accept(server, NULL, NULL));
}

CASE(sendfile_to_tcp)
{
	static char block[1 << 20];
	int pair[2], fd = must(open("f", O_RDWR | O_CREAT, 0644));
	for (size_t index = 0; index < sizeof block; index++)
		block[index] = index * 7;
	must(write(fd, block, sizeof block));
	tcp_pair(AF_INET, pair);
	pid_t child = must(fork());
	if (child == 0) {
		off_t offset = 0;
		while (offset < (off_t)sizeof block)
			must(sendfile(pair[0], fd, &offset, sizeof block - offset));
		_exit(0);
	}
	size_t total = 0, wrong = 0;
	char got[10000];
	while (total < sizeof block) {
		ssize_t length = must(read(pair[1], got, sizeof got));
		for (ssize_t index = 0; index < length; index++, total++)
			wrong += got[index] != block[total];
	}
	say("%zu bytes, %zu wrong", total, wrong);
	reap(child);
}

CASE(messages_in_parts)
{
	char a[4] = "", b[16] = "";
	union address address, from;
	struct iovec out[2] = {{"abc", 3}, {"defgh", 5}}, in[2] = {{a, 3}, {b, 15}};
	int server = bound(AF_INET, SOCK_DGRAM), client = bound(AF_INET, SOCK_DGRAM);
	socklen_t length = loopback(AF_INET, port_of(server), &address);
	struct msghdr message = {.msg_name = &address, .msg_namelen = length, .msg_iov = out, .msg_iovlen = 2};
	num("sendmsg", sendmsg(client, &message, 0));
	message = (struct msghdr){.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = in, .msg_iovlen = 2};
	num("recvmsg", recvmsg(server, &message, 0));
	say("%s %s, name length %u", a, b, message.msg_namelen);
	must(connect(client, &address.any, length));
	struct mmsghdr many[4] = {0};
	for (int index = 0; index < 4; index++)
		many[index].msg_hdr = (struct msghdr){.msg_iov = out, .msg_iovlen = 1 + index % 2};
	num("sendmmsg", sendmmsg(client, many, 4, 0));
	for (int index = 0; index < 4; index++)
		many[index].msg_hdr = (struct msghdr){.msg_iov = in + 1, .msg_iovlen = 1};
	num("recvmmsg", recvmmsg(server, many, 4, 0, NULL));
	say("%u %u %u %u", many[0].msg_len, many[1].msg_len, many[2].msg_len, many[3].msg_len);
	union { struct cmsghdr header; char bytes[256]; } control;
	int on = 1;
	must(setsockopt(server, IPPROTO_IP, IP_PKTINFO, &on, sizeof on));
	must(send(client, "x", 1, 0));
	message = (struct msghdr){.msg_iov = in, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	must(recvmsg(server, &message, 0));
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	yes("IP_PKTINFO", header && header->cmsg_level == IPPROTO_IP && header->cmsg_type == IP_PKTINFO);
}

/* What getifaddrs(3) tells: interface, address, and the scope of one that counts on its link only. */
HELPER(addresses)
{
	struct ifaddrs *first;
	must(getifaddrs(&first));
	for (struct ifaddrs *at = first; at; at = at->ifa_next) {
		union address *address = (void *)at->ifa_addr;
		char text[INET6_ADDRSTRLEN];
		if (!address || (address->any.sa_family != AF_INET && address->any.sa_family != AF_INET6))
			continue;
		bool v4 = address->any.sa_family == AF_INET;
		inet_ntop(address->any.sa_family, v4 ? (void *)&address->v4.sin_addr : (void *)&address->v6.sin6_addr, text, sizeof text);
		unsigned scope = v4 ? 0 : address->v6.sin6_scope_id;
		say("%s %s%s%s", at->ifa_name, text, scope ? "%" : "", scope ? if_indextoname(scope, (char[IF_NAMESIZE]){0}) : "");
	}
	freeifaddrs(first);
	return 0;
}

CASE(interfaces)
{
	struct ifreq request = {0};
	int fd = must(socket(AF_INET, SOCK_DGRAM, 0));
	strcpy(request.ifr_name, "lo");
	num("SIOCGIFFLAGS", ioctl(fd, SIOCGIFFLAGS, &request));
	say("up %d loopback %d", (request.ifr_flags & IFF_UP) != 0, (request.ifr_flags & IFF_LOOPBACK) != 0);
	num("SIOCGIFADDR", ioctl(fd, SIOCGIFADDR, &request));
	char text[INET_ADDRSTRLEN];
	say("%s", inet_ntop(AF_INET, &((struct sockaddr_in *)&request.ifr_addr)->sin_addr, text, sizeof text));
	num("SIOCGIFMTU", ioctl(fd, SIOCGIFMTU, &request));
	num("mtu", request.ifr_mtu);
	num("index of lo", if_nametoindex("lo"));
	strcpy(request.ifr_name, "absent0");
	num("absent", ioctl(fd, SIOCGIFFLAGS, &request));
	helper_addresses(0, NULL);
	char link[PATH_MAX] = "";
	must(readlink("/sys/class/net/lo", link, sizeof link - 1));
	say("%s", link);
	for (const char *const *at = (const char *[]){"address", "flags", "ifindex", "mtu", "operstate", "type", NULL}; *at; at++) {
		char path[64];
		snprintf(path, sizeof path, "/sys/class/net/lo/%s", *at);
		say("%s %s", *at, get_file(path));
	}
	ok("absent", access("/sys/class/net/absent0", F_OK));
}

/* The inode number that a table of sockets has for a local port; 0 when it has none. */
static ino_t number_of_port(const char *table, int port)
{
	for (char *line = strtok(get_file(table), "\n"); line; line = strtok(NULL, "\n")) {
		unsigned local;
		unsigned long number;
		if (sscanf(line, "%*d: %*[0-9A-F]:%x %*s %*s %*s %*s %*s %*d %*d %lu", &local, &number) == 2 && (int)local == port)
			return number;
	}
	return 0;
}

CASE(numbers_of_sockets)
{
	/* By these, ss(8) and netstat(8) find the process that a socket belongs to. */
	const struct { const char *table; int family, type; } kinds[] = {
		{"/proc/net/tcp", AF_INET, SOCK_STREAM}, {"/proc/net/tcp6", AF_INET6, SOCK_STREAM},
		{"/proc/net/udp", AF_INET, SOCK_DGRAM}, {"/proc/net/udp6", AF_INET6, SOCK_DGRAM},
	};
	for (size_t i = 0; i < COUNT(kinds); i++) {
		int fd = kinds[i].type == SOCK_STREAM ? listening(kinds[i].family) : bound(kinds[i].family, kinds[i].type);
		struct stat status;
		must(fstat(fd, &status));
		yes(kinds[i].table, number_of_port(kinds[i].table, port_of(fd)) == status.st_ino);
	}
}

/* One request of rtnetlink(7), and what is answered, to the end of a dump. */
static void route_query(int fd, const char *what, int type, int family, int flags)
{
	struct { struct nlmsghdr header; struct ifaddrmsg body; } request = {
		.header = {.nlmsg_len = sizeof request, .nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | flags, .nlmsg_seq = 7},
		.body = {.ifa_family = family, .ifa_prefixlen = 32, .ifa_index = 1},
	};
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
	static char buffer[32768];
	say("%s", what);
	must(sendto(fd, &request, sizeof request, 0, (struct sockaddr *)&kernel, sizeof kernel));
	for (;;) {
		ssize_t bytes = must(recv(fd, NULL, 0, MSG_PEEK | MSG_TRUNC));
		socklen_t length = sizeof kernel;
		yes("peeked", recvfrom(fd, buffer, sizeof buffer, 0, (struct sockaddr *)&kernel, &length) == bytes);
		num("from", kernel.nl_pid);
		for (struct nlmsghdr *at = (void *)buffer; NLMSG_OK(at, (unsigned)bytes); at = NLMSG_NEXT(at, bytes)) {
			yes("sequence", at->nlmsg_seq == 7);
			if (at->nlmsg_type == NLMSG_DONE)
				return;
			if (at->nlmsg_type == NLMSG_ERROR) {
				int error = ((struct nlmsgerr *)NLMSG_DATA(at))->error;
				say("error %s", error ? error_name(-error) : "none");
				return;
			}
			struct ifaddrmsg *address = NLMSG_DATA(at);
			say("type %d, family %d, of interface 1: %s", at->nlmsg_type, address->ifa_family, address->ifa_index == 1 ? "yes" : "no");
		}
	}
}

CASE(route_queries)
{
	int fd = must(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
	struct sockaddr_nl name = {.nl_family = AF_NETLINK};
	socklen_t length = sizeof name;
	ok("bind", bind(fd, (struct sockaddr *)&name, sizeof name));
	must(getsockname(fd, (struct sockaddr *)&name, &length));
	say("family %d, %u bytes, a port: %s", name.nl_family, length, name.nl_pid ? "yes" : "no");
	route_query(fd, "addresses", RTM_GETADDR, AF_INET, NLM_F_DUMP);
	route_query(fd, "addresses, version 6", RTM_GETADDR, AF_INET6, NLM_F_DUMP);
	route_query(fd, "an address to be added", RTM_NEWADDR, AF_INET, NLM_F_ACK | NLM_F_CREATE);
	route_query(fd, "no such type", RTM_MAX + 1, AF_UNSPEC, NLM_F_ACK);
	ok("SOCK_STREAM", socket(AF_NETLINK, SOCK_STREAM, NETLINK_ROUTE));
}

CASE(inherited_and_passed)
{
	/* An accepted socket in another process, after an execution, still works. */
	int pair[2];
	char number[12];
	tcp_pair(AF_INET, pair);
	snprintf(number, sizeof number, "%d", pair[1]);
	char *args[] = {"x", "@answer", number, NULL};
	pid_t child = must(fork());
	if (child == 0) {
		execv(SELF, args);
		_exit(127);
	}
	close(pair[1]);
	char buffer[16] = "";
	must(write(pair[0], "question", 8));
	must(read(pair[0], buffer, 15));
	say("%s", buffer);
	status("child", reap(child));
	num("end after the child's exit", read(pair[0], buffer, 1));
}

HELPER(answer)
{
	char buffer[16];
	(void)argc;
	must(read(atoi(argv[0]), buffer, 8));
	must(write(atoi(argv[0]), "answer", 6));
	return 0;
}

CASE(connect_again)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(address);
	int closed = must(socket(AF_INET, SOCK_STREAM, 0)), fd = must(socket(AF_INET, SOCK_STREAM, 0));
	must(bind(closed, (struct sockaddr *)&address, length));
	must(getsockname(closed, (struct sockaddr *)&address, &length));
	ok("nobody listens", connect(fd, (struct sockaddr *)&address, length));
	ok("again", connect(fd, (struct sockaddr *)&address, length));
	struct sockaddr other = {.sa_family = 47};
	ok("of another family", connect(fd, &other, sizeof(other)));
	must(listen(closed, 1));
	ok("somebody listens", connect(fd, (struct sockaddr *)&address, length));
}

CASE(unknown_options)
{
	int value = 0, tcp = must(socket(AF_INET, SOCK_STREAM, 0)), udp = must(socket(AF_INET, SOCK_DGRAM, 0));
	socklen_t length = sizeof(value);
	ok("no such level", getsockopt(tcp, 500, 1, &value, &length));
	ok("another protocol's", getsockopt(tcp, IPPROTO_UDP, 1, &value, &length));
	ok("TCP's of UDP", getsockopt(udp, IPPROTO_TCP, 1, &value, &length));
	ok("no such option of IP", getsockopt(tcp, IPPROTO_IP, -1, &value, &length));
	ok("nor of TCP", getsockopt(tcp, IPPROTO_TCP, -1, &value, &length));
	ok("setting a level", setsockopt(tcp, 500, 1, &value, length));
	ok("setting an option", setsockopt(tcp, IPPROTO_TCP, -1, &value, length));
}
