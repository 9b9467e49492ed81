/* Locks: flock(2), fcntl(2) advisory record locks, open file description locks, leases. */
#include "guest.h"

#include <sys/file.h>

static struct flock region(int type, off_t start, off_t length)
{
	return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
}

static long lock(int fd, int command, int type, off_t start, off_t length)
{
	struct flock lock = region(type, start, length);
	return fcntl(fd, command, &lock);
}

/* Says who blocks a lock, as seen by a child. */
static void ask(const char *what, int type, off_t start, off_t length)
{
	pid_t parent = getpid(), child = must(fork());
	if (child == 0) {
		struct flock lock = region(type, start, length);
		int fd = must(open("f", O_RDWR));
		must(fcntl(fd, F_GETLK, &lock));
		if (lock.l_type == F_UNLCK)
			say("%s: free", what);
		else
			say("%s: %s lock %ld+%ld of the parent: %d", what, lock.l_type == F_RDLCK ? "read" : "write", (long)lock.l_start,
			    (long)lock.l_len, lock.l_pid == parent);
		_exit(0);
	}
	reap(child);
}

CASE(record_locks)
{
	put_file("f", "0123456789");
	int fd = must(open("f", O_RDWR));
	num("write lock", lock(fd, F_SETLK, F_WRLCK, 2, 3));
	ask("overlapping", F_WRLCK, 0, 10);
	ask("beside", F_WRLCK, 5, 5);
	num("downgrade the middle", lock(fd, F_SETLK, F_RDLCK, 3, 1));
	ask("read of the middle", F_RDLCK, 3, 1);
	ask("write of the middle", F_WRLCK, 3, 1);
	num("unlock the middle: split", lock(fd, F_SETLK, F_UNLCK, 3, 1));
	ask("the middle", F_WRLCK, 3, 1);
	ask("right part", F_WRLCK, 4, 10);
	num("to the end of the file and beyond", lock(fd, F_SETLK, F_WRLCK, 100, 0));
	ask("far away", F_WRLCK, 1000000, 1);
	num("unlock all", lock(fd, F_SETLK, F_UNLCK, 0, 0));
	ask("all", F_WRLCK, 0, 0);
	num("negative length", lock(fd, F_SETLK, F_WRLCK, 5, -3));
	ask("it covers what is before", F_WRLCK, 0, 0);
}

CASE(record_lock_conflicts)
{
	put_file("f", "0123456789");
	int fd = must(open("f", O_RDWR));
	must(lock(fd, F_SETLK, F_WRLCK, 0, 5));
	pid_t child = must(fork());
	if (child == 0) {
		num("not inherited: conflict", lock(fd, F_SETLK, F_WRLCK, 0, 1));
		num("read too", lock(fd, F_SETLK, F_RDLCK, 4, 1));
		num("outside", lock(fd, F_SETLK, F_WRLCK, 5, 1));
		_exit(0);
	}
	reap(child);
	num("the child's is gone", lock(fd, F_SETLK, F_WRLCK, 5, 1));
	int reader = must(open("f", O_RDONLY)), writer = must(open("f", O_WRONLY));
	num("write lock on a reader", lock(reader, F_SETLK, F_WRLCK, 8, 1));
	num("read lock on a writer", lock(writer, F_SETLK, F_RDLCK, 8, 1));
	num("unknown type", lock(fd, F_SETLK, 9, 0, 1));
	num("before the start", lock(fd, F_SETLK, F_WRLCK, -5, 1));
	num("bad descriptor", lock(99, F_SETLK, F_WRLCK, 0, 1));
	num("bad pointer", fcntl(fd, F_SETLK, 8));
}

CASE(closing_any_descriptor_drops_locks)
{
	put_file("f", "0123456789");
	int fd = must(open("f", O_RDWR));
	must(lock(fd, F_SETLK, F_WRLCK, 0, 5));
	ask("before", F_WRLCK, 0, 0);
	close(must(open("f", O_RDONLY)));
	ask("after closing another descriptor", F_WRLCK, 0, 0);
}

