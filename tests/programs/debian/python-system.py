#!/usr/bin/env python3
"""mmap, signal, select, os, socket, tempfile, shutil, fcntl and time, the ways programs use them."""

import ctypes, errno, faulthandler, fcntl, io, mmap, os, pathlib, select, shutil, signal, socket, stat, subprocess, sys, tempfile, time, zipfile

with open("f", "w+b") as f:
    f.write(b"a" * 100000)
    f.flush()
    m = mmap.mmap(f.fileno(), 0)
    m[5000:5005] = b"hello"
    m.flush()
    f.seek(5000)
    print(f.read(5), m.find(b"hello"), len(m))
    m.resize(200000)
    print(os.path.getsize("f"))
    m.close()
a = mmap.mmap(-1, 8192)
pid = os.fork()
if pid == 0:
    a[:5] = b"child"
    os._exit(0)
os.waitpid(pid, 0)
print(a[:5])
a.madvise(mmap.MADV_DONTNEED) if hasattr(a, "madvise") else None
got = []
for s in (signal.SIGUSR1, signal.SIGALRM, signal.SIGCHLD):
    signal.signal(s, lambda n, _: got.append(signal.Signals(n).name))
os.kill(os.getpid(), signal.SIGUSR1)
signal.setitimer(signal.ITIMER_REAL, 0.02)
t = time.monotonic()
time.sleep(0.1)
print(got, time.monotonic() - t >= 0.1)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
os.kill(os.getpid(), signal.SIGUSR2)
print(signal.sigpending(), signal.sigwait([signal.SIGUSR2]).name)
r, w = os.pipe()
os.set_blocking(w, False)
signal.set_wakeup_fd(w)
os.kill(os.getpid(), signal.SIGUSR1)
print(os.read(r, 10))
signal.set_wakeup_fd(-1)
a, b = socket.socketpair()
e = select.epoll()
e.register(a, select.EPOLLIN)
print(e.poll(0))
b.send(b"x")
print([x[1] for x in e.poll(1)])
print(select.select([a], [a], [], 1)[0] == [a])
socket.send_fds(b, [b"fd"], [os.open("f", os.O_RDONLY)])
a.recv(1)
data, fds, _, _ = socket.recv_fds(a, 10, 5)
print(data, os.pread(fds[0], 5, 5000))
with socket.create_server(("127.0.0.1", 0)) as server:
    c = socket.create_connection(server.getsockname())
    s, _ = server.accept()
    pid = os.fork()
    if pid == 0:
        c.sendall(b"y" * 1000000)
        os._exit(0)
    n = 0
    while n < 1000000:
        n += len(s.recv(65536))
    os.waitpid(pid, 0)
    print(n)
print(socket.getaddrinfo("localhost", 80, socket.AF_INET, socket.SOCK_STREAM), socket.gethostname())
for n, h in (
    (errno.ENOENT, lambda: os.open("absent", 0)),
    (errno.ENOTDIR, lambda: os.listdir("f")),
    (errno.EEXIST, lambda: os.mkdir(".")),
):
    try:
        h()
    except OSError as error:
        print(error.errno == n, type(error).__name__)
with tempfile.TemporaryDirectory() as d:
    p = pathlib.Path(d)
    (p / "a/b").mkdir(parents=True)
    (p / "a/b/c").write_text("text")
    os.symlink("b/c", p / "a/l")
    os.link(p / "a/b/c", p / "a/h")
    shutil.copytree(p / "a", p / "z", symlinks=True)
    print(
        sorted(str(x.relative_to(p)) for x in p.rglob("*")),
        os.stat(p / "a/h").st_nlink,
        (p / "z/l").is_symlink(),
        stat.filemode((p / "a").stat().st_mode),
    )
    shutil.make_archive(d + "/arch", "zip", p / "a")
    print(sorted(zipfile.ZipFile(d + "/arch.zip").namelist()))
    os.setxattr(p / "a/h", "user.k", b"v")
    print(os.getxattr(p / "a/h", "user.k"), os.listxattr(p / "a/b/c"))
    os.utime(p / "a/h", ns=(10**9, 2 * 10**9))
    print(os.stat(p / "a/b/c").st_mtime_ns)
    shutil.rmtree(p / "a")
    print(sorted(os.listdir(p)))
with open("l", "w") as f:
    fcntl.flock(f, fcntl.LOCK_EX)
    pid = os.fork()
    if pid == 0:
        try:
            fcntl.flock(open("l"), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os._exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(
    os.sched_getaffinity(0) <= set(range(os.cpu_count())),
    os.getpriority(os.PRIO_PROCESS, 0),
    len(os.urandom(16)),
    os.uname().sysname,
    os.ctermid(),
    os.cpu_count() >= 1,
    len(os.getrandom(8)),
)
m = os.memfd_create("m")
os.write(m, b"memory")
print(
    os.pread(m, 10, 0),
    os.copy_file_range(os.open("f", os.O_RDONLY), os.open("o", os.O_RDWR | os.O_CREAT), 3, 5000),
    os.sendfile(os.open("o2", os.O_RDWR | os.O_CREAT), m, 0, 4),
    os.eventfd_read(os.eventfd(5)),
)
print(
    subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", "import ctypes; ctypes.string_at(8)"], capture_output=True
    ).returncode,
    ctypes.CDLL(None).getpid() == os.getpid(),
)
print(len(list(os.scandir("/usr/lib/python3.11"))), sum(len(f) for _, _, f in os.walk("/usr/lib/python3.11/json")))
big = bytearray(200 << 20)
big[::4096] = b"x" * len(big[::4096])
print(big.count(b"x"))
del big
