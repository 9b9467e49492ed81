/* Names: mkdir(2), rmdir(2), link(2), symlink(2), unlink(2), rename(2), readlink(2), getdents64(2), chdir(2), xattr(7), path_resolution(7). */
#include "guest.h"

#include <dirent.h>
#include <sys/file.h>
#include <sys/xattr.h>

static int compare(const void *left, const void *right) { return strcmp(*(char *const *)left, *(char *const *)right); }

/* Prints the entries of a folder, sorted, with their types. */
static void list(const char *path)
{
	char *names[512], line[300];
	int count = 0;
	DIR *folder = opendir(path);
	if (!folder) {
		say("%s: %s", path, error_name(errno));
		return;
	}
	for (struct dirent *entry; (entry = readdir(folder));) {
		snprintf(line, sizeof line, "%s (%d)", entry->d_name, entry->d_type);
		names[count++] = strdup(line);
	}
	closedir(folder);
	qsort(names, count, sizeof *names, compare);
	for (int index = 0; index < count; index++)
		say("  %s", names[index]);
}

CASE(making_folders)
{
	char name[300];
	put_file("f", "");
	num("mkdir", mkdir("d", 0755));
	num("again", mkdir("d", 0755));
	num("over a file", mkdir("f", 0755));
	num("below a file", mkdir("f/x", 0755));
	num("below nothing", mkdir("absent/x", 0755));
	num("trailing slashes", mkdir("e///", 0755));
	num("dot", mkdir(".", 0755));
	num("dot dot", mkdir("..", 0755));
	num("root", mkdir("/", 0755));
	num("empty", mkdir("", 0755));
	memset(name, 'x', 256);
	name[256] = 0;
	num("256 characters", mkdir(name, 0755));
	must(symlink("target", "dangling"));
	num("over a dangling link", mkdir("dangling", 0755));
	num("mkdirat", mkdirat(must(open("d", O_PATH)), "sub", 0700));
	struct stat info;
	must(stat("d", &info));
	list(".");
}

/* Changes that follow each other without a pause, each with a look at what the others left. */
CASE(changes_in_a_row)
{
	char name[32], other[32];
	struct stat info;
	must(mkdir("d", 0755));
	for (int index = 0; index < 200; index++) {
		snprintf(name, sizeof name, "d/temporary%d", index);
		snprintf(other, sizeof other, "d/%d", index % 50);
		int fd = must(open(name, O_RDWR | O_CREAT | O_EXCL, 0644));
		must(write(fd, name, strlen(name)));
		unlink(other);
		must(link(name, other));
		must(unlink(name));
		must(fstat(fd, &info));
		if (info.st_nlink != 1 || info.st_size != (off_t)strlen(name))
			say("%s: %d links, %d bytes", other, (int)info.st_nlink, (int)info.st_size);
		if (index % 3 == 0)
			must(unlink(other));
		if (index % 7 == 0) {
			must(fstat(fd, &info));
			num("links", info.st_nlink);
		}
		must(close(fd));
	}
	num("gone", access("d/0", F_OK));
	num("of the others", stat("d/1", &info));
	num("links", info.st_nlink);
	list("d");
	num("not empty", rmdir("d"));
	for (int index = 0; index < 50; index++) {
		snprintf(name, sizeof name, "d/%d", index);
		unlink(name);
	}
	list("d");
	num("empty", rmdir("d"));
	num("in what is gone", open("d/1", O_CREAT | O_RDWR, 0644));
}

/* A name that is taken and given again is another file, also for those that have the first one open. */
CASE(names_used_again)
{
	char text[16] = "";
	int old[40];
	for (int index = 0; index < 40; index++) {
		old[index] = must(open("f", O_RDWR | O_CREAT | O_EXCL, 0644));
		snprintf(text, sizeof text, "%d", index);
		must(write(old[index], text, strlen(text)));
		must(unlink("f"));
	}
	num("absent", access("f", F_OK));
	put_file("f", "the last");
	for (int index = 0; index < 40; index += 13) {
		memset(text, 0, sizeof text);
		must(pread(old[index], text, sizeof text - 1, 0));
		say("%d: %s", index, text);
	}
	struct stat info;
	must(stat("f", &info));
	num("bytes", info.st_size);
	must(mkdir("d", 0755));
	must(symlink("f", "d/link"));
	must(unlink("d/link"));
	must(mkdir("d/link", 0755));
	num("file of a folder's name", unlink("d/link"));
	list("d");
}

static void there(const char *path)
{
	struct stat stat;
	ok(path, lstat(path, &stat));
}

