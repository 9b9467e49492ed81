/* Files: open(2), openat2(2), read(2), pread(2), lseek(2), stat(2), statx(2), truncate(2), dup(2), fcntl(2), access(2), umask(2). */
#include "guest.h"

#include <linux/openat2.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <utime.h>

static const char *kind(mode_t mode)
{
	return S_ISREG(mode) ? "file" : S_ISDIR(mode) ? "folder" : S_ISLNK(mode) ? "link" : S_ISFIFO(mode) ? "fifo" :
	       S_ISSOCK(mode) ? "socket" : S_ISCHR(mode) ? "character device" : S_ISBLK(mode) ? "block device" : "?";
}

static void describe(const char *path)
{
	struct stat info;
	if (lstat(path, &info) == -1)
		say("%s: %s", path, error_name(errno));
	else
		say("%s: %s mode %04o links %lu owner %u:%u size %ld", path, kind(info.st_mode), info.st_mode & 07777,
		    S_ISDIR(info.st_mode) ? 0UL : (unsigned long)info.st_nlink, info.st_uid, info.st_gid,
		    S_ISDIR(info.st_mode) ? 0L : (long)info.st_size);
}

CASE(open_flags)
{
	put_file("f", "content");
	must(mkdir("d", 0755));
	must(symlink("f", "link"));
	must(symlink("nowhere", "dangling"));
	ok("absent", open("absent", O_RDONLY));
	ok("O_CREAT", open("new", O_RDWR | O_CREAT, 0640));
	describe("new");
	ok("O_CREAT|O_EXCL of a present one", open("f", O_RDWR | O_CREAT | O_EXCL, 0644));
	ok("O_CREAT|O_EXCL of a dangling link", open("dangling", O_RDWR | O_CREAT | O_EXCL, 0644));
	ok("O_CREAT through a dangling link", open("dangling", O_RDWR | O_CREAT, 0644));
	describe("nowhere");
	ok("O_NOFOLLOW of a link", open("link", O_RDONLY | O_NOFOLLOW));
	ok("O_PATH|O_NOFOLLOW of a link", open("link", O_PATH | O_NOFOLLOW));
	ok("O_DIRECTORY of a file", open("f", O_RDONLY | O_DIRECTORY));
	ok("O_DIRECTORY of a folder", open("d", O_RDONLY | O_DIRECTORY));
	ok("folder for writing", open("d", O_RDWR));
	ok("folder with O_CREAT", open("d", O_RDONLY | O_CREAT, 0644));
	ok("trailing slash of a file", open("f/", O_RDONLY));
	ok("O_CREAT with a trailing slash", open("g/", O_RDWR | O_CREAT, 0644));
	ok("below a file", open("f/x", O_RDONLY));
	ok("empty name", open("", O_RDONLY));
	ok("O_TRUNC", open("f", O_WRONLY | O_TRUNC));
	describe("f");
	ok("O_TMPFILE", open(".", O_TMPFILE | O_RDWR, 0600));
	ok("O_TMPFILE read-only", open(".", O_TMPFILE | O_RDONLY, 0600));
	ok("O_NOATIME", open("f", O_RDONLY | O_NOATIME));
	char name[300];
	memset(name, 'n', 299);
	name[299] = 0;
	ok("component of 299", open(name, O_RDONLY));
	name[255] = 0;
	ok("component of 255", open(name, O_CREAT | O_RDWR, 0644));
}

CASE(openat_variants)
{
	must(mkdir("d", 0755));
	put_file("d/f", "x");
	int folder = must(open("d", O_RDONLY | O_DIRECTORY)), path = must(open("d", O_PATH)), file = must(open("d/f", O_RDONLY));
	ok("relative to a folder", openat(folder, "f", O_RDONLY));
	ok("relative to an O_PATH folder", openat(path, "f", O_RDONLY));
	ok("relative to a file", openat(file, "f", O_RDONLY));
	ok("absolute ignores the descriptor", openat(77, "/", O_RDONLY));
	ok("relative to no descriptor", openat(77, "f", O_RDONLY));
	ok("parent of the folder", openat(folder, "../d/f", O_RDONLY));
	must(unlink("d/f"));
	must(rmdir("d"));
	ok("in a removed folder", openat(folder, "x", O_RDWR | O_CREAT, 0644));
	ok("dot of a removed folder", openat(folder, ".", O_RDONLY));
}

