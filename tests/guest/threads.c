/* Threads: pthreads(7), futex(2), set_robust_list(2), rseq(2), membarrier(2), sched_setaffinity(2). */
#include "guest.h"

#include <linux/futex.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/mman.h>
#include <sys/prctl.h>

static long futex(volatile int *word, int operation, int value, const void *timeout_or_value2, volatile int *word2, int value3)
{
	return syscall(SYS_futex, word, operation, value, timeout_or_value2, word2, value3);
}

static pthread_t start(void *(*entry)(void *), void *argument)
{
	pthread_t thread;
	int error = pthread_create(&thread, NULL, entry, argument);

	errno = error;
	must(error ? -1 : 0);
	return thread;
}

static void *double_it(void *argument)
{
	return (void *)((intptr_t)argument * 2);
}

CASE(create_and_join)
{
	intptr_t sum = 0;
	pthread_t threads[40];

	for (intptr_t index = 0; index < 40; index++)
		threads[index] = start(double_it, (void *)index);
	for (int index = 0; index < 40; index++) {
		void *result;
		pthread_join(threads[index], &result);
		sum += (intptr_t)result;
	}
	say("sum %ld", (long)sum);
}

CASE(create_and_join_in_sequence)
{
	intptr_t sum = 0;

	for (intptr_t index = 0; index < 500; index++) {
		void *result;
		pthread_join(start(double_it, (void *)index), &result);
		sum += (intptr_t)result;
	}
	say("sum %ld", (long)sum);
}

static void *ids(void *argument)
{
	long *out = argument;
	out[0] = getpid();
	out[1] = gettid();
	out[2] = getppid();
	return NULL;
}

CASE(thread_ids)
{
	long there[3];
	pthread_join(start(ids, there), NULL);
	yes("same getpid", there[0] == getpid());
	yes("same getppid", there[2] == getppid());
	yes("another gettid", there[1] != gettid());
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static long counter;

static void *count(void *argument)
{
	for (int turn = 0; turn < 20000; turn++) {
		pthread_mutex_lock(&mutex);
		counter++;
		pthread_mutex_unlock(&mutex);
	}
	return argument;
}

CASE(mutex_excludes)
{
	pthread_t threads[4];
	for (int index = 0; index < 4; index++)
		threads[index] = start(count, NULL);
	for (int index = 0; index < 4; index++)
		pthread_join(threads[index], NULL);
	say("counter %ld", counter);
}

static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static int stage;

static void *next_stage(void *argument)
{
	pthread_mutex_lock(&mutex);
	while (stage != (intptr_t)argument)
		pthread_cond_wait(&condition, &mutex);
	say("stage %d", stage);
	stage++;
	pthread_cond_broadcast(&condition);
	pthread_mutex_unlock(&mutex);
	return NULL;
}

CASE(condition_variable)
{
	pthread_t threads[8];
	for (intptr_t index = 7; index >= 0; index--)
		threads[index] = start(next_stage, (void *)index);
	for (int index = 0; index < 8; index++)
		pthread_join(threads[index], NULL);
}

static pthread_barrier_t barrier;
static int serial;

static void *meet(void *argument)
{
	for (int round = 0; round < 100; round++)
		if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD)
			__atomic_add_fetch(&serial, 1, __ATOMIC_SEQ_CST);
	return argument;
}

CASE(barrier_and_semaphore)
{
	pthread_t threads[3];
	pthread_barrier_init(&barrier, NULL, 3);
	for (int index = 0; index < 3; index++)
		threads[index] = start(meet, NULL);
	for (int index = 0; index < 3; index++)
		pthread_join(threads[index], NULL);
	say("one serial thread a round: %d", serial);

	sem_t *semaphore = shared_page();
	must(sem_init(semaphore, 1, 0));
	pid_t child = must(fork());
	if (child == 0) {
		sem_post(semaphore);
		_exit(0);
	}
	num("sem_wait across processes", sem_wait(semaphore));
	num("sem_trywait", sem_trywait(semaphore));
	struct timespec soon;
	clock_gettime(CLOCK_REALTIME, &soon);
	soon.tv_nsec += 10000000;
	if (soon.tv_nsec >= 1000000000) {
		soon.tv_sec++;
		soon.tv_nsec -= 1000000000;
	}
	num("sem_timedwait", sem_timedwait(semaphore, &soon));
	reap(child);
}