/* A folder that was just made has the names that were put there, whichever way, and no others. */
CASE(names_of_new_folders)
{
	must(mkdir("d", 0755));
	must(mkdir("e", 0755));
	put_file("outside", "x");
	there("d/a");
	put_file("d/a", "a");
	must(link("outside", "d/linked"));
	must(rename("outside", "d/moved"));
	must(symlink("a", "d/soft"));
	must(mkfifo("d/fifo", 0600));
	must(mkdir("d/sub", 0755));
	static const char *const names[] = {"d/a", "d/linked", "d/moved", "d/soft", "d/fifo", "d/sub", "d/none", "d/sub/none"};
	for (size_t index = 0; index < COUNT(names); index++)
		there(names[index]);
	must(rename("d/a", "e/a"));
	must(unlink("d/linked"));
	there("d/a");
	there("e/a");
	there("d/linked");
	must(renameat2(AT_FDCWD, "d/sub", AT_FDCWD, "e", RENAME_EXCHANGE));
	there("e/none");
	there("d/sub/a");
	must(rmdir("e"));
	there("e/none");
	must(mkdir("e", 0755));
	there("e/none");
	ok("O_EXCL", open("e/new", O_CREAT | O_EXCL | O_WRONLY, 0600));
	ok("again", open("e/new", O_CREAT | O_EXCL | O_WRONLY, 0600));
	ok("a folder that is not empty", rmdir("e"));
}

CASE(removing_folders)
{
	must(mkdir("d", 0755));
	must(mkdir("d/e", 0755));
	put_file("f", "");
	num("not empty", rmdir("d"));
	num("dot", rmdir("d/e/."));
	num("dot dot", rmdir("d/e/.."));
	num("a file", rmdir("f"));
	num("absent", rmdir("absent"));
	num("unlink of a folder", unlink("d"));
	num("unlinkat AT_REMOVEDIR", unlinkat(AT_FDCWD, "d/e", AT_REMOVEDIR));
	num("unlinkat unknown flag", unlinkat(AT_FDCWD, "f", 1));
	must(symlink("d", "s"));
	num("rmdir of a link to a folder", rmdir("s"));
	num("rmdir of the root", rmdir("/"));
	num("a mount point", rmdir("/proc"));
	int fd = must(open("d", O_RDONLY));
	num("while it is open", rmdir("d"));
	struct stat info;
	must(fstat(fd, &info));
	num("links of the removed one", info.st_nlink);
	must(mkdir("here", 0755));
	must(chdir("here"));
	num("the working folder", rmdir("../here"));
	char path[PATH_MAX];
	num("getcwd then", syscall(SYS_getcwd, path, sizeof path));
	ok("create in it", open("x", O_CREAT | O_RDWR, 0644));
	num("its parent is still there", chdir(".."));
}

