/* Users, groups, capabilities: credentials(7), setresuid(2), setgroups(2), capabilities(7), prctl(2), set-user-ID execution. */
#include "guest.h"

#include <grp.h>
#include <linux/capability.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>

static void show_ids(const char *what)
{
	uid_t real, effective, saved;
	gid_t real_group, effective_group, saved_group;
	must(getresuid(&real, &effective, &saved));
	must(getresgid(&real_group, &effective_group, &saved_group));
	say("%s: uid %u %u %u gid %u %u %u", what, real, effective, saved, real_group, effective_group, saved_group);
}

static void show_capabilities(const char *what)
{
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2];
	must(syscall(SYS_capget, &header, data));
	say("%s: effective %08x permitted %08x inheritable %08x", what, data[0].effective, data[0].permitted, data[0].inheritable);
}

CASE(user_ids)
{
	show_ids("at first");
	num("setresuid", setresuid(1000, 1001, 1002));
	show_ids("now");
	num("seteuid to the saved one", seteuid(1002));
	show_ids("now");
	num("seteuid to a foreign one", seteuid(5));
	num("setreuid", setreuid(1002, 1000));
	show_ids("setreuid sets the saved one");
	num("setuid", setuid(1002));
	show_ids("now");
	num("setuid back to root", setuid(0));
}

CASE(setuid_of_root_sets_all)
{
	num("setuid", setuid(1000));
	show_ids("now");
	num("setuid 0", setuid(0));
	num("setresuid -1 -1 -1", setresuid(-1, -1, -1));
}

CASE(group_ids)
{
	gid_t groups[4] = {10, 20, 30};
	num("setresgid", setresgid(100, 101, 102));
	num("setgroups", setgroups(3, groups));
	memset(groups, 0, sizeof groups);
	num("getgroups", getgroups(4, groups));
	say("%u %u %u", groups[0], groups[1], groups[2]);
	num("how many", getgroups(0, NULL));
	num("too small", getgroups(2, groups));
	num("too many", setgroups(70000, groups));
	must(setuid(1000));
	num("setgroups as a user", setgroups(1, groups));
	num("setegid to the saved one", setegid(102));
	num("setegid to a foreign one", setegid(5));
	show_ids("now");
}

CASE(capabilities_follow_ids)
{
	show_capabilities("root");
	must(setresuid(-1, 1000, -1));
	show_capabilities("effective user 1000");
	must(setresuid(-1, 0, -1));
	show_capabilities("effective root again");
	must(setresuid(1000, 1000, 1000));
	show_capabilities("user 1000");
}

CASE(keep_capabilities)
{
	num("PR_SET_KEEPCAPS", prctl(PR_SET_KEEPCAPS, 1));
	must(setresuid(1000, 1000, 1000));
	show_capabilities("user 1000");
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2] = {{1 << CAP_CHOWN, 1 << CAP_CHOWN, 0}, {0, 0, 0}};
	num("capset", syscall(SYS_capset, &header, data));
	show_capabilities("CAP_CHOWN only");
	put_file("/tmp/creds", "x");
	num("chown with it", chown("/tmp/creds", 5, 5));
	data[0].permitted |= 1 << CAP_KILL;
	num("more than permitted", syscall(SYS_capset, &header, data));
	data[0].permitted = data[0].effective = 0;
	must(syscall(SYS_capset, &header, data));
	num("chown without", chown("/tmp/creds", 6, 6));
}

CASE(capability_calls)
{
	struct __user_cap_header_struct header = {0x12345, 0};
	struct __user_cap_data_struct data[2];
	num("capget of an unknown version", syscall(SYS_capget, &header, data));
	say("the version wanted: %#x", header.version);
	header.version = _LINUX_CAPABILITY_VERSION_3;
	header.pid = 99999;
	num("of an absent process", syscall(SYS_capget, &header, data));
	header.pid = -5;
	num("of a negative one", syscall(SYS_capget, &header, data));
	header.pid = 1;
	num("set another's", syscall(SYS_capset, &header, data));
	num("PR_CAPBSET_DROP", prctl(PR_CAPBSET_DROP, CAP_KILL));
	num("PR_CAPBSET_READ", prctl(PR_CAPBSET_READ, CAP_KILL));
	num("PR_CAP_AMBIENT_RAISE without inheritable", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0));
	num("PR_GET_SECUREBITS", prctl(PR_GET_SECUREBITS));
	num("PR_SET_SECUREBITS", prctl(PR_SET_SECUREBITS, 1));
	num("PR_GET_SECUREBITS", prctl(PR_GET_SECUREBITS));
}

