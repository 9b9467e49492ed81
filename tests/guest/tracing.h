/* What a tracer says about the stops that it waits for. */
#pragma once
#include "guest.h"

#include <sys/ptrace.h>

#define SYSGOOD_TRAP (SIGTRAP | 0x80)
#define CALL(...) ptrace(__VA_ARGS__)

static inline int wait_for(pid_t child)
{
	int wait_status = 0;
	must(waitpid(child, &wait_status, __WALL));
	return wait_status;
}

/* A stop as text: its signal, and the event if there is one. */
static inline void stopped(const char *what, int wait_status)
{
	static const char *const events[] = {"", " fork", " vfork", " clone", " exec", " vfork-done", " exit", " seccomp"};
	int event = wait_status >> 16;
	if (!WIFSTOPPED(wait_status))
		return status(what, wait_status);
	bool good = WSTOPSIG(wait_status) == SYSGOOD_TRAP;
	say("%s: stopped %s%s%s", what, good ? "call" : signal_name(WSTOPSIG(wait_status)),
	    event == 0 ? "" : event < 8 ? events[event] : event == 128 ? " stop" : " ?", event ? " (event)" : "");
}

static inline void go(enum __ptrace_request how, pid_t child, int number)
{
	must(ptrace(how, child, 0, number));
}