static _Thread_local int local = 5;

static void *change_local(void *argument)
{
	local += 10;
	*(int *)argument = local;
	return NULL;
}

CASE(thread_local_storage)
{
	int there = 0;
	local = 6;
	pthread_join(start(change_local, &there), NULL);
	say("there %d here %d", there, local);
}

static void *cancelled(void *argument)
{
	turn_give(*(struct turn *)argument);
	for (;;)
		pause();
	return NULL;
}

CASE(cancellation)
{
	void *result;
	struct turn turn = turn_new();
	pthread_t thread = start(cancelled, &turn);
	turn_take(turn);
	pthread_cancel(thread);
	pthread_join(thread, &result);
	yes("cancelled in pause", result == PTHREAD_CANCELED);
}

CASE(futex_wait_value_differs)
{
	int word = 1;
	struct timespec nothing = {0, 1000000};
	num("FUTEX_WAIT of another value", futex(&word, FUTEX_WAIT, 2, NULL, NULL, 0));
	num("FUTEX_WAIT times out", futex(&word, FUTEX_WAIT, 1, &nothing, NULL, 0));
	num("FUTEX_WAKE nobody", futex(&word, FUTEX_WAKE, 1, NULL, NULL, 0));
}

CASE(futex_errors)
{
	static int words[4];
	struct timespec bad = {0, 1000000000}, negative = {-1, 0};
	num("unaligned", futex((int *)((char *)words + 1), FUTEX_WAIT, 0, NULL, NULL, 0));
	num("unmapped", futex((int *)8, FUTEX_WAIT, 0, NULL, NULL, 0));
	num("unmapped, private", futex((int *)8, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0));
	num("FUTEX_WAKE unmapped", futex((int *)8, FUTEX_WAKE, 1, NULL, NULL, 0));
	num("FUTEX_WAKE unmapped, private", futex((int *)8, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0));
	num("FUTEX_REQUEUE to what is unmapped", futex(words, FUTEX_REQUEUE, 1, (void *)1, (int *)8, 0));
	num("bad timeout", futex(words, FUTEX_WAIT, 0, &bad, NULL, 0));
	num("negative timeout", futex(words, FUTEX_WAIT, 0, &negative, NULL, 0));
	num("timeout pointer", futex(words, FUTEX_WAIT, 0, (void *)8, NULL, 0));
	num("unknown operation", futex(words, 77, 0, NULL, NULL, 0));
	num("FUTEX_WAIT_BITSET of nothing", futex(words, FUTEX_WAIT_BITSET, 0, NULL, NULL, 0));
	num("FUTEX_WAKE_BITSET of nothing", futex(words, FUTEX_WAKE_BITSET, 1, NULL, NULL, 0));
	num("FUTEX_CMP_REQUEUE of another value", futex(words, FUTEX_CMP_REQUEUE, 1, (void *)1, words + 1, 9));
	num("FUTEX_REQUEUE negative", futex(words, FUTEX_REQUEUE, -1, (void *)1, words + 1, 0));
	num("FUTEX_UNLOCK_PI not owned", futex(words, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0));
	num("FUTEX_CLOCK_REALTIME with FUTEX_WAKE", futex(words, FUTEX_WAKE | FUTEX_CLOCK_REALTIME, 1, NULL, NULL, 0));
}

struct waiter { volatile int *word; volatile int tid; int operation, bits; long result; int error; };

static void *wait_on_word(void *argument)
{
	struct waiter *waiter = argument;
	__atomic_store_n(&waiter->tid, gettid(), __ATOMIC_SEQ_CST);
	waiter->result = futex(waiter->word, waiter->operation, 0, NULL, NULL, waiter->bits);
	waiter->error = errno;
	return NULL;
}

static pthread_t start_waiter(struct waiter *waiter)
{
	pthread_t thread = start(wait_on_word, waiter);
	until_changed(&waiter->tid, 0);
	until_task_asleep(getpid(), waiter->tid);
	return thread;
}