CASE(hard_links)
{
	struct stat info;
	put_file("f", "text");
	must(mkdir("d", 0755));
	must(symlink("f", "s"));
	num("link", link("f", "g"));
	must(stat("f", &info));
	num("count", info.st_nlink);
	num("over something", link("f", "s"));
	num("of a folder", link("d", "e"));
	num("of nothing", link("absent", "x"));
	num("to another file system", link("f", "/dev/shm/x"));
	num("of a symbolic link", link("s", "hard_s"));
	must(lstat("hard_s", &info));
	say("which is a link: %d", S_ISLNK(info.st_mode));
	num("AT_SYMLINK_FOLLOW", linkat(AT_FDCWD, "s", AT_FDCWD, "followed", AT_SYMLINK_FOLLOW));
	must(stat("f", &info));
	num("count", info.st_nlink);
	num("unknown flag", linkat(AT_FDCWD, "f", AT_FDCWD, "y", 1));
	int fd = must(open(".", O_TMPFILE | O_RDWR, 0644));
	must(write(fd, "from nowhere", 12));
	char path[64];
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	num("O_TMPFILE gets a name", linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
	say("%s", get_file("named"));
	num("unlink one name", unlink("f"));
	say("%s", get_file("g"));
}

CASE(symbolic_links)
{
	char buffer[64] = "", target[4100];
	put_file("f", "text");
	num("symlink", symlink("f", "s"));
	num("again", symlink("f", "s"));
	num("readlink", readlink("s", buffer, sizeof buffer));
	say("%s", buffer);
	memset(buffer, 0, sizeof buffer);
	must(symlink("a longer target", "long"));
	num("readlink into 4 bytes", readlink("long", buffer, 4));
	say("%s", buffer);
	num("readlink into none", readlink("long", buffer, 0));
	num("of a file", readlink("f", buffer, 10));
	num("of nothing", readlink("absent", buffer, 10));
	num("empty target", symlink("", "x"));
	memset(target, 't', 4096);
	target[4096] = 0;
	num("target of 4096", symlink(target, "x"));
	target[4095] = 0;
	num("target of 4095", symlink(target, "x"));
	num("readlinkat of an O_PATH descriptor", readlinkat(must(open("s", O_PATH | O_NOFOLLOW)), "", buffer, 10));
	must(symlink("b", "a"));
	must(symlink("a", "b"));
	ok("loop", open("a", O_RDONLY));
	char name[16], next[16];
	for (int index = 0; index < 45; index++) {
		snprintf(name, sizeof name, "c%d", index);
		snprintf(next, sizeof next, "c%d", index + 1);
		must(symlink(index == 44 ? "f" : next, name));
	}
	ok("40 links in a row", open("c5", O_RDONLY));
	ok("41 links in a row", open("c4", O_RDONLY));
	must(symlink(".", "dot"));
	ok("links to folders on the way", open("dot/dot/dot/f", O_RDONLY));
	must(symlink("f/", "slash"));
	ok("link with a trailing slash", open("slash", O_RDONLY));
}

CASE(unlinking)
{
	char buffer[8] = "";
	put_file("f", "text");
	int fd = must(open("f", O_RDWR));
	num("unlink an open file", unlink("f"));
	num("again", unlink("f"));
	num("it still reads", read(fd, buffer, 4));
	num("and writes", write(fd, "more", 4));
	struct stat info;
	must(fstat(fd, &info));
	say("links %lu size %ld", (unsigned long)info.st_nlink, (long)info.st_size);
	ok("its name is free", open("f", O_CREAT | O_EXCL | O_RDWR, 0644));
	must(symlink("f", "s"));
	num("a link, not its target", unlink("s"));
	ok("target", open("f", O_RDONLY));
	num("trailing slash", unlink("f/"));
	num("dot", unlink("."));
	char path[64], link_path[256] = "";
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	must(readlink(path, link_path, sizeof link_path - 1));
	say("/proc says %s", strrchr(link_path, '/'));
	ok("and opens it", open(path, O_RDONLY));
}

CASE(renaming)
{
	put_file("a", "A");
	put_file("b", "B");
	must(mkdir("d", 0755));
	must(mkdir("e", 0755));
	must(mkdir("full", 0755));
	put_file("full/x", "");
	num("over a file", rename("a", "b"));
	say("%s", get_file("b"));
	num("absent", rename("a", "c"));
	num("to itself", rename("b", "b"));
	num("file over folder", rename("b", "d"));
	num("folder over file", rename("d", "b"));
	num("folder over an empty folder", rename("d", "e"));
	num("folder over a full one", rename("e", "full"));
	num("into itself", rename("full", "full/sub"));
	num("dot", rename(".", "z"));
	num("to another file system", rename("b", "/dev/shm/x"));
	num("below a file", rename("e", "b/x"));
	must(link("b", "b2"));
	num("two names of one file: nothing happens", rename("b", "b2"));
	list(".");
	num("folder to a new place", rename("e", "full/e"));
	list("full");
	int inside = must(open("full/e", O_RDONLY));
	must(fchdir(inside));
	must(rename("../../full", "../../moved"));
	char path[PATH_MAX];
	say("cwd ends in %s", strstr(getcwd(path, sizeof path), "/moved"));
}

CASE(renameat2_flags)
{
	put_file("a", "A");
	put_file("b", "B");
	must(mkdir("d", 0755));
	put_file("d/x", "");
	num("RENAME_NOREPLACE over one", renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_NOREPLACE));
	num("RENAME_NOREPLACE", renameat2(AT_FDCWD, "a", AT_FDCWD, "c", RENAME_NOREPLACE));
	num("RENAME_EXCHANGE", renameat2(AT_FDCWD, "c", AT_FDCWD, "b", RENAME_EXCHANGE));
	say("c %s", get_file("c"));
	num("RENAME_EXCHANGE of a file and a folder", renameat2(AT_FDCWD, "c", AT_FDCWD, "d", RENAME_EXCHANGE));
	list(".");
	num("RENAME_EXCHANGE with nothing", renameat2(AT_FDCWD, "b", AT_FDCWD, "absent", RENAME_EXCHANGE));
	num("both flags", renameat2(AT_FDCWD, "b", AT_FDCWD, "x", RENAME_EXCHANGE | RENAME_NOREPLACE));
	num("unknown flag", renameat2(AT_FDCWD, "b", AT_FDCWD, "x", 64));
}

