/* Terminals: pty(7), termios(3), ioctl_tty(2), job control (credentials(7), setpgid(2), tcsetpgrp(3)). */
#include "guest.h"

#include <poll.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>
#include <termios.h>

static int master, slave;

/* Opens a pty pair; the slave is not (yet) a controlling terminal. */
static void open_pair(void)
{
	char path[32];
	int number, unlock = 0;
	master = must(open("/dev/ptmx", O_RDWR | O_NOCTTY));
	must(ioctl(master, TIOCGPTN, &number));
	must(ioctl(master, TIOCSPTLCK, &unlock));
	snprintf(path, sizeof path, "/dev/pts/%d", number);
	slave = must(open(path, O_RDWR | O_NOCTTY));
}

/* Prints bytes with control characters visible. */
static void show(const char *what, const char *bytes, ssize_t length)
{
	char line[512];
	int used = 0;
	if (length < 0) {
		say("%s: %s", what, error_name(errno));
		return;
	}
	for (ssize_t index = 0; index < length && used < 480; index++) {
		unsigned char byte = bytes[index];
		if (byte == '\n')
			used += snprintf(line + used, sizeof line - used, "\\n");
		else if (byte == '\r')
			used += snprintf(line + used, sizeof line - used, "\\r");
		else if (byte < 32 || byte >= 127)
			used += snprintf(line + used, sizeof line - used, "\\x%02x", byte);
		else
			line[used++] = byte;
	}
	line[used] = 0;
	say("%s: \"%s\"", what, line);
}

static void read_from(const char *what, int fd)
{
	char buffer[256];
	struct pollfd ready = {fd, POLLIN, 0};
	if (poll(&ready, 1, 200) == 0) {
		say("%s: nothing", what);
		return;
	}
	show(what, buffer, read(fd, buffer, sizeof buffer));
}

static void put(int fd, const char *text) { must(write(fd, text, strlen(text))); }

/* What the master writes reaches the line discipline a moment later. */
static void settle(void) { nap(30); }

static struct termios settings(void)
{
	struct termios settings;
	must(tcgetattr(slave, &settings));
	return settings;
}

static void set(struct termios settings) { must(tcsetattr(slave, TCSANOW, &settings)); }

CASE(opening)
{
	struct stat info;
	int number, locked = 1;
	master = must(open("/dev/ptmx", O_RDWR | O_NOCTTY));
	num("TIOCGPTN", ioctl(master, TIOCGPTN, &number));
	char path[32];
	snprintf(path, sizeof path, "/dev/pts/%d", number);
	must(ioctl(master, TIOCGPTLCK, &locked));
	num("locked at first", locked);
	num("open of a locked one", open(path, O_RDWR | O_NOCTTY));
	num("unlock", ioctl(master, TIOCSPTLCK, &(int){0}));
	slave = ok("open", open(path, O_RDWR | O_NOCTTY));
	must(fstat(slave, &info));
	say("character device %d, mode %o, gid %u", S_ISCHR(info.st_mode), info.st_mode & 0777, info.st_gid);
	yes("isatty", isatty(slave) && isatty(master));
	yes("ttyname", strcmp(ttyname(slave), path) == 0);
	num("isatty of a pipe", ({ int p[2]; must(pipe(p)); isatty(p[0]); }));
	int peer = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY);
	ok("TIOCGPTPEER", peer);
	close(master);
	char byte;
	num("slave reads after the master closed", read(slave, &byte, 1));
	num("slave writes after the master closed", write(slave, "x", 1));
	num("its name is gone", open(path, O_RDWR));
}

CASE(default_settings)
{
	open_pair();
	struct termios now = settings();
	say("iflag %#o oflag %#o cflag %#o lflag %#o", now.c_iflag, now.c_oflag, now.c_cflag, now.c_lflag);
	show("control characters", (char *)now.c_cc, 17);
	num("speed is B38400", cfgetospeed(&now) == B38400);
	num("line discipline", now.c_line);
}

CASE(canonical_input)
{
	open_pair();
	put(master, "a line\n");
	read_from("slave", slave);
	read_from("echo", master);
	put(master, "no newline");
	read_from("an unfinished line", slave);
	put(master, " yet\nsecond\n");
	read_from("one line a read", slave);
	read_from("then the next", slave);
	put(master, "long line\n");
	char buffer[5];
	show("a small read takes a part", buffer, read(slave, buffer, 4));
	read_from("the rest stays", slave);
}