static long openat2(int folder, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve)
{
	struct open_how how = {flags, mode, resolve};
	return syscall(SYS_openat2, folder, path, &how, sizeof how);
}

CASE(openat2_resolve)
{
	must(mkdir("d", 0755));
	put_file("d/f", "x");
	put_file("out", "x");
	must(symlink("f", "d/in"));
	must(symlink("../out", "d/escape"));
	must(symlink("/d/f", "d/absolute"));
	int folder = must(open("d", O_RDONLY | O_DIRECTORY));
	ok("plain", openat2(folder, "f", O_RDONLY, 0, 0));
	ok("RESOLVE_BENEATH inside", openat2(folder, "in", O_RDONLY, 0, RESOLVE_BENEATH));
	ok("RESOLVE_BENEATH ..", openat2(folder, "../out", O_RDONLY, 0, RESOLVE_BENEATH));
	ok("RESOLVE_BENEATH escape by a link", openat2(folder, "escape", O_RDONLY, 0, RESOLVE_BENEATH));
	ok("RESOLVE_BENEATH absolute", openat2(folder, "/etc", O_RDONLY, 0, RESOLVE_BENEATH));
	ok("RESOLVE_IN_ROOT absolute link", openat2(folder, "absolute", O_RDONLY, 0, RESOLVE_IN_ROOT));
	ok("RESOLVE_IN_ROOT absolute", openat2(folder, "/f", O_RDONLY, 0, RESOLVE_IN_ROOT));
	ok("RESOLVE_IN_ROOT ..", openat2(folder, "../../f", O_RDONLY, 0, RESOLVE_IN_ROOT));
	ok("RESOLVE_NO_SYMLINKS", openat2(folder, "in", O_RDONLY, 0, RESOLVE_NO_SYMLINKS));
	ok("RESOLVE_NO_SYMLINKS of a file", openat2(folder, "f", O_RDONLY, 0, RESOLVE_NO_SYMLINKS));
	ok("RESOLVE_NO_MAGICLINKS", openat2(folder, "/proc/self/exe", O_RDONLY, 0, RESOLVE_NO_MAGICLINKS));
	ok("RESOLVE_NO_XDEV into /proc", openat2(AT_FDCWD, "/proc/self/status", O_RDONLY, 0, RESOLVE_NO_XDEV));
	ok("unknown resolve flag", openat2(folder, "f", O_RDONLY, 0, 1 << 20));
	ok("unknown open flag", openat2(folder, "f", 1ULL << 40, 0, 0));
	ok("mode without O_CREAT", openat2(folder, "f", O_RDONLY, 0644, 0));
	ok("beneath and in root", openat2(folder, "f", O_RDONLY, 0, RESOLVE_BENEATH | RESOLVE_IN_ROOT));
	struct { struct open_how how; uint64_t more; } longer = {{O_RDONLY, 0, 0}, 0};
	ok("longer with zeroes", syscall(SYS_openat2, folder, "f", &longer, sizeof longer));
	longer.more = 1;
	ok("longer with more", syscall(SYS_openat2, folder, "f", &longer, sizeof longer));
	ok("too short", syscall(SYS_openat2, folder, "f", &longer, 8));
}