CASE(waiting_for_a_lock)
{
	put_file("f", "0123456789");
	struct turn locked = turn_new();
	int fd = must(open("f", O_RDWR));
	pid_t parent = getpid(), child = must(fork());
	if (child == 0) {
		must(lock(fd, F_SETLK, F_WRLCK, 0, 0));
		turn_give(locked);
		until_asleep(parent);
		must(write(fd, "child", 5));
		_exit(0);
	}
	turn_take(locked);
	num("F_SETLKW", lock(fd, F_SETLKW, F_WRLCK, 0, 0));
	char bytes[6] = "";
	must(pread(fd, bytes, 5, 0));
	say("%s", bytes);
	reap(child);
}

static void nothing(int number) { (void)number; }

CASE(waiting_interrupted)
{
	put_file("f", "0123456789");
	struct turn locked = turn_new();
	int fd = must(open("f", O_RDWR));
	on_signal(SIGUSR1, nothing, 0);
	pid_t parent = getpid(), child = must(fork());
	if (child == 0) {
		must(lock(fd, F_SETLK, F_WRLCK, 0, 0));
		turn_give(locked);
		for (;;) {
			until_asleep(parent);
			kill(parent, SIGUSR1);
			nap(10);
		}
	}
	turn_take(locked);
	num("F_SETLKW", lock(fd, F_SETLKW, F_WRLCK, 0, 0));
	kill(child, SIGKILL);
	reap(child);
}

CASE(deadlock_is_detected)
{
	put_file("f", "0123456789");
	struct turn locked = turn_new();
	int fd = must(open("f", O_RDWR));
	must(lock(fd, F_SETLK, F_WRLCK, 0, 1));
	pid_t child = must(fork());
	if (child == 0) {
		must(lock(fd, F_SETLK, F_WRLCK, 1, 1));
		turn_give(locked);
		lock(fd, F_SETLKW, F_WRLCK, 0, 1);
		_exit(0);
	}
	turn_take(locked);
	until_asleep(child);
	num("the second waiter", lock(fd, F_SETLKW, F_WRLCK, 1, 1));
	kill(child, SIGKILL);
	reap(child);
}

CASE(open_file_description_locks)
{
	put_file("f", "0123456789");
	int first = must(open("f", O_RDWR)), second = must(open("f", O_RDWR)), copy = must(dup(first));
	num("first", lock(first, F_OFD_SETLK, F_WRLCK, 0, 5));
	num("another description of the same process", lock(second, F_OFD_SETLK, F_WRLCK, 0, 5));
	num("a duplicate of the first", lock(copy, F_OFD_SETLK, F_WRLCK, 0, 5));
	struct flock query = region(F_WRLCK, 0, 1);
	must(fcntl(second, F_OFD_GETLK, &query));
	say("type %d pid %d", query.l_type, query.l_pid);
	close(first);
	num("after closing one of two", lock(second, F_OFD_SETLK, F_WRLCK, 0, 5));
	close(copy);
	num("after closing both", lock(second, F_OFD_SETLK, F_WRLCK, 0, 5));
	query.l_pid = 5;
	num("l_pid must be 0", fcntl(second, F_OFD_SETLK, &query));
}

CASE(flock_calls)
{
	put_file("f", "");
	int first = must(open("f", O_RDONLY)), second = must(open("f", O_RDONLY)), copy = must(dup(first));
	num("exclusive", flock(first, LOCK_EX));
	num("another description", flock(second, LOCK_EX | LOCK_NB));
	num("shared too", flock(second, LOCK_SH | LOCK_NB));
	num("a duplicate is the same lock", flock(copy, LOCK_EX | LOCK_NB));
	num("to shared", flock(first, LOCK_SH));
	num("now both share", flock(second, LOCK_SH | LOCK_NB));
	num("upgrade", flock(second, LOCK_EX | LOCK_NB));
	num("unlock through the duplicate", flock(copy, LOCK_UN));
	num("upgrade", flock(second, LOCK_EX | LOCK_NB));
	num("unknown operation", flock(first, 77));
	num("bad descriptor", flock(99, LOCK_SH));
	pid_t child = must(fork());
	if (child == 0) {
		num("inherited: the same lock", flock(second, LOCK_EX | LOCK_NB));
		num("a new description", flock(must(open("f", O_RDONLY)), LOCK_EX | LOCK_NB));
		close(second);
		_exit(0);
	}
	reap(child);
	num("still held after the child's close", flock(first, LOCK_EX | LOCK_NB));
	num("flock and fcntl do not see each other", lock(must(open("f", O_RDWR)), F_SETLK, F_WRLCK, 0, 0));
}

