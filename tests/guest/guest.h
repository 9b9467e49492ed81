/*
 * Harness of the guest programs.
 *
 * A guest program is a list of CASEs. Run without arguments it runs every case in a child of its own, in a fresh folder
 * of its own below the working directory, and prints
 *
 *     == NAME
 *     ... the lines of the case ...
 *     -- exit 0            (or: -- signal SIGSEGV, -- timeout)
 *
 * What a case prints must be the same on every run and on every machine: results and errno names, never addresses,
 * process ids, times or the order in which independent tasks happened to run. Linux itself is the oracle: the output of
 * a native run is the expected output (see test_oracle.py), so a case states facts by printing them.
 *
 * Lines leave by one write(2) each, so that a case that dies or forks loses and repeats nothing.
 */
#ifndef LITEBOX_GUEST_H
#define LITEBOX_GUEST_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct guest_entry {
	const char *name;
	void (*run)(void);                /* a case */
	int (*help)(int argc, char **argv); /* a helper: what the program does when executed as `PROGRAM @NAME ...` */
	struct guest_entry *next;
};
void guest_register(struct guest_entry *entry);

#define CASE(id)                                                                      \
	static void case_##id(void);                                                  \
	static struct guest_entry entry_##id = {.name = #id, .run = case_##id};       \
	__attribute__((constructor)) static void register_##id(void) { guest_register(&entry_##id); } \
	static void case_##id(void)

#define HELPER(id)                                                                    \
	static int helper_##id(int argc, char **argv);                                \
	static struct guest_entry helper_entry_##id = {.name = #id, .help = helper_##id}; \
	__attribute__((constructor)) static void register_helper_##id(void) { guest_register(&helper_entry_##id); } \
	static int helper_##id(__attribute__((unused)) int argc, __attribute__((unused)) char **argv)

#define SELF "/proc/self/exe"
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define ALIGNED_PAGE __attribute__((aligned(4096)))

/* Prints one line. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Prints "WHAT: ok", or "WHAT: ENOENT" when the result is -1. Returns the result. */
long ok(const char *what, long result);
/* Prints "WHAT: 42", or "WHAT: ENOENT" when the result is -1. Returns the result. */
long num(const char *what, long result);
/* Prints "WHAT: yes" or "WHAT: no". */
bool yes(const char *what, bool fact);
/* Prints a wait status: "WHAT: exit 3", "WHAT: killed SIGKILL", "WHAT: stopped SIGSTOP", "WHAT: continued". */
void status(const char *what, int wait_status);
/* Set-up that must succeed: ends the case with a message when the result is -1. */
#define must(call) guest_must((long)(call), #call, __LINE__)
long guest_must(long result, const char *call, int line);
#define must_map(call) guest_must_map((call), #call, __LINE__)
void *guest_must_map(void *result, const char *call, int line);

const char *error_name(int error);
const char *signal_name(int number); /* "SIGUSR1", "SIGRTMIN+2", "0" */
void nap(int milliseconds);
int64_t now_ms(void); /* CLOCK_MONOTONIC */
/* Writes a file whole; reads a file whole (into a static buffer, ended by NUL). */
void put_file(const char *path, const char *text);
char *get_file(const char *path);
/* Waits for that child and returns its status. */
int reap(pid_t child);
/* Waits until the task is asleep (state S in its /proc stat), at most two seconds. */
void until_asleep(pid_t process);
void until_task_asleep(pid_t process, pid_t thread);
/* Waits until *word is no longer `old`, at most ten seconds; returns whether it changed. */
bool until_changed(const volatile int *word, int old);
/* Shared anonymous memory of one page, zeroed. */
void *shared_page(void);
/* A pair of pipes to hand the turn between two processes. */
struct turn { int fds[2]; };
struct turn turn_new(void);
void turn_give(struct turn turn);
void turn_take(struct turn turn);
/* Installs a handler without SA_RESTART, or with the flags given. */
void on_signal(int number, void (*handler)(int), int flags);
void on_siginfo(int number, void (*handler)(int, siginfo_t *, void *), int flags);
void block_signal(int number);
void unblock_signal(int number);

#endif