CASE(read_and_write)
{
	char buffer[64] = "";
	int fd = must(open("f", O_RDWR | O_CREAT, 0644)), reader = must(open("f", O_RDONLY)), writer = must(open("f", O_WRONLY));
	int folder = must(open(".", O_RDONLY)), path = must(open("f", O_PATH));
	num("write", write(fd, "hello, world", 12));
	num("read at the end", read(fd, buffer, 5));
	num("lseek", lseek(fd, 7, SEEK_SET));
	num("read", read(fd, buffer, 50));
	say("%s", buffer);
	num("pread leaves the offset", pread(fd, buffer, 5, 0));
	num("offset", lseek(fd, 0, SEEK_CUR));
	num("pwrite beyond the end makes a hole", pwrite(fd, "!", 1, 100));
	num("size", lseek(fd, 0, SEEK_END));
	char hole = 1;
	must(pread(fd, &hole, 1, 50));
	num("the hole reads", hole);
	num("write to a reader", write(reader, "x", 1));
	num("read of a writer", read(writer, buffer, 1));
	num("read of a folder", read(folder, buffer, 1));
	num("read of an O_PATH", read(path, buffer, 1));
	num("bad descriptor", read(99, buffer, 1));
	num("negative descriptor", write(-1, "x", 1));
	num("pread at a negative offset", pread(fd, buffer, 1, -1));
	num("length 0", read(fd, buffer, 0));
	num("length 0 with a bad pointer", write(fd, (void *)8, 0));
	num("negative length", read(fd, buffer, -1));
}

CASE(vectored)
{
	char a[4] = "", b[8] = "";
	struct iovec out[3] = {{"abc", 3}, {"", 0}, {"defgh", 5}}, in[2] = {{a, 3}, {b, 7}};
	int fd = must(open("f", O_RDWR | O_CREAT, 0644));
	num("writev", writev(fd, out, 3));
	num("preadv", preadv(fd, in, 2, 0));
	say("%s %s", a, b);
	num("pwritev", pwritev(fd, out, 3, 8));
	num("preadv2 RWF_NOWAIT flags unknown", preadv2(fd, in, 2, 0, 0x4000));
	num("preadv2 with offset -1 uses the file's", preadv2(fd, in, 2, -1, 0));
	num("pwritev2 RWF_APPEND", pwritev2(fd, out, 1, 0, RWF_APPEND));
	num("size", lseek(fd, 0, SEEK_END));
	num("1025 parts", writev(fd, out, 1025));
	num("negative count", writev(fd, out, -1));
	num("none", writev(fd, out, 0));
}

CASE(append)
{
	char buffer[16] = "";
	int fd = must(open("f", O_RDWR | O_CREAT | O_APPEND, 0644)), other = must(open("f", O_WRONLY));
	must(write(fd, "one", 3));
	must(write(other, "ONE!", 4));
	must(lseek(fd, 0, SEEK_SET));
	num("write goes to the end", write(fd, "two", 3));
	num("offset", lseek(fd, 0, SEEK_CUR));
	num("pwrite appends too", pwrite(fd, "3", 1, 0));
	must(pread(fd, buffer, 15, 0));
	say("%s", buffer);
	num("clear O_APPEND", fcntl(fd, F_SETFL, 0));
	must(pwrite(fd, "0", 1, 0));
	must(pread(fd, buffer, 15, 0));
	say("%s", buffer);
}

/* Small writes one after the other, and every other way to look at the file. */
CASE(writes_in_a_row)
{
	static char page[8192];
	struct stat info;
	char text[8];
	int fd = must(open("f", O_RDWR | O_CREAT, 0644)), other = must(open("f", O_RDONLY));
	for (int index = 0; index < 300; index++) {
		memset(page, 'a' + index % 26, sizeof page);
		must(pwrite(fd, page, 100, index * 100));
		if (index % 50 == 0) {
			must(pread(other, text, 4, index * 100 + 96));
			say("%d: %.4s", index, text);
			must(fstat(other, &info));
			num("bytes", info.st_size);
		}
	}
	char *mapped = must_map(mmap(NULL, 30000, PROT_READ, MAP_SHARED, fd, 0));
	say("mapped: %c%c", mapped[0], mapped[29999]);
	must(pwrite(fd, "Z", 1, 0));
	must(pwrite(fd, "Y", 1, 29999));
	say("changed: %c%c", mapped[0], mapped[29999]);
	must(munmap(mapped, 30000));
	must(ftruncate(fd, 150));
	must(pwrite(fd, "end", 3, 200));
	num("read", pread(other, page, sizeof page, 0));
	say("%c%c%d%s", page[0], page[149], page[150], page + 200);
	num("at the end", lseek(fd, 0, SEEK_END));
	num("append", fcntl(fd, F_SETFL, O_APPEND));
	must(write(fd, "more", 4));
	must(write(fd, "more", 4));
	num("at the end", lseek(other, 0, SEEK_END));
	num("fsync", fsync(fd));

	/* A program that is executed as soon as it is written. */
	int script = must(open("script", O_WRONLY | O_CREAT, 0755));
	must(write(script, "#!/bin/sh\n", 10));
	must(write(script, "exit 7\n", 7));
	must(close(script));
	pid_t child = must(fork());
	if (!child) {
		execl("./script", "script", NULL);
		_exit(1);
	}
	int how;
	must(waitpid(child, &how, 0));
	status("script", how);
}

