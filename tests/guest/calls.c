/* System calls that the C library makes no more, or no other case reaches: each succeeds once and fails once. */
#include "guest.h"

#include <linux/futex.h>
#include <linux/mempolicy.h>
#include <linux/seccomp.h>
#include <mqueue.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/msg.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <utime.h>

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif
#define CALL(name, ...) ok(#name, syscall(SYS_##name, ##__VA_ARGS__))

CASE(files_by_their_old_names)
{
	struct stat found;
	CALL(creat, "f", 0644);
	CALL(creat, "absent/f", 0644);
	CALL(open, "f", O_RDONLY, 0);
	CALL(open, "absent", O_RDONLY, 0);
	CALL(stat, "f", &found);
	CALL(stat, "absent", &found);
	CALL(lstat, "f", &found);
	CALL(lstat, "absent", &found);
	CALL(fstat, 0, &found);
	CALL(fstat, 999, &found);
	CALL(mknod, "node", S_IFREG | 0600, 0);
	CALL(mknod, "node", S_IFREG | 0600, 0);
	CALL(symlinkat, "f", AT_FDCWD, "link");
	CALL(symlinkat, "f", AT_FDCWD, "link");
	CALL(renameat, AT_FDCWD, "node", AT_FDCWD, "moved");
	CALL(renameat, AT_FDCWD, "node", AT_FDCWD, "moved");
	CALL(faccessat, AT_FDCWD, "f", R_OK);
	CALL(faccessat, AT_FDCWD, "absent", R_OK);
	CALL(fchmodat2, AT_FDCWD, "f", 0600, 0);
	CALL(fchmodat2, AT_FDCWD, "absent", 0600, 0);
	CALL(fchmodat2, AT_FDCWD, "f", 0600, 1);
	char records[512];
	int folder = must(open(".", O_RDONLY | O_DIRECTORY));
	yes("getdents", syscall(SYS_getdents, folder, records, sizeof(records)) > 0);
	CALL(getdents, 999, records, sizeof(records));
	struct iovec vector = {records, 4};
	int fd = must(open("f", O_RDWR));
	num("readv", syscall(SYS_readv, fd, &vector, 1));
	CALL(readv, 999, &vector, 1);
}

CASE(file_times)
{
	put_file("f", "");
	struct utimbuf whole = {.actime = 1000, .modtime = 2000};
	struct timeval fine[2] = {{3000, 5}, {4000, 6}}, wrong[2] = {{0, 0}, {0, 1000000}};
	struct stat found;
	CALL(utime, "f", &whole);
	CALL(utime, "absent", &whole);
	must(stat("f", &found));
	say("%ld %ld", (long)found.st_atim.tv_sec, (long)found.st_mtim.tv_sec);
	CALL(utimes, "f", fine);
	CALL(utimes, "f", wrong);
	CALL(futimesat, AT_FDCWD, "f", fine);
	CALL(futimesat, AT_FDCWD, "absent", fine);
	must(stat("f", &found));
	say("%ld.%09ld", (long)found.st_mtim.tv_sec, found.st_mtim.tv_nsec);
}

CASE(attributes_by_every_way)
{
	char value[8];
	put_file("f", "");
	must(symlink("f", "link"));
	int fd = must(open("f", O_RDWR));
	must(setxattr("f", "user.a", "1", 1, 0));
	num("fgetxattr", fgetxattr(fd, "user.a", value, 8));
	num("fgetxattr of an absent one", fgetxattr(fd, "user.b", value, 8));
	num("lgetxattr", lgetxattr("f", "user.a", value, 8));
	num("lgetxattr of an absent one", lgetxattr("f", "user.b", value, 8));
	yes("flistxattr", flistxattr(fd, NULL, 0) >= 7);
	num("flistxattr without descriptor", flistxattr(999, NULL, 0));
	yes("llistxattr", llistxattr("f", NULL, 0) >= 7);
	num("llistxattr of nothing", llistxattr("absent", NULL, 0));
	num("lsetxattr", lsetxattr("f", "user.c", "2", 1, 0));
	num("lsetxattr on a link", lsetxattr("link", "user.c", "2", 1, 0));
	num("lremovexattr", lremovexattr("f", "user.c"));
	num("lremovexattr again", lremovexattr("f", "user.c"));
	num("fremovexattr", fremovexattr(fd, "user.a"));
	num("fremovexattr again", fremovexattr(fd, "user.a"));
}

CASE(descriptors_by_their_old_names)
{
	int fds[2];
	CALL(pipe, fds);
	CALL(pipe, NULL);
	yes("epoll_create", syscall(SYS_epoll_create, 1) >= 0);
	CALL(epoll_create, 0);
	uint64_t mask = 1 << (SIGUSR1 - 1);
	yes("signalfd", syscall(SYS_signalfd, -1, &mask, 8) >= 0);
	CALL(signalfd, -1, &mask, 4);
	fd_set set;
	struct timeval none = {0, 0};
	FD_ZERO(&set);
	FD_SET(fds[0], &set);
	num("select", syscall(SYS_select, fds[0] + 1, &set, NULL, NULL, &none));
	CALL(select, -1, NULL, NULL, NULL, &none);
	struct rlimit limit;
	CALL(getrlimit, RLIMIT_NOFILE, &limit);
	CALL(getrlimit, 99, &limit);
	limit.rlim_cur = 3;
	CALL(setrlimit, RLIMIT_NOFILE, &limit);
	CALL(setrlimit, 99, &limit);
	CALL(eventfd, 0);
	CALL(inotify_init);
}