CASE(line_editing)
{
	open_pair();
	put(master, "abc\x7f\x7fX\n");
	read_from("erase", slave);
	read_from("its echo", master);
	put(master, "gone\x15kept\n");
	read_from("kill", slave);
	read_from("its echo", master);
	put(master, "two words\x17one\n");
	read_from("word erase", slave);
	read_from("its echo", master);
	put(master, "a\x16\x03z\n");
	read_from("literal next", slave);
	read_from("its echo", master);
	put(master, "part\x04");
	read_from("end of file in a line", slave);
	put(master, "\x04");
	read_from("end of file alone", slave);
}

CASE(output_processing)
{
	open_pair();
	put(slave, "one\ntwo\n");
	read_from("ONLCR", master);
	struct termios now = settings();
	now.c_oflag &= ~OPOST;
	set(now);
	put(slave, "one\ntwo\n");
	read_from("no OPOST", master);
	now.c_oflag = OPOST | OCRNL;
	set(now);
	put(slave, "a\rb\n");
	read_from("OCRNL", master);
	now.c_oflag = OPOST | OLCUC;
	set(now);
	put(slave, "upper");
	read_from("OLCUC", master);
	now.c_oflag = OPOST | TABDLY;
	set(now);
	put(slave, "a\tb");
	read_from("XTABS", master);
}

CASE(input_processing)
{
	open_pair();
	struct termios now = settings();
	now.c_lflag &= ~ECHO;
	set(now);
	put(master, "a\r");
	read_from("ICRNL", slave);
	now.c_iflag = 0;
	set(now);
	put(master, "a\rb\n");
	read_from("no ICRNL", slave);
	now.c_iflag = IGNCR;
	set(now);
	put(master, "a\rb\n");
	read_from("IGNCR", slave);
	now.c_iflag = INLCR;
	now.c_lflag &= ~ICANON;
	set(now);
	put(master, "a\n");
	read_from("INLCR", slave);
	now.c_iflag = ISTRIP;
	set(now);
	put(master, "\xe1");
	read_from("ISTRIP", slave);
	now.c_iflag = IUCLC;
	now.c_lflag |= IEXTEN;
	set(now);
	put(master, "ABC");
	read_from("IUCLC", slave);
}

CASE(echo_modes)
{
	open_pair();
	struct termios now = settings();
	put(master, "\x01\n");
	read_from("control characters echo as ^X", master);
	read_from("slave", slave);
	now.c_lflag &= ~ECHOCTL;
	set(now);
	put(master, "\x01\n");
	read_from("without ECHOCTL", master);
	read_from("slave", slave);
	now.c_lflag &= ~ECHO;
	set(now);
	put(master, "silent\n");
	read_from("without ECHO", master);
	read_from("slave", slave);
	now.c_lflag |= ECHONL;
	set(now);
	put(master, "silent\n");
	read_from("ECHONL", master);
}

CASE(raw_mode)
{
	open_pair();
	struct termios now = settings();
	cfmakeraw(&now);
	set(now);
	put(master, "a\x03\x04\r\n");
	read_from("everything passes", slave);
	read_from("no echo", master);
	put(slave, "x\n");
	read_from("no processing", master);
}

static long timed_read(int minimum, int tenths, int bytes, int available)
{
	char buffer[64];
	struct termios now = settings();
	cfmakeraw(&now);
	now.c_cc[VMIN] = minimum;
	now.c_cc[VTIME] = tenths;
	set(now);
	for (int index = 0; index < available; index++)
		put(master, "x");
	return read(slave, buffer, bytes);
}

CASE(minimum_and_time)
{
	open_pair();
	num("MIN 0 TIME 0, nothing there", timed_read(0, 0, 10, 0));
	num("MIN 0 TIME 0, some there", timed_read(0, 0, 10, 3));
	num("MIN 0 TIME 1, nothing comes", timed_read(0, 1, 10, 0));
	num("MIN 3 TIME 0", timed_read(3, 0, 10, 3));
	num("MIN 5 TIME 1, two come", timed_read(5, 1, 10, 2));
	num("MIN 5, but only 2 asked for", timed_read(5, 0, 2, 2));
	pid_t child = must(fork());
	if (child == 0) {
		num("MIN 4 waits for all", timed_read(4, 0, 10, 0));
		_exit(0);
	}
	until_asleep(child);
	put(master, "ab");
	nap(10);
	put(master, "cd");
	reap(child);
	must(fcntl(slave, F_SETFL, O_NONBLOCK));
	num("O_NONBLOCK", timed_read(1, 0, 10, 0));
}