CASE(futex_wake_counts)
{
	static int word;
	struct waiter waiters[4];
	pthread_t threads[4];
	for (int index = 0; index < 4; index++) {
		waiters[index] = (struct waiter){.word = &word, .operation = FUTEX_WAIT_PRIVATE};
		threads[index] = start_waiter(&waiters[index]);
	}
	num("wake 3 of 4", futex(&word, FUTEX_WAKE_PRIVATE, 3, NULL, NULL, 0));
	num("wake the rest", futex(&word, FUTEX_WAKE_PRIVATE, 100, NULL, NULL, 0));
	for (int index = 0; index < 4; index++) {
		pthread_join(threads[index], NULL);
		num("waiter", waiters[index].result);
	}
}

CASE(futex_bitsets)
{
	static int word;
	struct waiter waiters[2] = {{.word = &word, .operation = FUTEX_WAIT_BITSET_PRIVATE, .bits = 1},
				    {.word = &word, .operation = FUTEX_WAIT_BITSET_PRIVATE, .bits = 2}};
	pthread_t first = start_waiter(&waiters[0]), second = start_waiter(&waiters[1]);
	num("wake bit 2", futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 10, NULL, NULL, 2));
	pthread_join(second, NULL);
	num("wake bit 4", futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 10, NULL, NULL, 4));
	num("wake any", futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 10, NULL, NULL, -1));
	pthread_join(first, NULL);
	struct timespec past = {1, 0};
	num("absolute timeout in the past", futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, &past, NULL, -1));
	num("absolute, CLOCK_REALTIME", futex(&word, FUTEX_WAIT_BITSET_PRIVATE | FUTEX_CLOCK_REALTIME, 0, &past, NULL, -1));
}

CASE(futex_requeue)
{
	static int from, to;
	struct waiter waiters[4];
	pthread_t threads[4];
	for (int index = 0; index < 4; index++) {
		waiters[index] = (struct waiter){.word = &from, .operation = FUTEX_WAIT_PRIVATE};
		threads[index] = start_waiter(&waiters[index]);
	}
	num("wake 1, requeue 2", futex(&from, FUTEX_CMP_REQUEUE_PRIVATE, 1, (void *)2, &to, 0));
	num("wake at the new place", futex(&to, FUTEX_WAKE_PRIVATE, 100, NULL, NULL, 0));
	num("wake at the old place", futex(&from, FUTEX_WAKE_PRIVATE, 100, NULL, NULL, 0));
	for (int index = 0; index < 4; index++)
		pthread_join(threads[index], NULL);
}

CASE(futex_wake_op)
{
	static int first, second = 5;
	struct waiter waiters[2] = {{.word = &first, .operation = FUTEX_WAIT_PRIVATE}, {.word = &second, .operation = 0}};
	pthread_t thread = start_waiter(&waiters[0]);
	/* second += 3; wake one at first; wake one at second if its old value was 5 */
	num("FUTEX_WAKE_OP", futex(&first, FUTEX_WAKE_OP_PRIVATE, 1, (void *)1, &second, FUTEX_OP(FUTEX_OP_ADD, 3, FUTEX_OP_CMP_EQ, 5)));
	pthread_join(thread, NULL);
	say("second %d", second);
	num("set", futex(&first, FUTEX_WAKE_OP_PRIVATE, 1, (void *)1, &second, FUTEX_OP(FUTEX_OP_SET, 1, FUTEX_OP_CMP_LT, 0)));
	num("or", futex(&first, FUTEX_WAKE_OP_PRIVATE, 1, (void *)1, &second, FUTEX_OP(FUTEX_OP_OR, 6, FUTEX_OP_CMP_LT, 0)));
	num("andn", futex(&first, FUTEX_WAKE_OP_PRIVATE, 1, (void *)1, &second, FUTEX_OP(FUTEX_OP_ANDN, 2, FUTEX_OP_CMP_LT, 0)));
	num("xor", futex(&first, FUTEX_WAKE_OP_PRIVATE, 1, (void *)1, &second, FUTEX_OP(FUTEX_OP_XOR, 15, FUTEX_OP_CMP_LT, 0)));
	say("second %d", second);
}