struct linux_dirent64 { uint64_t inode; int64_t offset; unsigned short length; unsigned char type; char name[]; };

CASE(reading_folders)
{
	char buffer[4096] __attribute__((aligned(8)));
	must(mkdir("d", 0755));
	int fd = must(open("d", O_RDONLY | O_DIRECTORY));
	for (int index = 0; index < 300; index++) {
		char name[32];
		snprintf(name, sizeof name, "d/entry%d", index);
		must(close(must(open(name, O_CREAT | O_RDWR, 0644))));
	}
	int entries = 0, calls = 0, bad = 0;
	bool seen[300] = {0};
	for (long got; (got = syscall(SYS_getdents64, fd, buffer, sizeof buffer)) > 0; calls++)
		for (long at = 0; at < got;) {
			struct linux_dirent64 *entry = (void *)(buffer + at);
			bad += entry->length % 8 != 0 || entry->inode == 0;
			if (strncmp(entry->name, "entry", 5) == 0)
				seen[atoi(entry->name + 5)] = true;
			entries++;
			at += entry->length;
		}
	int missing = 0;
	for (int index = 0; index < 300; index++)
		missing += !seen[index];
	say("%d entries, %d missing, %d malformed, several calls: %d", entries, missing, bad, calls > 1);
	num("at the end", syscall(SYS_getdents64, fd, buffer, sizeof buffer));
	must(lseek(fd, 0, SEEK_SET));
	yes("after a rewind", syscall(SYS_getdents64, fd, buffer, sizeof buffer) > 0);
	num("buffer too small", syscall(SYS_getdents64, fd, buffer, 8));
	num("of a file", syscall(SYS_getdents64, must(open("d/entry1", O_RDONLY)), buffer, sizeof buffer));
	num("bad pointer", syscall(SYS_getdents64, fd, 8, 4096));
	DIR *folder = opendir("d");
	for (int index = 0; index < 100; index++)
		readdir(folder);
	long place = telldir(folder);
	char *name = strdup(readdir(folder)->d_name);
	for (int index = 0; index < 50; index++)
		readdir(folder);
	seekdir(folder, place);
	yes("seekdir comes back to the same entry", strcmp(readdir(folder)->d_name, name) == 0);
}

CASE(removing_while_reading)
{
	/* What rm -r does: every entry is seen although earlier ones vanish. */
	must(mkdir("d", 0755));
	for (int index = 0; index < 200; index++) {
		char name[32];
		snprintf(name, sizeof name, "d/%d", index);
		put_file(name, "");
	}
	DIR *folder = opendir("d");
	int removed = 0;
	for (struct dirent *entry; (entry = readdir(folder));)
		if (entry->d_name[0] != '.')
			removed += unlinkat(dirfd(folder), entry->d_name, 0) == 0;
	num("removed", removed);
	num("rmdir", rmdir("d"));
}

CASE(entry_types)
{
	put_file("file", "");
	must(mkdir("folder", 0755));
	must(symlink("file", "link"));
	must(mkfifo("fifo", 0644));
	list(".");
}

CASE(working_folder)
{
	char path[PATH_MAX], small[4];
	must(mkdir("d", 0755));
	put_file("f", "");
	must(symlink("d", "s"));
	num("chdir", chdir("s"));
	say("physical: %s", strrchr(getcwd(path, sizeof path), '/'));
	num("too small", syscall(SYS_getcwd, small, 4));
	num("up", chdir(".."));
	num("a file", chdir("f"));
	num("absent", chdir("absent"));
	num("fchdir of a file", fchdir(must(open("f", O_RDONLY))));
	num("fchdir of an O_PATH folder", fchdir(must(open("d", O_PATH))));
	num("root's parent is root", chdir("/.."));
	say("%s", getcwd(path, sizeof path));
	num("chroot of a file", chroot("/etc/passwd"));
}

CASE(change_root)
{
	char path[PATH_MAX];
	must(mkdir("jail", 0755));
	must(mkdir("jail/inner", 0755));
	put_file("jail/inner/f", "inside");
	must(symlink("/inner/f", "jail/link"));
	num("chroot", chroot("jail"));
	must(chdir("/"));
	say("cwd %s", getcwd(path, sizeof path));
	list("/");
	say("%s", get_file("/link"));
	ok("above it", open("../../../etc/passwd", O_RDONLY));
	pid_t child = must(fork());
	if (child == 0) {
		must(setuid(1000));
		num("chroot without CAP_SYS_CHROOT", chroot("/"));
		_exit(0);
	}
	reap(child);
}