CASE(changing_settings)
{
	open_pair();
	struct termios now = settings(), again;
	now.c_cc[VERASE] = 'e';
	put(master, "typed");
	settle();
	must(tcsetattr(slave, TCSAFLUSH, &now));
	put(master, "abe\n");
	read_from("TCSAFLUSH dropped what was typed", slave);
	again = settings();
	say("VERASE %c", again.c_cc[VERASE]);
	num("bad pointer", ioctl(slave, TCSETS, 8));
	num("no terminal", tcsetattr(must(open("/dev/null", O_RDWR)), TCSANOW, &now));
	num("tcdrain", tcdrain(slave));
	put(master, "lost\n");
	settle();
	num("tcflush", tcflush(slave, TCIFLUSH));
	num("FIONREAD", ({ int n; must(ioctl(slave, FIONREAD, &n)); n; }));
	put(slave, "output");
	num("TIOCOUTQ", ({ int n; must(ioctl(slave, TIOCOUTQ, &n)); n; }));
	num("tcsendbreak", tcsendbreak(slave, 0));
	num("tcflow off", tcflow(slave, TCOOFF));
	num("tcflow on", tcflow(slave, TCOON));
	must(cfsetspeed(&now, B9600));
	set(now);
	again = settings();
	yes("speed kept", cfgetispeed(&again) == B9600);
}

CASE(window_size)
{
	open_pair();
	struct winsize size = {0};
	must(ioctl(slave, TIOCGWINSZ, &size));
	say("%u x %u", size.ws_row, size.ws_col);
	size = (struct winsize){24, 80, 0, 0};
	num("TIOCSWINSZ", ioctl(master, TIOCSWINSZ, &size));
	memset(&size, 0, sizeof size);
	must(ioctl(slave, TIOCGWINSZ, &size));
	say("%u x %u", size.ws_row, size.ws_col);
}

static volatile sig_atomic_t caught[65];
static void note(int number) { caught[number]++; }

/* Runs the body in a child that leads a session with the slave as its controlling terminal; says how it ended. */
static void in_session(void (*body)(void))
{
	pid_t child = must(fork());
	if (child == 0) {
		must(setsid());
		must(ioctl(slave, TIOCSCTTY, 0));
		body();
		_exit(0);
	}
	int wait_status = reap(child);
	status("session leader", wait_status);
}

static void controlling(void)
{
	pid_t group;
	num("tcgetpgrp is the leader's", tcgetpgrp(slave) == getpid());
	num("tcgetsid", tcgetsid(slave) == getsid(0));
	ok("/dev/tty", open("/dev/tty", O_RDWR));
	num("TIOCSCTTY again", ioctl(slave, TIOCSCTTY, 0));
	must(ioctl(master, TIOCGPGRP, &group));
	num("the master tells the foreground group too", group == getpid());
	num("a group of no session", tcsetpgrp(slave, 99999));
	struct winsize size = {50, 100, 0, 0};
	on_signal(SIGWINCH, note, 0);
	must(ioctl(master, TIOCSWINSZ, &size));
	num("SIGWINCH", caught[SIGWINCH]);
	must(ioctl(master, TIOCSWINSZ, &size));
	num("the same size again: none", caught[SIGWINCH] - 1);
	signal(SIGHUP, SIG_IGN);
	num("TIOCNOTTY", ioctl(slave, TIOCNOTTY));
	ok("/dev/tty afterwards", open("/dev/tty", O_RDWR));
}

CASE(controlling_terminal)
{
	open_pair();
	num("before: tcgetpgrp", tcgetpgrp(slave));
	in_session(controlling);
}