HELPER(ids)
{
	show_ids("executed");
	show_capabilities("executed");
	return 0;
}

static void run_ids(const char *path)
{
	char *args[] = {"x", "@ids", NULL};
	pid_t child = must(fork());
	if (child == 0) {
		must(setgroups(0, NULL));
		must(setgid(1000));
		must(setuid(1000));
		execv(path, args);
		say("execv: %s", error_name(errno));
		_exit(1);
	}
	status(path, reap(child));
}

static void copy_program(const char *name, mode_t mode)
{
	char block[65536];
	ssize_t got;
	int source = must(open(SELF, O_RDONLY)), copy = must(open(name, O_WRONLY | O_CREAT, 0755));
	while ((got = must(read(source, block, sizeof block))) > 0)
		must(write(copy, block, got));
	must(fchown(copy, 0, 2000));
	must(fchmod(copy, mode));
	close(copy);
}

CASE(set_user_id_execution)
{
	copy_program("plain", 0755);
	copy_program("setuid", 04755);
	copy_program("setgid", 02755);
	copy_program("both", 06755);
	run_ids("./plain");
	run_ids("./setuid");
	run_ids("./setgid");
	run_ids("./both");
	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	run_ids("./both");
}

CASE(ambient_capabilities)
{
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2];
	must(syscall(SYS_capget, &header, data));
	data[0].inheritable = 1 << CAP_CHOWN;
	num("capset inheritable", syscall(SYS_capset, &header, data));
	num("PR_CAP_AMBIENT_RAISE", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0));
	num("PR_CAP_AMBIENT_IS_SET", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_CHOWN, 0, 0));
	must(prctl(PR_SET_KEEPCAPS, 1));
	must(setresuid(1000, 1000, 1000));
	num("dropped by the change of user", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_CHOWN, 0, 0));
	num("raised again", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0));
	char *args[] = {"x", "@ids", NULL};
	must(execv(SELF, args));
}

CASE(file_system_ids)
{
	num("setfsuid returns the old one", setfsuid(1000));
	num("setfsuid -1 tells", setfsuid(-1));
	put_file("/tmp/fsuid", "");
	struct stat info;
	must(stat("/tmp/fsuid", &info));
	num("files are created with it", info.st_uid);
	show_ids("the others stay");
	num("setfsgid", setfsgid(7));
}

CASE(ids_are_inherited)
{
	must(setresuid(1000, 1000, 1000));
	pid_t child = must(fork());
	if (child == 0) {
		show_ids("child");
		_exit(0);
	}
	reap(child);
}

CASE(what_root_may_not)
{
	/* The capabilities that a container does not have. */
	num("mount", syscall(SYS_mount, "none", "/tmp", "tmpfs", 0, NULL));
	num("umount", syscall(SYS_umount2, "/proc", 0));
	num("sethostname", syscall(SYS_sethostname, "x", 1));
	num("reboot", syscall(SYS_reboot, 0xfee1dead, 672274793, 0x1234567, NULL));
	num("swapon", syscall(SYS_swapon, "/tmp/x", 0));
	num("pivot_root", syscall(SYS_pivot_root, ".", "."));
	num("nice -5", syscall(SYS_setpriority, 0, 0, -5));
	num("settimeofday", syscall(SYS_settimeofday, &(struct { long a, b; }){1, 0}, NULL));
	num("acct", syscall(SYS_acct, NULL));
	num("unshare CLONE_NEWNS", syscall(SYS_unshare, 0x00020000));
}
