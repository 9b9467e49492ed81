/* The rest: uname(2), sysinfo(2), getrandom(2), System V IPC (svipc(7)), POSIX message queues (mq_overview(7)), unknown calls. */
#include "guest.h"

#include <mqueue.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/personality.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

CASE(system_names)
{
	struct utsname names;
	must(uname(&names));
	say("%s %s %s", names.sysname, names.nodename, names.machine);
	int major = 0, minor = 0;
	yes("release is a version", sscanf(names.release, "%d.%d", &major, &minor) == 2 && major >= 5);
	num("bad pointer", syscall(SYS_uname, 8));
}

CASE(system_information)
{
	struct sysinfo info;
	num("sysinfo", sysinfo(&info));
	yes("sensible", info.uptime > 0 && info.totalram > 1 << 20 && info.procs >= 1 && info.mem_unit >= 1);
	num("bad pointer", syscall(SYS_sysinfo, 8));
	yes("sysconf processors", sysconf(_SC_NPROCESSORS_ONLN) >= 1);
	num("page size", sysconf(_SC_PAGESIZE));
	num("personality", personality(0xffffffff));
	unsigned cpu = 99, node = 99;
	num("getcpu", syscall(SYS_getcpu, &cpu, &node, NULL));
	yes("in range", cpu < 4096 && node < 64);
}

CASE(unknown_calls)
{
	num("511", syscall(511));
	num("1000", syscall(1000));
	num("-1", syscall(-1L));
	num("create_module", syscall(SYS_create_module, "x", 1));
	num("tuxcall", syscall(184));
}

CASE(many_calls)
{
	/* Every system call number with arguments of -1: errors, no crash. Dangerous ones are left out. */
	static const int leave_out[] = {SYS_exit, SYS_exit_group, SYS_pause, SYS_rt_sigreturn, SYS_fork, SYS_vfork, SYS_clone, SYS_clone3,
		SYS_kill, SYS_tkill, SYS_tgkill, SYS_vhangup, SYS_alarm, SYS_setsid, SYS_sync, SYS_rt_sigsuspend, SYS_wait4, SYS_waitid,
		SYS_select, SYS_poll, SYS_ppoll, SYS_pselect6, SYS_close_range, SYS_brk, SYS_munmap, SYS_umask, SYS_prctl, SYS_arch_prctl,
		SYS_sched_setaffinity, SYS_rseq, SYS_set_robust_list, SYS_set_tid_address, SYS_personality, SYS_setuid, SYS_setgid,
		SYS_seccomp, SYS_ptrace, SYS_restart_syscall, SYS_futex, SYS_mlockall, SYS_unshare, SYS_modify_ldt, SYS_nanosleep};
	pid_t child = must(fork());
	if (child == 0) {
		int done = 0;
		for (int number = 0; number < 450; number++) {
			bool skip = number >= 335 && number < 424;
			for (size_t index = 0; index < COUNT(leave_out); index++)
				skip |= number == leave_out[index];
			if (skip)
				continue;
			syscall(number, -1L, -1L, -1L, -1L, -1L, -1L);
			done++;
		}
		_exit(done > 200 ? 0 : 1);
	}
	status("child", reap(child));
}

CASE(shared_memory_segments)
{
	int segment = must(shmget(IPC_PRIVATE, 8192, IPC_CREAT | 0600));
	struct shmid_ds info;
	char *memory = must_map(shmat(segment, NULL, 0));
	pid_t child = must(fork());
	if (child == 0) {
		strcpy(memory, "from the child");
		_exit(0);
	}
	reap(child);
	say("%s", memory);
	must(shmctl(segment, IPC_STAT, &info));
	say("size %zu attached %lu", info.shm_segsz, (unsigned long)info.shm_nattch);
	char *again = must_map(shmat(segment, NULL, SHM_RDONLY));
	say("%s", again);
	num("shmdt", shmdt(again));
	num("shmdt again", shmdt(again));
	num("IPC_RMID", shmctl(segment, IPC_RMID, NULL));
	say("still attached: %s", memory);
	shmdt(memory);
	num("then gone", shmctl(segment, IPC_STAT, &info));
	int key = must(shmget(0x1234, 4096, IPC_CREAT | IPC_EXCL | 0600));
	num("IPC_EXCL", shmget(0x1234, 4096, IPC_CREAT | IPC_EXCL | 0600));
	num("too big for it", shmget(0x1234, 8192, 0));
	num("the same", shmget(0x1234, 0, 0) - key);
	shmctl(key, IPC_RMID, NULL);
	num("absent", shmget(0x1234, 0, 0));
}