static void keyboard(void)
{
	for (int number = 1; number < 32; number++)
		if (number == SIGINT || number == SIGQUIT || number == SIGTSTP)
			on_signal(number, note, SA_RESTART);
	put(master, "typed\x03");
	until_changed(&caught[SIGINT], 0);
	num("^C", caught[SIGINT]);
	put(master, "\x1c");
	until_changed(&caught[SIGQUIT], 0);
	num("^\\", caught[SIGQUIT]);
	put(master, "\x1a");
	until_changed(&caught[SIGTSTP], 0);
	num("^Z", caught[SIGTSTP]);
	put(master, "after\n");
	read_from("what was typed before ^C is gone", slave);
	read_from("echo", master);
	struct termios now = settings();
	now.c_lflag |= NOFLSH;
	set(now);
	put(master, "kept\x03\n");
	until_changed(&caught[SIGINT], 1);
	read_from("NOFLSH", slave);
	now.c_lflag &= ~ISIG;
	set(now);
	put(master, "\x03\n");
	read_from("no ISIG", slave);
	num("^C", caught[SIGINT]);
}

CASE(keyboard_signals)
{
	open_pair();
	in_session(keyboard);
}

static void background(void)
{
	struct turn ready = turn_new();
	signal(SIGTTOU, SIG_IGN);
	pid_t child = must(fork());
	if (child == 0) {
		char byte;
		setpgid(0, 0);
		signal(SIGTTOU, SIG_DFL);
		turn_give(ready);
		read(slave, &byte, 1);
		say("child continues");
		struct termios now = settings();
		set(now);
		say("child continues again");
		put(slave, "output is allowed without TOSTOP\n");
		now.c_lflag |= TOSTOP;
		set(now);
		put(slave, "with TOSTOP\n");
		_exit(0);
	}
	setpgid(child, child);
	turn_take(ready);
	int wait_status;
	must(waitpid(child, &wait_status, WUNTRACED));
	status("reading in the background", wait_status);
	num("to the foreground", tcsetpgrp(slave, child));
	put(master, "x\n");
	kill(-child, SIGCONT);
	until_asleep(child);
	/* It read its line; now it changes settings: in the foreground that is allowed. */
	must(waitpid(child, &wait_status, WUNTRACED));
	status("all in the foreground", wait_status);
	num("back", tcsetpgrp(slave, getpid()));
}

CASE(job_control)
{
	open_pair();
	in_session(background);
}

static void background_output(void)
{
	struct termios now = settings();
	now.c_lflag |= TOSTOP;
	set(now);
	pid_t child = must(fork());
	if (child == 0) {
		setpgid(0, 0);
		put(slave, "x");
		_exit(0);
	}
	setpgid(child, child);
	int wait_status;
	must(waitpid(child, &wait_status, WUNTRACED));
	status("writing with TOSTOP", wait_status);
	kill(child, SIGKILL);
	reap(child);
	child = must(fork());
	if (child == 0) {
		setpgid(0, 0);
		set(now);
		_exit(0);
	}
	setpgid(child, child);
	must(waitpid(child, &wait_status, WUNTRACED));
	status("tcsetattr in the background", wait_status);
	kill(child, SIGKILL);
	reap(child);
	child = must(fork());
	if (child == 0) {
		setpgid(0, 0);
		signal(SIGTTIN, SIG_IGN);
		char byte;
		num("reading with SIGTTIN ignored", read(slave, &byte, 1));
		_exit(0);
	}
	setpgid(child, child);
	status("child", reap(child));
}

CASE(background_access)
{
	open_pair();
	in_session(background_output);
}

static void hang_up(void)
{
	on_signal(SIGHUP, note, 0);
	on_signal(SIGCONT, note, 0);
	close(master);
	until_changed(&caught[SIGHUP], 0);
	until_changed(&caught[SIGCONT], 0);
	num("SIGHUP", caught[SIGHUP]);
	num("SIGCONT", caught[SIGCONT]);
	char byte;
	num("read", read(slave, &byte, 1));
}

CASE(master_closes)
{
	open_pair();
	pid_t child = must(fork());
	if (child == 0) {
		must(setsid());
		must(ioctl(slave, TIOCSCTTY, 0));
		hang_up();
		_exit(0);
	}
	close(master);
	status("session leader", reap(child));
}

