/* Notification of changes: inotify(7). */
#include "guest.h"

#include <poll.h>
#include <sys/inotify.h>

static void show(int fd)
{
	static const struct { uint32_t bit; const char *name; } bits[] = {
		{IN_ACCESS, "ACCESS"}, {IN_MODIFY, "MODIFY"}, {IN_ATTRIB, "ATTRIB"}, {IN_CLOSE_WRITE, "CLOSE_WRITE"},
		{IN_CLOSE_NOWRITE, "CLOSE_NOWRITE"}, {IN_OPEN, "OPEN"}, {IN_MOVED_FROM, "MOVED_FROM"}, {IN_MOVED_TO, "MOVED_TO"},
		{IN_CREATE, "CREATE"}, {IN_DELETE, "DELETE"}, {IN_DELETE_SELF, "DELETE_SELF"}, {IN_MOVE_SELF, "MOVE_SELF"},
		{IN_IGNORED, "IGNORED"}, {IN_ISDIR, "ISDIR"}, {IN_Q_OVERFLOW, "Q_OVERFLOW"}, {IN_UNMOUNT, "UNMOUNT"},
	};
	char buffer[8192] __attribute__((aligned(8)));
	static uint32_t cookie;
	for (ssize_t length; (length = read(fd, buffer, sizeof buffer)) > 0;)
		for (char *at = buffer; at < buffer + length;) {
			struct inotify_event *event = (void *)at;
			char line[256];
			int used = snprintf(line, sizeof line, "  watch %d", event->wd);
			for (size_t index = 0; index < COUNT(bits); index++)
				if (event->mask & bits[index].bit)
					used += snprintf(line + used, sizeof line - used, " %s", bits[index].name);
			if (event->len)
				used += snprintf(line + used, sizeof line - used, " %.40s", event->name);
			if (event->mask & IN_MOVED_FROM)
				cookie = event->cookie;
			if (event->mask & IN_MOVED_TO && event->cookie)
				snprintf(line + used, sizeof line - used, event->cookie == cookie ? " (same cookie)" : " (new cookie)");
			say("%s", line);
			at += sizeof *event + event->len;
		}
}

