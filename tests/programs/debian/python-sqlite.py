#!/usr/bin/env python3
"""SQLite: journal modes, locks between processes, large transactions, memory-mapped reads."""

import os, sqlite3

for mode in ("delete", "wal", "truncate"):
    path = f"{mode}.db"
    c = sqlite3.connect(path)
    print(c.execute(f"pragma journal_mode={mode}").fetchone())
    c.execute("create table t (n integer primary key, s text)")
    with c:
        c.executemany("insert into t (s) values (?)", ((f"row {i}",) for i in range(5000)))
    for i in range(50):
        with c:
            c.execute("update t set s = s || ? where n % 50 = ?", ("x", i))
    print(c.execute("select count(*), sum(length(s)) from t").fetchone())
    c.execute("pragma mmap_size=10000000")
    print(c.execute("select s from t where n = 4321").fetchone())
    pid = os.fork()
    if pid == 0:
        d = sqlite3.connect(path, timeout=5)
        with d:
            d.execute("insert into t (s) values ('child')")
        d.close()
        os._exit(0)
    os.waitpid(pid, 0)
    print(c.execute("select s from t where s = 'child'").fetchone())
    d = sqlite3.connect(path, timeout=0.05)
    c.execute("begin immediate")
    try:
        d.execute("insert into t (s) values ('locked')")
    except sqlite3.OperationalError as e:
        print(e)
    c.rollback()
    d.close()
    print(c.execute("pragma integrity_check").fetchone())
    c.execute("delete from t where n % 2")
    c.commit()
    c.execute("vacuum")
    c.close()
    print(os.path.getsize(path) > 10000, sorted(n for n in os.listdir(".") if n.startswith(mode)))
ps = []
for k in range(4):
    pid = os.fork()
    if pid == 0:
        c = sqlite3.connect("wal.db", timeout=30)
        for i in range(50):
            with c:
                c.execute("insert into t (s) values (?)", (f"{k}-{i}",))
        os._exit(0)
    ps.append(pid)
print(
    [os.waitpid(p, 0)[1] for p in ps],
    sqlite3.connect("wal.db").execute("select count(*) from t where s like '_-%'").fetchone(),
)