CASE(append_by_many)
{
	struct stat info;
	pid_t children[4];
	for (int index = 0; index < 4; index++) {
		children[index] = must(fork());
		if (children[index] == 0) {
			int fd = must(open("log", O_WRONLY | O_CREAT | O_APPEND, 0644));
			for (int line = 0; line < 200; line++)
				must(write(fd, "0123456789\n", 11));
			_exit(0);
		}
	}
	for (int index = 0; index < 4; index++)
		reap(children[index]);
	must(stat("log", &info));
	num("size", info.st_size);
}

CASE(seeking)
{
	int fd = must(open("f", O_RDWR | O_CREAT, 0644)), pipes[2];
	must(pipe(pipes));
	must(write(fd, "0123456789", 10));
	num("SEEK_END -3", lseek(fd, -3, SEEK_END));
	num("SEEK_CUR +1", lseek(fd, 1, SEEK_CUR));
	num("before the start", lseek(fd, -1, SEEK_SET));
	num("beyond the end", lseek(fd, 1000, SEEK_SET));
	num("size unchanged", lseek(fd, 0, SEEK_END));
	num("overflow", lseek(fd, LONG_MAX, SEEK_END));
	num("unknown whence", lseek(fd, 0, 9));
	num("pipe", lseek(pipes[0], 0, SEEK_CUR));
	num("bad descriptor", lseek(99, 0, SEEK_CUR));
	num("terminal-like device", lseek(must(open("/dev/null", O_RDWR)), 5, SEEK_SET));
	must(ftruncate(fd, 0));
	must(ftruncate(fd, 1 << 20));
	must(pwrite(fd, "x", 1, 512 << 10));
	num("SEEK_DATA", lseek(fd, 0, SEEK_DATA));
	num("SEEK_HOLE", lseek(fd, 512 << 10, SEEK_HOLE));
	num("SEEK_DATA after the last", lseek(fd, 600 << 10, SEEK_DATA));
	num("SEEK_HOLE beyond the end", lseek(fd, 2 << 20, SEEK_HOLE));
}

CASE(truncation)
{
	char bytes[8] = "";
	put_file("f", "0123456789");
	int fd = must(open("f", O_RDWR));
	num("shorter", ftruncate(fd, 4));
	num("longer", truncate("f", 8));
	must(pread(fd, bytes, 8, 0));
	say("%d %d %d %d", bytes[3], bytes[4], bytes[6], bytes[7]);
	num("negative", ftruncate(fd, -1));
	num("read-only descriptor", ftruncate(must(open("f", O_RDONLY)), 1));
	num("folder", truncate(".", 1));
	num("absent", truncate("absent", 1));
	num("bad descriptor", ftruncate(99, 1));
	must(mkfifo("fifo", 0644));
	num("fifo", truncate("fifo", 1));
	num("2^62", ftruncate(fd, 1L << 62));
}