static int watch(const char *path, uint32_t mask)
{
	int fd = must(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
	must(inotify_add_watch(fd, path, mask));
	return fd;
}

CASE(folder_events)
{
	int fd = watch(".", IN_ALL_EVENTS);
	put_file("f", "x");
	show(fd);
	get_file("f");
	show(fd);
	must(chmod("f", 0600));
	must(rename("f", "g"));
	show(fd);
	must(mkdir("d", 0755));
	must(link("g", "h"));
	must(symlink("g", "s"));
	show(fd);
	must(unlink("h"));
	must(rmdir("d"));
	show(fd);
}

CASE(file_events)
{
	put_file("f", "x");
	int fd = watch("f", IN_ALL_EVENTS), file = must(open("f", O_RDWR));
	must(write(file, "y", 1));
	must(ftruncate(file, 0));
	show(fd);
	close(file);
	show(fd);
	must(rename("f", "g"));
	must(unlink("g"));
	show(fd);
}

CASE(delete_self_waits_for_close)
{
	put_file("f", "x");
	int fd = watch("f", IN_DELETE_SELF | IN_ATTRIB), file = must(open("f", O_RDONLY));
	must(unlink("f"));
	say("unlinked");
	show(fd);
	close(file);
	say("closed");
	show(fd);
}

CASE(masks_and_merging)
{
	put_file("f", "x");
	int fd = watch("f", IN_MODIFY), file = must(open("f", O_WRONLY));
	for (int turn = 0; turn < 5; turn++)
		must(write(file, "y", 1));
	say("equal events in a row are one");
	show(fd);
	must(inotify_add_watch(fd, "f", IN_ATTRIB));
	must(write(file, "y", 1));
	must(fchmod(file, 0600));
	say("a second add replaces the mask");
	show(fd);
	must(inotify_add_watch(fd, "f", IN_MODIFY | IN_MASK_ADD));
	must(write(file, "y", 1));
	must(fchmod(file, 0644));
	say("IN_MASK_ADD adds");
	show(fd);
	num("IN_MASK_CREATE of a present one", inotify_add_watch(fd, "f", IN_MODIFY | IN_MASK_CREATE));
}

CASE(one_shot_and_only_folder)
{
	put_file("f", "x");
	int fd = watch("f", IN_ATTRIB | IN_ONESHOT);
	must(chmod("f", 0600));
	must(chmod("f", 0644));
	show(fd);
	num("IN_ONLYDIR of a file", inotify_add_watch(fd, "f", IN_ATTRIB | IN_ONLYDIR));
	must(symlink("f", "s"));
	num("IN_DONT_FOLLOW", inotify_add_watch(fd, "s", IN_ATTRIB | IN_DONT_FOLLOW));
	must(chmod("f", 0600));
	show(fd);
}

CASE(watch_descriptors)
{
	put_file("f", "x");
	put_file("g", "x");
	int fd = must(inotify_init1(IN_NONBLOCK));
	num("first", inotify_add_watch(fd, "f", IN_ATTRIB));
	num("second", inotify_add_watch(fd, "g", IN_ATTRIB));
	num("the first again", inotify_add_watch(fd, "f", IN_ATTRIB));
	num("remove", inotify_rm_watch(fd, 1));
	num("remove again", inotify_rm_watch(fd, 1));
	show(fd);
	must(chmod("f", 0600));
	must(chmod("g", 0600));
	show(fd);
	num("absent", inotify_add_watch(fd, "absent", IN_ATTRIB));
	num("no mask", inotify_add_watch(fd, "f", 0));
	num("bad descriptor", inotify_add_watch(99, "f", IN_ATTRIB));
	num("no inotify", inotify_add_watch(1, "f", IN_ATTRIB));
	num("unknown flag", inotify_init1(4));
	char small[4];
	must(chmod("g", 0644));
	num("buffer too small", read(fd, small, 4));
}

CASE(polling_and_blocking)
{
	put_file("f", "x");
	int fd = must(inotify_init1(0));
	must(inotify_add_watch(fd, "f", IN_ATTRIB));
	struct pollfd ready = {fd, POLLIN, 0};
	num("nothing", poll(&ready, 1, 0));
	pid_t parent = getpid(), child = must(fork());
	if (child == 0) {
		until_asleep(parent);
		must(chmod("f", 0600));
		_exit(0);
	}
	num("woken", poll(&ready, 1, 10000));
	reap(child);
	must(fcntl(fd, F_SETFL, O_NONBLOCK));
	show(fd);
}

CASE(move_between_folders)
{
	must(mkdir("a", 0755));
	must(mkdir("b", 0755));
	put_file("a/f", "x");
	int fd = watch("a", IN_MOVE);
	must(inotify_add_watch(fd, "b", IN_MOVE));
	must(rename("a/f", "b/g"));
	show(fd);
	must(rename("b/g", "outside"));
	show(fd);
}

CASE(watched_folder_is_removed)
{
	must(mkdir("d", 0755));
	int fd = watch("d", IN_ALL_EVENTS);
	must(rmdir("d"));
	show(fd);
}

/* Says what happens in a folder until a file named end is there, and what is told within half a second after that. */
HELPER(follow)
{
	int fd = watch(argv[0], IN_ALL_EVENTS & ~(IN_OPEN | IN_ACCESS | IN_CLOSE));
	struct pollfd ready = {fd, POLLIN, 0};
	char end[4096];
	snprintf(end, sizeof end, "%s/end", argv[0]);
	say("watching");
	while (poll(&ready, 1, access(end, F_OK) == 0 ? 500 : 100000) == 1)
		show(fd);
	return 0;
}