CASE(leader_exit_hangs_up)
{
	open_pair();
	struct turn ready = turn_new(), done = turn_new();
	pid_t leader = must(fork());
	if (leader == 0) {
		must(setsid());
		must(ioctl(slave, TIOCSCTTY, 0));
		if (must(fork()) == 0) {
			on_signal(SIGHUP, note, 0);
			turn_give(ready);
			for (int round = 0; round < 2000 && !caught[SIGHUP]; round++)
				nap(1);
			num("the foreground group gets SIGHUP", caught[SIGHUP]);
			turn_give(done);
			_exit(0);
		}
		turn_take(ready);
		_exit(0);
	}
	reap(leader);
	turn_take(done);
}

CASE(inherited_streams_are_no_terminals)
{
	struct termios settings = {0};
	struct winsize size = {0};
	/* Asked twice: the second answer may come from memory. (Standard output is a serial line in tests/hwkvm.) */
	for (int round = 0; round < 2; round++)
		for (int fd = 0; fd < 3; fd += 2) {
			ok("TCGETS", ioctl(fd, TCGETS, &settings));
			ok("TCSETS", ioctl(fd, TCSETS, &settings));
			ok("TIOCGWINSZ", ioctl(fd, TIOCGWINSZ, &size));
		}
	ok("FIONREAD", ioctl(2, FIONREAD, &(int){0}));
}

static void polled(const char *what, int fd)
{
	struct pollfd ready = {fd, POLLIN | POLLOUT, 0};
	poll(&ready, 1, 0);
	say("%s %#x", what, ready.revents);
}

CASE(terminal_outlives_its_session)
{
	open_pair();
	pid_t leader = must(fork());
	if (leader == 0) {
		must(setsid());
		must(ioctl(slave, TIOCSCTTY, 0));
		_exit(0);
	}
	reap(leader);
	polled("slave", slave);
	must(fcntl(master, F_SETFL, O_NONBLOCK));
	polled("master", master);
	char byte;
	ok("read", read(master, &byte, 1));
	put(slave, "x");
	read_from("master", master);
	put(master, "line\n");
	read_from("slave", slave);
	leader = must(fork());
	if (leader == 0) {
		must(setsid());
		ok("of another session", ioctl(slave, TIOCSCTTY, 0));
		_exit(0);
	}
	reap(leader);
}

CASE(master_polling)
{
	open_pair();
	polled("idle", master);
	put(slave, "x");
	polled("output", master);
	read_from("master", master);
	close(slave);
	polled("no slave", master);
	char byte;
	num("read", read(master, &byte, 1));
}

CASE(packet_mode)
{
	open_pair();
	num("TIOCPKT", ioctl(master, TIOCPKT, &(int){1}));
	put(slave, "data");
	read_from("data", master);
	must(tcflush(slave, TCIFLUSH));
	read_from("flush", master);
}

CASE(more_than_a_minor_of_eight_bits)
{
	enum { MOST = 300 };
	must(setrlimit(RLIMIT_NOFILE, &(struct rlimit){2 * MOST + 100, 2 * MOST + 100}));
	int numbered = 0, named = 0;
	for (int pair = 0; pair < MOST; pair++) {
		char path[32];
		int number;
		struct stat open_one, by_name;
		open_pair();
		must(ioctl(master, TIOCGPTN, &number));
		snprintf(path, sizeof path, "/dev/pts/%d", number);
		must(fstat(slave, &open_one));
		must(stat(path, &by_name));
		numbered += open_one.st_rdev == makedev(136, number);
		named += by_name.st_rdev == open_one.st_rdev;
	}
	say("of %d slaves: device number %d, the same by name %d", MOST, numbered, named);
}

CASE(shell_on_a_terminal)
{
	/* An interactive shell: prompt, echo, job control and exit, as a user sees them. */
	pid_t child = forkpty(&master, NULL, NULL, &(struct winsize){24, 80, 0, 0});
	if (must(child) == 0) {
		setenv("PS1", "$ ", 1);
		execl("/bin/busybox", "sh", "-i", NULL);
		_exit(127);
	}
	struct termios now;
	must(tcgetattr(master, &now));
	put(master, "stty size; exit 3\n");
	char all[8192] = "";
	size_t length = 0;
	for (ssize_t got; length < sizeof all - 1 && (got = read(master, all + length, sizeof all - 1 - length)) > 0;)
		length += got;
	yes("the size is shown", strstr(all, "24 80\r\n") != NULL);
	yes("a prompt is shown", strstr(all, "$ ") != NULL);
	status("shell", reap(child));
}