CASE(stat_fields)
{
	struct stat info, same;
	put_file("f", "0123456789");
	must(chmod("f", 04711));
	must(link("f", "g"));
	must(symlink("f", "s"));
	describe("f");
	describe("g");
	describe("s");
	describe(".");
	describe("absent");
	describe("f/x");
	describe("/dev/null");
	must(stat("f", &info));
	must(stat("g", &same));
	yes("links have one inode", info.st_ino == same.st_ino && info.st_dev == same.st_dev);
	must(stat("s", &same));
	yes("stat follows", info.st_ino == same.st_ino);
	yes("times are now", labs(time(NULL) - info.st_mtime) < 100 && labs(time(NULL) - info.st_ctime) < 100);
	must(stat("/dev/null", &info));
	say("/dev/null is %u:%u", major(info.st_rdev), minor(info.st_rdev));
	num("fstatat empty path", fstatat(must(open("f", O_PATH)), "", &info, AT_EMPTY_PATH));
	num("fstatat empty path without flag", fstatat(AT_FDCWD, "", &info, 0));
	num("fstatat unknown flag", fstatat(AT_FDCWD, "f", &info, 0x10));
	num("fstat bad descriptor", fstat(99, &info));
	num("fstat of a pipe", ({ int p[2]; must(pipe(p)); fstat(p[0], &info); }));
	say("%s mode %04o", kind(info.st_mode), info.st_mode & 07777);
	yes("blocks of a small file", (must(stat("f", &info)), info.st_blksize >= 512 && info.st_blocks >= 0));
}

CASE(statx_fields)
{
	struct statx info;
	put_file("f", "0123456789");
	num("statx", statx(AT_FDCWD, "f", 0, STATX_BASIC_STATS, &info));
	yes("basic mask", (info.stx_mask & STATX_BASIC_STATS) == STATX_BASIC_STATS);
	say("mode %o size %llu links %u", info.stx_mode, (unsigned long long)info.stx_size, info.stx_nlink);
	num("empty path", statx(must(open("f", O_PATH)), "", AT_EMPTY_PATH, STATX_SIZE, &info));
	num("unknown flag", statx(AT_FDCWD, "f", 0x100000, STATX_SIZE, &info));
	num("reserved mask", statx(AT_FDCWD, "f", 0, 0x80000000U, &info));
	num("absent", statx(AT_FDCWD, "absent", 0, STATX_SIZE, &info));
	num("both sync flags", statx(AT_FDCWD, "f", AT_STATX_FORCE_SYNC | AT_STATX_DONT_SYNC, STATX_SIZE, &info));
	num("bad pointer", syscall(SYS_statx, AT_FDCWD, "f", 0, STATX_SIZE, 8));
}

CASE(permissions)
{
	put_file("f", "x");
	num("chmod", chmod("f", 07755));
	describe("f");
	num("chown clears setuid and setgid", chown("f", 1000, 1000));
	describe("f");
	num("chown -1 changes nothing", chown("f", -1, -1));
	describe("f");
	num("fchmodat AT_SYMLINK_NOFOLLOW unsupported in the old call", syscall(SYS_fchmodat, AT_FDCWD, "f", 0600));
	must(symlink("f", "s"));
	num("lchown", lchown("s", 1000, 1000));
	describe("s");
	describe("f");
	num("fchownat empty path", fchownat(must(open("f", O_PATH)), "", 0, 0, AT_EMPTY_PATH));
	num("fchmod O_PATH", fchmod(must(open("f", O_PATH)), 0600));
	num("chmod absent", chmod("absent", 0600));
	must(umask(027));
	must(close(must(open("masked", O_CREAT | O_RDWR, 0777))));
	describe("masked");
	must(mkdir("maskedd", 0777));
	describe("maskedd");
	must(chmod("maskedd", 02777));
	must(mkdir("maskedd/sub", 0755));
	describe("maskedd/sub");
}

CASE(access_checks)
{
	put_file("f", "x");
	must(chmod("f", 0640));
	must(mkdir("d", 0700));
	put_file("d/f", "x");
	num("root may", access("f", R_OK | W_OK));
	num("but not execute", access("f", X_OK));
	num("F_OK absent", access("absent", F_OK));
	num("bad mode", access("f", 64));
	num("faccessat2 AT_EACCESS", syscall(SYS_faccessat2, AT_FDCWD, "f", R_OK, AT_EACCESS));
	num("faccessat2 unknown flag", syscall(SYS_faccessat2, AT_FDCWD, "f", R_OK, 1));
	pid_t child = must(fork());
	if (child == 0) {
		must(setgid(1000));
		must(setuid(1000));
		num("another user: read", access("f", R_OK));
		ok("open", open("f", O_RDONLY));
		num("stat below a closed folder", access("d/f", F_OK));
		ok("create in a folder of root", open("new", O_CREAT | O_RDWR, 0644));
		num("chmod", chmod("f", 0777));
		num("chown", chown("f", 1000, 1000));
		num("unlink", unlink("f"));
		num("truncate", truncate("f", 0));
		_exit(0);
	}
	status("child", reap(child));
	must(chmod("f", 0604));
	must(chown("f", 0, 1000));
	child = must(fork());
	if (child == 0) {
		must(setgid(1000));
		must(setuid(1000));
		ok("the group's bits decide, not the others'", open("f", O_RDONLY));
		_exit(0);
	}
	reap(child);
}