CASE(futex_shared_between_processes)
{
	int *words = shared_page();
	pid_t child = must(fork());
	if (child == 0) {
		num("child waits", futex(&words[0], FUTEX_WAIT, 0, NULL, NULL, 0));
		_exit(0);
	}
	until_asleep(child);
	num("private wake does not reach it", futex(&words[0], FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0));
	long woken = futex(&words[0], FUTEX_WAKE, 1, NULL, NULL, 0);
	reap(child);
	num("shared wake does", woken);
}

CASE(futex_in_a_shared_file)
{
	/* A futex in a file mapping is one object, wherever it is mapped. */
	int fd = must(open("f", O_RDWR | O_CREAT, 0644));
	must(ftruncate(fd, 8192));
	int *here = must_map(mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
	pid_t child = must(fork());
	if (child == 0) {
		munmap(here, 8192);
		int *there = must_map(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 4096));
		num("child waits", futex(&there[1], FUTEX_WAIT, 0, NULL, NULL, 0));
		_exit(0);
	}
	until_asleep(child);
	long woken = futex(&here[1025], FUTEX_WAKE, 1, NULL, NULL, 0);
	reap(child);
	num("wake", woken);
}

static void wake_up(int number) { (void)number; }

CASE(futex_interrupted)
{
	static int word;
	on_signal(SIGUSR1, wake_up, 0);
	struct waiter waiter = {.word = &word, .operation = FUTEX_WAIT_PRIVATE};
	pthread_t thread = start_waiter(&waiter);
	pthread_kill(thread, SIGUSR1);
	pthread_join(thread, NULL);
	errno = waiter.error;
	num("no SA_RESTART", waiter.result);
}

CASE(futex_pi)
{
	static int word;
	struct timespec past = {1, 0};
	num("FUTEX_LOCK_PI", futex(&word, FUTEX_LOCK_PI, 0, NULL, NULL, 0));
	yes("the word is my id", word == gettid());
	num("again: deadlock", futex(&word, FUTEX_LOCK_PI, 0, NULL, NULL, 0));
	num("FUTEX_TRYLOCK_PI", futex(&word, FUTEX_TRYLOCK_PI, 0, NULL, NULL, 0));
	num("FUTEX_UNLOCK_PI", futex(&word, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0));
	say("word %d", word);
	int *shared = shared_page();
	pid_t child = must(fork());
	if (child == 0) {
		must(futex(shared, FUTEX_LOCK_PI, 0, NULL, NULL, 0));
		shared[1] = 1;
		until_changed(&shared[2], 0);
		nap(10);
		_exit(futex(shared, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0) != 0);
	}
	until_changed(&shared[1], 0);
	num("timed out", futex(shared, FUTEX_LOCK_PI, 0, &past, NULL, 0));
	shared[2] = 1;
	must(futex(shared, FUTEX_LOCK_PI, 0, NULL, NULL, 0));
	yes("then mine", (shared[0] & FUTEX_TID_MASK) == gettid());
	status("child unlocked", reap(child));
}

CASE(priority_inheritance_mutex)
{
	pthread_mutexattr_t attributes;
	pthread_mutex_t inherit;
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
	pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);
	say("init %d", pthread_mutex_init(&inherit, &attributes));
	say("lock %d", pthread_mutex_lock(&inherit));
	say("lock again %s", error_name(pthread_mutex_lock(&inherit)));
	say("unlock %d", pthread_mutex_unlock(&inherit));
}

static void *lock_and_exit(void *argument)
{
	pthread_mutex_lock(argument);
	return NULL;
}

CASE(robust_mutex)
{
	/* get_robust_list(2): a thread that ends with a robust lock held wakes the next with EOWNERDEAD. */
	pthread_mutexattr_t attributes;
	static pthread_mutex_t robust;
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&robust, &attributes);
	pthread_join(start(lock_and_exit, &robust), NULL);
	say("lock %s", error_name(pthread_mutex_lock(&robust)));
	say("consistent %d", pthread_mutex_consistent(&robust));
	say("unlock %d", pthread_mutex_unlock(&robust));
	say("lock %d", pthread_mutex_lock(&robust));
}

CASE(robust_mutex_across_processes)
{
	pthread_mutexattr_t attributes;
	pthread_mutex_t *robust = shared_page();
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	pthread_mutex_init(robust, &attributes);
	struct turn turn = turn_new();
	pid_t child = must(fork());
	if (child == 0) {
		pthread_mutex_lock(robust);
		turn_give(turn);
		pause();
	}
	turn_take(turn);
	kill(child, SIGKILL);
	say("lock %s", error_name(pthread_mutex_lock(robust)));
	reap(child);
}