CASE(long_paths)
{
	char path[5000] = "";
	must(mkdir("d", 0755));
	for (int depth = 0; depth < 2040; depth++)
		strcat(path, "d/");
	ok("4080 characters", open(path, O_RDONLY));
	char dots[5001];
	for (int index = 0; index < 2500; index++)
		memcpy(dots + index * 2, "./", 2);
	dots[5000] = 0;
	ok("5000 characters", open(dots, O_RDONLY));
	dots[4095] = 0;
	ok("4095 characters", open(dots, O_RDONLY));
	dots[4096 - 1] = '/';
	dots[4096] = 0;
	ok("4096 characters", open(dots, O_RDONLY));
	ok("double slashes", open(".//.//", O_RDONLY));
}

CASE(deep_tree)
{
	for (int depth = 0; depth < 200; depth++) {
		must(mkdir("deeper", 0755));
		must(chdir("deeper"));
	}
	char path[PATH_MAX];
	yes("getcwd", strlen(getcwd(path, sizeof path)) > 200 * 7);
	for (int depth = 0; depth < 200; depth++) {
		must(chdir(".."));
		must(rmdir("deeper"));
	}
	list(".");
}

static void show_attribute(const char *path, const char *name)
{
	char value[64] = "";
	ssize_t length = getxattr(path, name, value, sizeof value - 1);
	if (length < 0)
		say("%s: %s", name, error_name(errno));
	else
		say("%s: %.*s", name, (int)length, value);
}

CASE(extended_attributes)
{
	char names[256];
	put_file("f", "");
	must(symlink("f", "s"));
	num("set", setxattr("f", "user.one", "value", 5, 0));
	show_attribute("f", "user.one");
	show_attribute("s", "user.one");
	num("XATTR_CREATE again", setxattr("f", "user.one", "x", 1, XATTR_CREATE));
	num("XATTR_REPLACE absent", setxattr("f", "user.two", "x", 1, XATTR_REPLACE));
	num("empty value", setxattr("f", "user.empty", "", 0, 0));
	num("size query", getxattr("f", "user.one", NULL, 0));
	num("too small", getxattr("f", "user.one", names, 2));
	long length = num("list", listxattr("f", names, sizeof names));
	int found = 0;
	for (char *name = names; name < names + length; name += strlen(name) + 1)
		found += strcmp(name, "user.one") == 0 || strcmp(name, "user.empty") == 0;
	say("found %d", found);
	num("list too small", listxattr("f", names, 3));
	num("remove", removexattr("f", "user.one"));
	num("remove again", removexattr("f", "user.one"));
	num("unknown namespace", setxattr("f", "foo.bar", "x", 1, 0));
	num("no name after the dot", setxattr("f", "user.", "x", 1, 0));
	num("user attribute of a link", lsetxattr("s", "user.x", "x", 1, 0));
	num("trusted without CAP_SYS_ADMIN", setxattr("f", "trusted.x", "x", 1, 0));
	num("of a folder", setxattr(".", "user.folder", "x", 1, 0));
	num("fsetxattr", fsetxattr(must(open("f", O_RDONLY)), "user.fd", "x", 1, 0));
	num("unknown flag", setxattr("f", "user.x", "x", 1, 8));
	char big[70000] = "";
	num("value above 64 KiB", setxattr("f", "user.big", big, sizeof big, 0));
	num("absent file", getxattr("absent", "user.x", names, 5));
}

CASE(case_and_bytes)
{
	/* Names are bytes: case counts, and any byte but / and NUL is allowed. */
	put_file("Name", "upper");
	put_file("name", "lower");
	say("%s", get_file("Name"));
	put_file("\x01\xff \n", "odd");
	say("%s", get_file("\x01\xff \n"));
	put_file("ünïcödé", "accents");
	say("%s", get_file("ünïcödé"));
}

CASE(concurrent_creation)
{
	/* O_EXCL: of many who try, one succeeds. */
	pid_t children[6];
	struct turn start = turn_new();
	int winners = 0;
	for (int index = 0; index < 6; index++) {
		children[index] = must(fork());
		if (children[index] == 0) {
			int won = 0;
			turn_take(start);
			for (int turn = 0; turn < 50; turn++) {
				char name[32];
				snprintf(name, sizeof name, "race%d", turn);
				won += open(name, O_CREAT | O_EXCL | O_RDWR, 0644) >= 0;
			}
			_exit(won);
		}
	}
	for (int index = 0; index < 6; index++)
		turn_give(start);
	for (int index = 0; index < 6; index++)
		winners += WEXITSTATUS(reap(children[index]));
	num("winners of 50 races", winners);
}