CASE(semaphores)
{
	int set = must(semget(IPC_PRIVATE, 2, IPC_CREAT | 0600));
	unsigned short values[2] = {1, 5};
	union { int value; unsigned short *array; } argument = {.array = values};
	must(semctl(set, 0, SETALL, argument));
	num("GETVAL", semctl(set, 1, GETVAL));
	struct sembuf both[2] = {{0, -1, 0}, {1, -5, 0}};
	num("both at once", semop(set, both, 2));
	num("IPC_NOWAIT", semop(set, &(struct sembuf){0, -1, IPC_NOWAIT}, 1));
	num("wait for zero", semop(set, &(struct sembuf){0, 0, 0}, 1));
	num("timeout", semtimedop(set, &(struct sembuf){0, -1, 0}, 1, &(struct timespec){0, 1000000}));
	pid_t child = must(fork());
	if (child == 0) {
		must(semop(set, &(struct sembuf){0, 3, SEM_UNDO}, 1));
		_exit(0);
	}
	reap(child);
	num("SEM_UNDO took it back", semctl(set, 0, GETVAL));
	child = must(fork());
	if (child == 0) {
		num("child waits", semop(set, &(struct sembuf){0, -2, 0}, 1));
		_exit(0);
	}
	until_asleep(child);
	num("GETNCNT", semctl(set, 0, GETNCNT));
	must(semop(set, &(struct sembuf){0, 2, 0}, 1));
	reap(child);
	num("bad number", semop(set, &(struct sembuf){7, 1, 0}, 1));
	num("IPC_RMID", semctl(set, 0, IPC_RMID));
	num("gone", semop(set, &(struct sembuf){0, 1, 0}, 1));
}

CASE(message_queues)
{
	struct { long type; char text[32]; } message = {2, "second"};
	int queue = must(msgget(IPC_PRIVATE, IPC_CREAT | 0600));
	must(msgsnd(queue, &message, 7, 0));
	message.type = 1;
	strcpy(message.text, "first");
	must(msgsnd(queue, &message, 6, 0));
	num("by type", msgrcv(queue, &message, 32, 1, 0));
	say("%s", message.text);
	num("any", msgrcv(queue, &message, 32, 0, 0));
	say("%s", message.text);
	num("none", msgrcv(queue, &message, 32, 0, IPC_NOWAIT));
	must(msgsnd(queue, &message, 7, 0));
	num("too small", msgrcv(queue, &message, 2, 0, 0));
	num("cut", msgrcv(queue, &message, 2, 0, MSG_NOERROR));
	num("type 0", (message.type = 0, msgsnd(queue, &message, 1, 0)));
	num("IPC_RMID", msgctl(queue, IPC_RMID, NULL));
}

CASE(posix_message_queues)
{
	struct mq_attr attributes = {.mq_maxmsg = 4, .mq_msgsize = 32};
	char buffer[32] = "";
	unsigned priority;
	mqd_t queue = mq_open("/test", O_CREAT | O_EXCL | O_RDWR | O_NONBLOCK, 0600, &attributes);
	if (ok("mq_open", queue) < 0)
		return;
	num("again", mq_open("/test", O_CREAT | O_EXCL | O_RDWR, 0600, &attributes));
	num("low", mq_send(queue, "low", 4, 1));
	num("high", mq_send(queue, "high", 5, 9));
	num("receive", mq_receive(queue, buffer, 32, &priority));
	say("%s %u", buffer, priority);
	must(mq_getattr(queue, &attributes));
	say("maxmsg %ld msgsize %ld curmsgs %ld", attributes.mq_maxmsg, attributes.mq_msgsize, attributes.mq_curmsgs);
	num("too long", mq_send(queue, "x", 100, 1));
	num("buffer too small", mq_receive(queue, buffer, 4, NULL));
	num("unlink", mq_unlink("/test"));
	num("absent", mq_open("/test", O_RDWR));
}