CASE(sticky_folder)
{
	must(mkdir("t", 01777));
	must(chmod("t", 01777));
	put_file("t/root", "x");
	pid_t child = must(fork());
	if (child == 0) {
		must(setuid(1000));
		ok("create", open("t/mine", O_CREAT | O_RDWR, 0644));
		num("unlink another's", unlink("t/root"));
		num("rename another's", rename("t/root", "t/x"));
		num("unlink mine", unlink("t/mine"));
		_exit(0);
	}
	reap(child);
}

CASE(write_clears_setuid)
{
	put_file("f", "x");
	must(chown("f", 1000, 1000));
	must(chmod("f", 06777));
	pid_t child = must(fork());
	if (child == 0) {
		must(setgid(2000));
		must(setuid(2000));
		int fd = must(open("f", O_WRONLY));
		must(write(fd, "y", 1));
		_exit(0);
	}
	reap(child);
	describe("f");
}

CASE(duplicates)
{
	put_file("f", "0123456789");
	int fd = must(open("f", O_RDONLY | O_CLOEXEC)), copy = must(dup(fd));
	char byte;
	must(read(fd, &byte, 1));
	num("one offset", lseek(copy, 0, SEEK_CUR));
	num("dup clears close-on-exec", fcntl(copy, F_GETFD));
	num("dup2 to itself", dup2(fd, fd));
	num("which keeps close-on-exec", fcntl(fd, F_GETFD));
	num("dup3 to itself", dup3(fd, fd, 0));
	num("dup3 O_CLOEXEC", dup3(fd, 50, O_CLOEXEC));
	num("flag", fcntl(50, F_GETFD));
	num("dup3 unknown flag", dup3(fd, 51, O_APPEND));
	num("F_DUPFD at least 60", fcntl(fd, F_DUPFD, 60));
	num("F_DUPFD_CLOEXEC", fcntl(fd, F_DUPFD_CLOEXEC, 60));
	num("dup2 negative", dup2(fd, -1));
	num("dup2 of a closed one", dup2(99, 5));
	num("dup of a closed one", dup(99));
	num("lowest free number", (close(50), dup(fd) < 50));
	num("close_range", close_range(60, 70, 0));
	num("closed", fcntl(61, F_GETFD));
	num("close_range CLOEXEC", close_range(copy, copy, CLOSE_RANGE_CLOEXEC));
	num("flag", fcntl(copy, F_GETFD));
	num("close_range reversed", close_range(10, 5, 0));
	num("close twice", (close(copy), close(copy)));
}

CASE(status_flags)
{
	int fd = must(open("f", O_RDWR | O_CREAT | O_APPEND | O_NONBLOCK, 0644));
	say("F_GETFL %#x", fcntl(fd, F_GETFL));
	num("F_SETFL ignores the access mode", fcntl(fd, F_SETFL, O_WRONLY | O_NONBLOCK));
	say("F_GETFL %#x", fcntl(fd, F_GETFL));
	say("O_PATH F_GETFL %#x", fcntl(must(open("f", O_PATH)), F_GETFL));
	int on = 1;
	num("FIONBIO", ioctl(fd, FIONBIO, &(int){0}));
	say("F_GETFL %#x", fcntl(fd, F_GETFL));
	num("FIOCLEX", ioctl(fd, FIOCLEX));
	num("F_GETFD", fcntl(fd, F_GETFD));
	must(write(fd, "12345", 5));
	must(lseek(fd, 2, SEEK_SET));
	num("FIONREAD", ioctl(fd, FIONREAD, &on));
	num("bytes", on);
	num("unknown ioctl", ioctl(fd, 0x1234567, 0));
	num("TCGETS of a file", ioctl(fd, TCGETS, 0));
	num("unknown fcntl", fcntl(fd, 9999));
}