CASE(robust_list_calls)
{
	void *head;
	size_t size;
	num("get_robust_list", syscall(SYS_get_robust_list, 0, &head, &size));
	say("size %zu", size);
	num("set_robust_list of a wrong size", syscall(SYS_set_robust_list, head, 7));
	num("get_robust_list of an absent thread", syscall(SYS_get_robust_list, 99999, &head, &size));
	num("get_robust_list, bad pointer", syscall(SYS_get_robust_list, 0, 8, 8));
}

CASE(set_tid_address)
{
	int word;
	yes("returns my id", syscall(SYS_set_tid_address, &word) == gettid());
}

static void *change_name(void *argument)
{
	prctl(PR_SET_NAME, "worker");
	return argument;
}

CASE(names_are_per_thread)
{
	char name[16];
	prctl(PR_SET_NAME, "main");
	pthread_join(start(change_name, NULL), NULL);
	prctl(PR_GET_NAME, name);
	say("%s", name);
}

static volatile int handled_by;
static void note_thread(int number) { (void)number; handled_by = gettid(); }

static void *wait_for_signal(void *argument)
{
	struct waiter *waiter = argument;
	__atomic_store_n(&waiter->tid, gettid(), __ATOMIC_SEQ_CST);
	until_changed(&handled_by, 0);
	return NULL;
}

CASE(signal_to_one_thread)
{
	struct waiter waiter = {0};
	on_signal(SIGUSR1, note_thread, 0);
	pthread_t thread = start(wait_for_signal, &waiter);
	until_changed(&waiter.tid, 0);
	num("tgkill", syscall(SYS_tgkill, getpid(), waiter.tid, SIGUSR1));
	pthread_join(thread, NULL);
	yes("handled there", handled_by == waiter.tid);
}

CASE(process_signal_goes_to_who_does_not_block)
{
	struct waiter waiter = {0};
	on_signal(SIGUSR1, note_thread, 0);
	pthread_t thread = start(wait_for_signal, &waiter);
	until_changed(&waiter.tid, 0);
	block_signal(SIGUSR1);
	kill(getpid(), SIGUSR1);
	pthread_join(thread, NULL);
	yes("handled there", handled_by == waiter.tid);
}

static void *kill_everybody(void *argument)
{
	*(volatile int *)8 = 0;
	return argument;
}

CASE(fault_of_a_thread_kills_the_process)
{
	pthread_join(start(kill_everybody, NULL), NULL);
	say("not reached");
}

HELPER(after_exec)
{
	yes("alone: gettid is getpid", gettid() == getpid());
	return 0;
}

static void *exec_here(void *argument)
{
	char *args[] = {"x", "@after_exec", NULL};
	(void)argument;
	must(execv(SELF, args));
	return NULL;
}

CASE(exec_from_a_thread)
{
	/* execve(2): all other threads end, the caller takes over the leader's id. */
	start(exec_here, NULL);
	for (;;)
		pause();
}

static void *fork_here(void *argument)
{
	pid_t child = must(fork());
	if (child == 0)
		_exit(gettid() == getpid() ? 3 : 4);
	*(int *)argument = reap(child);
	return NULL;
}

CASE(fork_from_a_thread)
{
	int wait_status;
	pthread_join(start(fork_here, &wait_status), NULL);
	status("child", wait_status);
}

CASE(membarrier_calls)
{
	long supported = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
	yes("GLOBAL supported", supported & MEMBARRIER_CMD_GLOBAL);
	yes("PRIVATE_EXPEDITED supported", supported & MEMBARRIER_CMD_PRIVATE_EXPEDITED);
	num("PRIVATE_EXPEDITED before registration", syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0));
	num("register", syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0));
	num("PRIVATE_EXPEDITED", syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0));
	num("GLOBAL", syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0));
	num("unknown command", syscall(SYS_membarrier, 1 << 30, 0, 0));
	num("flags", syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 7, 0));
}

extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned int __rseq_size __attribute__((weak));