CASE(posix_shared_memory)
{
	int fd = must(shm_open("/segment", O_CREAT | O_EXCL | O_RDWR, 0600));
	must(ftruncate(fd, 4096));
	char *memory = must_map(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	pid_t child = must(fork());
	if (child == 0) {
		int again = must(shm_open("/segment", O_RDWR, 0));
		char *there = must_map(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, again, 0));
		strcpy(there, "through /dev/shm");
		_exit(0);
	}
	reap(child);
	say("%s", memory);
	num("in /dev/shm", access("/dev/shm/segment", F_OK));
	num("shm_unlink", shm_unlink("/segment"));
	num("absent", shm_open("/segment", O_RDWR, 0));
}

CASE(sysv_ids)
{
	struct msqid_ds queue;
	struct shmid_ds segment;
	struct semid_ds set;
	int id = must(msgget(IPC_PRIVATE, 0600)), shm = must(shmget(IPC_PRIVATE, 4096, 0600)), sem = must(semget(IPC_PRIVATE, 1, 0600));
	yes("MSG_STAT takes an id too", msgctl(id, MSG_STAT, &queue) == id);
	yes("SHM_STAT", shmctl(shm, SHM_STAT, &segment) == shm);
	yes("SEM_STAT", semctl(sem, 0, SEM_STAT, &set) == sem);
	must(msgctl(id, IPC_RMID, NULL));
	ok("after removal", msgctl(id, IPC_STAT, &queue));
	yes("the slot is used again, under another id", must(msgget(IPC_PRIVATE, 0600)) != id);
	int key = must(semget(0x1234567, 2, IPC_CREAT | 0600));
	ok("more than it has", semget(0x1234567, 3, 0600));
	yes("found by its key", semget(0x1234567, 2, 0600) == key);
	must(semctl(key, 0, IPC_RMID));
	ok("gone with it", semget(0x1234567, 2, 0600));
	ok("attached over nothing", (long)shmat(shm, (void *)16, SHM_RND | SHM_REMAP));
	must(shmctl(shm, IPC_RMID, NULL));
	must(semctl(sem, 0, IPC_RMID));
}

/* The line of an object in /proc/sysvipc, as far as it is the same everywhere. */
static void show_ipc(const char *kind, int id)
{
	char path[64], line[512];
	snprintf(path, sizeof path, "/proc/sysvipc/%s", kind);
	FILE *file = fopen(path, "r");
	while (file && fgets(line, sizeof line, file)) {
		int key, known, used;
		unsigned long first, second;
		char mode[16];
		if (sscanf(line, "%d %d %15s %lu %lu%n", &key, &known, mode, &first, &second, &used) == 5 && known == id)
			say("%s: key %d, mode %s, %lu, %lu, %zu columns of text", kind, key, mode, first, strcmp(kind, "msg") ? 0 : second, strlen(line));
	}
	if (file)
		fclose(file);
}

CASE(sysv_tables)
{
	/* Where ipcs(1) finds what there is. */
	struct { long kind; char text[5]; } message = {1, "text"};
	int queue = must(msgget(IPC_PRIVATE, 0640)), segment = must(shmget(IPC_PRIVATE, 12345, 0600)), set = must(semget(0x7654321, 3, IPC_CREAT | 0660));
	must(msgsnd(queue, &message, 5, 0));
	show_ipc("msg", queue);
	show_ipc("shm", segment);
	show_ipc("sem", set);
	must(msgctl(queue, IPC_RMID, NULL));
	must(shmctl(segment, IPC_RMID, NULL));
	must(semctl(set, 0, IPC_RMID));
	show_ipc("msg", queue);
	show_ipc("shm", segment);
	show_ipc("sem", set);
}

CASE(sysinfo_uptime)
{
	struct sysinfo info;
	must(sysinfo(&info));
	long shown = atol(get_file("/proc/uptime"));
	yes("agrees with /proc/uptime", shown - info.uptime <= 1 && info.uptime - shown <= 1);
}