CASE(flock_blocks)
{
	put_file("f", "");
	struct turn locked = turn_new();
	pid_t parent = getpid(), child = must(fork());
	if (child == 0) {
		must(flock(must(open("f", O_RDONLY)), LOCK_EX));
		turn_give(locked);
		until_asleep(parent);
		_exit(0);
	}
	turn_take(locked);
	num("flock", flock(must(open("f", O_RDONLY)), LOCK_EX));
	reap(child);
}

CASE(counter_under_a_lock)
{
	put_file("f", "0");
	pid_t children[4];
	for (int index = 0; index < 4; index++) {
		children[index] = must(fork());
		if (children[index] == 0) {
			int fd = must(open("f", O_RDWR));
			for (int turn = 0; turn < 50; turn++) {
				char text[16] = "";
				must(lock(fd, F_SETLKW, F_WRLCK, 0, 0));
				must(pread(fd, text, 15, 0));
				int length = snprintf(text, sizeof text, "%d", atoi(text) + 1);
				must(pwrite(fd, text, length, 0));
				must(lock(fd, F_SETLK, F_UNLCK, 0, 0));
			}
			_exit(0);
		}
	}
	for (int index = 0; index < 4; index++)
		status("child", reap(children[index]));
	say("%s", get_file("f"));
}

/* A circle that closes only when a third process lets go. */
CASE(late_deadlock)
{
	put_file("f", "0123456789");
	int fd = must(open("f", O_RDWR));
	struct turn locked = turn_new(), go = turn_new();
	must(lock(fd, F_SETLK, F_WRLCK, 0, 1));
	pid_t last = must(fork());
	if (last == 0) {
		must(lock(fd, F_SETLK, F_WRLCK, 4, 1));
		turn_give(locked);
		turn_take(go);
		_exit(lock(fd, F_SETLKW, F_WRLCK, 0, 3) == 0 ? 0 : errno);
	}
	turn_take(locked);
	pid_t holder = must(fork());
	if (holder == 0) {
		must(lock(fd, F_SETLK, F_WRLCK, 2, 1));
		turn_give(locked);
		_exit(lock(fd, F_SETLKW, F_WRLCK, 4, 1) == 0 ? 0 : errno);
	}
	turn_take(locked);
	until_asleep(holder);
	turn_give(go);
	nap(50);
	until_asleep(last);
	must(lock(fd, F_SETLK, F_UNLCK, 0, 1));
	int end = reap(last);
	say("who closes the circle: %s", WIFEXITED(end) && WEXITSTATUS(end) ? error_name(WEXITSTATUS(end)) : "waited");
	status("the other", reap(holder));
}

CASE(named_places)
{
	put_file("f", "x");
	int fd = must(open("f", O_PATH));
	ok("flock of an O_PATH descriptor", flock(fd, LOCK_EX));
	ok("F_SETLK", lock(fd, F_SETLK, F_RDLCK, 0, 1));
	ok("fsync", fsync(fd));
	char bytes[4];
	ok("read", read(fd, bytes, 4));
	ok("fchmod", fchmod(fd, 0600));
	struct stat found;
	ok("fstat", fstat(fd, &found));
	ok("dup", dup(fd));
	ok("F_GETFD", fcntl(fd, F_GETFD));
	ok("an empty path", open("", O_RDONLY));
	ok("an empty path from a file", openat(fd, "", O_RDONLY));
}

CASE(locks_on_a_volume_that_can_only_be_read)
{
	int fd = must(open("/readonly/f", O_RDONLY));
	ok("flock, shared", flock(fd, LOCK_SH | LOCK_NB));
	ok("exclusive", flock(fd, LOCK_EX | LOCK_NB));
	ok("unlock", flock(fd, LOCK_UN));
	ok("a read lock", lock(fd, F_SETLK, F_RDLCK, 0, 1));
	ok("a write lock", lock(fd, F_SETLK, F_WRLCK, 0, 1));
}
