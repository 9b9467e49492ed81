// setsockopt(2) of what takes a capability: each option, its error or the value that is there then.

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static const struct option {
	const char *name;
	int level, number, value;
} OPTIONS[] = {
    {"SO_MARK", SOL_SOCKET, SO_MARK, 77},
    {"SO_PRIORITY 6", SOL_SOCKET, SO_PRIORITY, 6},
    {"SO_PRIORITY 7", SOL_SOCKET, SO_PRIORITY, 7},
    {"SO_RCVBUFFORCE", SOL_SOCKET, SO_RCVBUFFORCE, 1 << 20},
    {"SO_SNDBUFFORCE", SOL_SOCKET, SO_SNDBUFFORCE, 1 << 20},
    {"SO_BUSY_POLL", SOL_SOCKET, SO_BUSY_POLL, 50},
    {"IP_TRANSPARENT", IPPROTO_IP, IP_TRANSPARENT, 1},
    {"IP_TRANSPARENT off", IPPROTO_IP, IP_TRANSPARENT, 0},
    {"IPV6_TRANSPARENT", IPPROTO_IPV6, IPV6_TRANSPARENT, 1},
};

static void try(int family, int kind)
{
	int socket_ = socket(family, kind, 0);
	for (size_t i = 0; i < sizeof(OPTIONS) / sizeof(*OPTIONS); i++) {
		const struct option *option = OPTIONS + i;
		if (option->level == IPPROTO_IPV6 && family != AF_INET6)
			continue;
		int set = setsockopt(socket_, option->level, option->number, &option->value, sizeof(int));
		printf("%d %d %s: %s", family, kind, option->name, set ? strerror(errno) : "set");
		int value = 0;
		socklen_t length = sizeof(value);
		if (option->number != SO_RCVBUFFORCE && option->number != SO_SNDBUFFORCE &&
		    !getsockopt(socket_, option->level, option->number, &value, &length))
			printf(", %d", value);
		printf("\n");
	}
}

int main(void)
{
	try(AF_INET, SOCK_STREAM);
	try(AF_INET, SOCK_DGRAM);
	try(AF_INET6, SOCK_DGRAM);
	return 0;
}