CASE(identity)
{
	pid_t child = syscall(SYS_fork);
	if (child == 0)
		_exit(3);
	status("fork", reap(child));
	CALL(setgid, 1000);
	CALL(setuid, 1000);
	CALL(setgid, 0);
	CALL(setregid, -1, 0);
	CALL(setreuid, -1, 0);
	CALL(setgid, -1);
	CALL(unshare, CLONE_FILES | CLONE_FS);
	CALL(unshare, 1);
	CALL(mount, "none", "/", "tmpfs", 0, NULL);
	CALL(umount2, "/", 0);
	CALL(pivot_root, "/", "/");
	CALL(sethostname, "x", 1);
	CALL(setdomainname, "x", 1);
}

CASE(scheduling)
{
	struct sched_param parameters = {0};
	struct timespec interval;
	struct { uint32_t size, policy; uint64_t flags; int32_t nice; uint32_t priority; uint64_t deadline[3]; } attributes;
	CALL(sched_setparam, 0, &parameters);
	parameters.sched_priority = 7;
	CALL(sched_setparam, 0, &parameters);
	CALL(sched_rr_get_interval, 0, &interval);
	CALL(sched_rr_get_interval, -1, &interval);
	CALL(sched_getattr, 0, &attributes, sizeof(attributes), 0);
	CALL(sched_getattr, 0, &attributes, 4, 0);
	attributes.size = sizeof(attributes);
	CALL(sched_setattr, 0, &attributes, 0);
	attributes.policy = 77;
	CALL(sched_setattr, 0, &attributes, 0);
	struct timex times = {0};
	yes("adjtimex", syscall(SYS_adjtimex, &times) >= 0);
	CALL(adjtimex, NULL);
	uint32_t action = SECCOMP_RET_ALLOW;
	CALL(seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action);
	CALL(seccomp, 99, 0, NULL);
}

CASE(memory_policies)
{
	char *page = must_map(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	int mode = -1;
	CALL(set_mempolicy, MPOL_DEFAULT, NULL, 0);
	CALL(set_mempolicy, 99, NULL, 0);
	CALL(get_mempolicy, &mode, NULL, 0, NULL, 0);
	num("mode", mode);
	CALL(get_mempolicy, &mode, NULL, 0, NULL, 99);
	CALL(mbind, page, 4096, MPOL_DEFAULT, NULL, 0, 0);
	CALL(mbind, page + 1, 4096, MPOL_DEFAULT, NULL, 0, 0);
	CALL(mlock2, page, 4096, 0);
	CALL(mlock2, page, 4096, 99);
	CALL(mlockall, MCL_FUTURE);
	CALL(mlockall, 0);
	CALL(munlockall);
	CALL(pkey_mprotect, page, 4096, PROT_READ, -1);
	CALL(pkey_mprotect, page + 1, 4096, PROT_READ, -1);
	CALL(pkey_alloc, 1, 0);
	CALL(pkey_free, 99);
}

CASE(waiting)
{
	struct { uint64_t value, address; uint32_t flags, reserved; } waiter;
	uint32_t *word = shared_page();
	waiter.value = 0;
	waiter.address = (uintptr_t)word;
	waiter.flags = 2;
	waiter.reserved = 0;
	pid_t child = must(fork());
	if (child == 0) {
		num("futex_waitv", syscall(SYS_futex_waitv, &waiter, 1, 0, NULL, 0));
		_exit(0);
	}
	until_asleep(child);
	must(syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0));
	reap(child);
	waiter.value = 1;
	CALL(futex_waitv, &waiter, 1, 0, NULL, 0);
	int set = must(semget(IPC_PRIVATE, 1, 0600));
	struct sembuf up = {.sem_op = 1}, nowhere = {.sem_num = 9};
	CALL(semop, set, &up, 1);
	CALL(semop, set, &nowhere, 1);
	must(semctl(set, 0, IPC_RMID));
	CALL(msgget, 0x7654321, 0);
	mqd_t queue = must(mq_open("/calls", O_RDWR | O_CREAT, 0600, NULL));
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
	CALL(mq_notify, queue, &event);
	CALL(mq_notify, queue, &event);
	must(mq_unlink("/calls"));
	int id;
	event.sigev_signo = SIGUSR2;
	CALL(timer_create, CLOCK_MONOTONIC, &event, &id);
	num("timer_getoverrun", syscall(SYS_timer_getoverrun, id));
	CALL(timer_getoverrun, 999);
}
