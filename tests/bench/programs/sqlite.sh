# Small transactions.
# rows: sqlite
cat > s.py <<'END'
import sqlite3, time
c = sqlite3.connect("s.db"); c.execute("pragma journal_mode=wal"); c.execute("pragma synchronous=normal"); c.execute("create table t (n integer primary key, s text)")
a = time.perf_counter()
for i in range(10000):
    c.execute("insert into t (s) values (?)", (f"row {i}",)); c.commit()
print(f"sqlite {(time.perf_counter() - a) * 1000:.2f}")
END
python3 s.py