CASE(times)
{
	struct stat info;
	struct timespec both[2] = {{1000, 123456789}, {2000, 987654321}};
	put_file("f", "x");
	num("utimensat", utimensat(AT_FDCWD, "f", both, 0));
	must(stat("f", &info));
	say("atime %ld.%09ld mtime %ld.%09ld", info.st_atim.tv_sec, info.st_atim.tv_nsec, info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
	both[0].tv_nsec = UTIME_OMIT;
	both[1].tv_nsec = UTIME_NOW;
	num("omit and now", utimensat(AT_FDCWD, "f", both, 0));
	must(stat("f", &info));
	say("atime %ld, mtime is now: %d", info.st_atim.tv_sec, labs(time(NULL) - info.st_mtime) < 100);
	both[1].tv_nsec = 1000000000;
	num("bad nanoseconds", utimensat(AT_FDCWD, "f", both, 0));
	num("futimens", futimens(must(open("f", O_RDONLY)), NULL));
	num("utime", utime("f", &(struct utimbuf){5, 6}));
	must(stat("f", &info));
	say("atime %ld mtime %ld", info.st_atime, info.st_mtime);
	must(symlink("f", "s"));
	num("of the link itself", utimensat(AT_FDCWD, "s", (struct timespec[2]){{7, 0}, {8, 0}}, AT_SYMLINK_NOFOLLOW));
	must(lstat("s", &info));
	say("link mtime %ld", info.st_mtime);
	num("absent", utimensat(AT_FDCWD, "absent", NULL, 0));
	/* A write moves mtime and ctime on; a chmod only ctime. */
	must(utimensat(AT_FDCWD, "f", (struct timespec[2]){{100, 0}, {100, 0}}, 0));
	must(chmod("f", 0600));
	must(stat("f", &info));
	say("mtime after chmod %ld", info.st_mtime);
	int fd = must(open("f", O_WRONLY));
	must(write(fd, "y", 1));
	must(stat("f", &info));
	yes("mtime after write is now", labs(time(NULL) - info.st_mtime) < 100);
	must(utimensat(AT_FDCWD, ".", (struct timespec[2]){{100, 0}, {100, 0}}, 0));
	put_file("another", "");
	must(stat(".", &info));
	yes("a new entry moves the folder's mtime", labs(time(NULL) - info.st_mtime) < 100);
}

/* Overwrites again and again, as a program does that keeps a file's pages at hand. */
CASE(times_set_after_writes)
{
	struct stat stat;
	char block[4096] = "";
	int fd = must(open("f", O_RDWR | O_CREAT, 0644));
	must(write(fd, block, sizeof block));
	must(fsync(fd));
	for (int round = 0; round < 8; round++)
		must(pwrite(fd, block, 100, round * 100));
	must(futimens(fd, (struct timespec[2]){{100, 5}, {200, 6}}));
	must(fstat(fd, &stat));
	say("%ld.%09ld %ld.%09ld", stat.st_atim.tv_sec, stat.st_atim.tv_nsec, stat.st_mtim.tv_sec, stat.st_mtim.tv_nsec);
	must(fchmod(fd, 0600));
	must(close(fd));
	must(lstat("f", &stat));
	say("%ld.%09ld %o", stat.st_mtim.tv_sec, stat.st_mtim.tv_nsec, stat.st_mode);
	must(pwrite(fd = must(open("f", O_RDWR)), block, 100, 0));
	must(fstat(fd, &stat));
	yes("a write changes it again", stat.st_mtim.tv_sec > 200);
}

CASE(allocation)
{
	struct stat info;
	int fd = must(open("f", O_RDWR | O_CREAT, 0644));
	num("fallocate", fallocate(fd, 0, 0, 10000));
	must(fstat(fd, &info));
	yes("size and blocks", info.st_size == 10000 && info.st_blocks >= 16);
	num("KEEP_SIZE", fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 50000));
	must(fstat(fd, &info));
	num("size", info.st_size);
	char byte = 1;
	must(pwrite(fd, "xxxxxxxxxx", 10, 4096));
	num("PUNCH_HOLE", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096));
	must(pread(fd, &byte, 1, 4096));
	num("reads", byte);
	num("PUNCH_HOLE without KEEP_SIZE", fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 4096));
	num("length 0", fallocate(fd, 0, 0, 0));
	num("negative offset", fallocate(fd, 0, -1, 10));
	num("read-only", fallocate(must(open("f", O_RDONLY)), 0, 0, 10));
	num("unknown mode", fallocate(fd, 0x4000, 0, 10));
	int pipes[2];
	must(pipe(pipes));
	num("pipe", fallocate(pipes[1], 0, 0, 10));
	say("posix_fallocate: %d", posix_fallocate(fd, 0, 60000));
	say("posix_fadvise: %d", posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED));
	say("posix_fadvise unknown: %s", error_name(posix_fadvise(fd, 0, 0, 77)));
	num("readahead", readahead(fd, 0, 4096));
}