CASE(rseq_registered)
{
	/* rseq(2): glibc registers an area for every thread; the kernel keeps cpu_id current there. */
	if (!yes("registered by the C library", &__rseq_size && __rseq_size > 0))
		return;
	cpu_set_t set;
	must(sched_getaffinity(0, sizeof set, &set));
	int first = 0;
	while (!CPU_ISSET(first, &set))
		first++;
	CPU_ZERO(&set);
	CPU_SET(first, &set);
	must(sched_setaffinity(0, sizeof set, &set));
	volatile uint32_t *area = (void *)((char *)__builtin_thread_pointer() + __rseq_offset);
	yes("cpu_id_start", area[0] == (uint32_t)first);
	yes("cpu_id", area[1] == (uint32_t)first);
	num("a second registration elsewhere", syscall(SYS_rseq, shared_page(), 32, 0, 0x53053053));
	num("unregister with a wrong signature", syscall(SYS_rseq, area, 32, 1, 0x1234));
	num("unknown flags", syscall(SYS_rseq, area, 32, 6, 0x53053053));
}

static volatile int spinning, enough;

static void *spin(void *argument)
{
	__atomic_add_fetch(&spinning, 1, __ATOMIC_SEQ_CST);
	while (!enough)
		;
	return argument;
}

CASE(computing_threads_are_preempted)
{
	/* More threads that never block than processors: each must still start, and the last stops them all. */
	pthread_t threads[12];
	for (int index = 0; index < 12; index++)
		threads[index] = start(spin, NULL);
	for (int round = 0; round < 10000 && spinning < 12; round++)
		nap(1);
	say("%d of 12 threads run", spinning);
	enough = 1;
	for (int index = 0; index < 12; index++)
		pthread_join(threads[index], NULL);
}

static void *nothing(void *argument) { return argument; }

CASE(thread_stack_sizes)
{
	pthread_attr_t attributes;
	pthread_t thread;
	pthread_attr_init(&attributes);
	for (size_t size = 65536; size <= 64 << 20; size *= 32) {
		pthread_attr_setstacksize(&attributes, size);
		say("stack of %zu KiB: %d", size >> 10, pthread_create(&thread, &attributes, nothing, NULL));
		pthread_join(thread, NULL);
	}
}

static void *overflow(void *argument)
{
	volatile char frame[4096];
	frame[0] = 1;
	return frame[0] ? overflow((void *)(frame + 1)) : argument;
}

CASE(thread_stack_guard)
{
	pthread_join(start(overflow, NULL), NULL);
	say("not reached");
}

CASE(raw_thread)
{
	/* The C library's own way, by hand: CLONE_SETTLS and CLONE_CHILD_CLEARTID wake a join. */
	static char stack[65536] __attribute__((aligned(16)));
	static volatile int tid = -1, ran;
	int entry(void *argument) { ran = *(int *)argument; syscall(SYS_exit, 0); return 0; }
	int argument = 3;
	int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_CHILD_CLEARTID;
	must(clone(entry, stack + sizeof stack, flags, &argument, NULL, NULL, &tid));
	for (int now; (now = tid) != 0;)
		futex(&tid, FUTEX_WAIT, now, NULL, NULL, 0);
	say("ran %d, tid word %d", ran, tid);
}

CASE(fs_and_gs_base)
{
	unsigned long base = 0;
	must(syscall(SYS_arch_prctl, 0x1003 /* ARCH_GET_FS */, &base));
	yes("ARCH_GET_FS is the thread pointer", base == (unsigned long)__builtin_thread_pointer());
	static long words[2] = {77, 88};
	num("ARCH_SET_GS", syscall(SYS_arch_prctl, 0x1001, words));
	long read_back;
	asm volatile("mov %%gs:8, %0" : "=r"(read_back));
	num("%gs:8", read_back);
	must(syscall(SYS_arch_prctl, 0x1004, &base));
	yes("ARCH_GET_GS", base == (unsigned long)words);
	nap(1);
	sched_yield();
	asm volatile("mov %%gs:0, %0" : "=r"(read_back));
	num("%gs:0 after a switch", read_back);
	num("ARCH_SET_FS out of range", syscall(SYS_arch_prctl, 0x1002, 0xffff800000000000UL));
}
