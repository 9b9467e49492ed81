#!/usr/bin/env python3
"""Child processes: pipes, signals, sessions, descriptors, limits, os.spawn and posix_spawn."""

import os, resource, signal, subprocess, sys

run = lambda *a, **k: subprocess.run(*a, capture_output=True, text=True, **k)
print(run(["echo", "hello"]).stdout, run("exit 3", shell=True).returncode, run(["sh", "-c", "kill -9 $$"]).returncode)
print(run(["cat"], input="x" * 200000).stdout.count("x"))
p = subprocess.Popen(["sort", "-n"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
print(p.communicate("\n".join(map(str, range(5000, 0, -1))).encode())[0].split()[:3])
try:
    run(["sleep", "10"], timeout=0.1)
except subprocess.TimeoutExpired as e:
    print("timeout", e.cmd)
for bad in (["/absent"], ["/etc/passwd"], ["/"]):
    try:
        run(bad)
    except OSError as e:
        print(type(e).__name__, e.errno)
print(run(["sh", "-c", "echo $A; pwd"], env={"A": "1", "PATH": os.environ["PATH"]}, cwd="/usr").stdout)
print(
    run(
        [sys.executable, "-c", "import os; print(os.getsid(0) == os.getpid(), os.getuid(), os.umask(0))"],
        start_new_session=True,
        user=1000,
        umask=0o27,
    ).stdout
)
r, w = os.pipe()
os.set_inheritable(w, True)
subprocess.run(["sh", "-c", f"echo inherited >&{w}"], pass_fds=[w])
os.close(w)
print(os.read(r, 100))
a = subprocess.Popen(["seq", "1", "1000"], stdout=subprocess.PIPE)
b = subprocess.Popen(["wc", "-l"], stdin=a.stdout, stdout=subprocess.PIPE)
a.stdout.close()
print(b.communicate()[0])
children = [subprocess.Popen(["sh", "-c", f"exit {i}"]) for i in range(20)]
print([c.wait() for c in children])
print(run(["sh", "-c", "ulimit -n"], preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50))).stdout)
pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 9"], os.environ)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(os.spawnlp(os.P_WAIT, "sh", "sh", "-c", "exit 4"), os.system("exit 5") >> 8, os.popen("echo popen").read())
s = subprocess.Popen(["sleep", "100"])
s.send_signal(signal.SIGSTOP)
print(os.WIFSTOPPED(os.waitpid(s.pid, os.WUNTRACED)[1]))
s.terminate()
s.send_signal(signal.SIGCONT)
print(s.wait())
pid = os.fork()
if pid == 0:
    os._exit(6)
print(os.waitstatus_to_exitcode(os.waitid(os.P_PID, pid, os.WEXITED).si_status << 8), os.WEXITSTATUS(0x300))
import pty

pty.spawn(["sh", "-c", "tty > /dev/null && echo on a terminal; stty size > /dev/null && echo stty"])