CASE(syncing)
{
	int fd = must(open("f", O_RDWR | O_CREAT, 0644)), pipes[2];
	must(write(fd, "x", 1));
	must(pipe(pipes));
	num("fsync", fsync(fd));
	num("fdatasync", fdatasync(fd));
	num("fsync of a folder", fsync(must(open(".", O_RDONLY))));
	num("fsync of a pipe", fsync(pipes[0]));
	num("fsync of nothing", fsync(99));
	num("sync_file_range", sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE));
	num("sync_file_range unknown", sync_file_range(fd, 0, 0, 64));
	num("syncfs", syncfs(fd));
	int synchronous = must(open("g", O_RDWR | O_CREAT | O_SYNC, 0644));
	num("O_SYNC write", write(synchronous, "x", 1));
	sync();
}

CASE(file_systems)
{
	struct statfs info;
	num("statfs", statfs(".", &info));
	yes("sensible", info.f_bsize >= 512 && info.f_blocks > 0 && info.f_namelen == 255);
	num("/proc", statfs("/proc", &info));
	say("type %#lx", (long)info.f_type);
	num("/tmp", statfs("/tmp", &info));
	say("type %#lx", (long)info.f_type);
	num("absent", statfs("absent", &info));
	num("fstatfs", fstatfs(must(open("/dev/pts", O_RDONLY)), &info));
	say("type %#lx", (long)info.f_type);
}

CASE(devices)
{
	char buffer[16] = "xxxxxxxxxxxxxxx";
	int null = must(open("/dev/null", O_RDWR)), zero = must(open("/dev/zero", O_RDWR)), full = must(open("/dev/full", O_RDWR));
	int random = must(open("/dev/urandom", O_RDWR));
	num("null read", read(null, buffer, 10));
	num("null write", write(null, buffer, 10));
	num("zero read", read(zero, buffer, 10));
	say("%d", buffer[0]);
	num("zero write", write(zero, buffer, 10));
	num("full read", read(full, buffer, 10));
	num("full write", write(full, buffer, 10));
	num("urandom read", read(random, buffer, 16));
	num("getrandom", syscall(SYS_getrandom, buffer, 16, 0));
	num("getrandom unknown flag", syscall(SYS_getrandom, buffer, 16, 64));
	num("getrandom bad pointer", syscall(SYS_getrandom, 8, 16, 0));
	must(mknod("mine", S_IFCHR | 0666, makedev(1, 3)));
	describe("mine");
	num("mknod regular", mknod("plain", S_IFREG | 0600, 0));
	describe("plain");
	num("mknod of a folder", mknod("dir", S_IFDIR | 0600, 0));
	ok("/dev/tty without a terminal", open("/dev/tty", O_RDWR));
	describe("/dev/stdin");
	describe("/dev/fd");
}
