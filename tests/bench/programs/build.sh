# A compilation, a commit, a database.
# rows: gcc git sqlite
now() { date +%s%N; }
ms() { awk -v a="$2" -v b="$3" -v name="$1" 'BEGIN { printf "%s %.2f\n", name, (b - a) / 1e6 }'; }
mkdir c; cd c
for i in $(seq 1 24); do { echo '#include <stdio.h>'; echo '#include <stdlib.h>'; echo '#include <string.h>'; for j in $(seq 1 40); do echo "int f${i}_$j(int *a, int n) { int s = 0; for (int i = 0; i < n; i++) s += a[i] * $j + i % $i; return s; }"; done; } > "f$i.c"; done
printf 'all: $(patsubst %%.c,%%.o,$(wildcard *.c))\n%%.o: %%.c ; @gcc -O2 -c -o $@ $<\n' > Makefile
make -s f1.o; rm f1.o
a=$(now); make -s -j2; b=$(now); ms gcc "$a" "$b"
cd ..; mkdir g; cd g; for i in $(seq 1 2000); do mkdir -p "d$((i % 40))"; echo "file $i" > "d$((i % 40))/f$i"; done
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
a=$(now); git init -q .; git add .; git commit -q -m all; b=$(now); ms git "$a" "$b"
cd ..
cat > s.py <<'END'
import sqlite3, time
c = sqlite3.connect("s.db"); c.execute("pragma journal_mode=wal"); c.execute("pragma synchronous=normal"); c.execute("create table t (n integer primary key, s text)")
a = time.perf_counter()
for i in range(10000):
    c.execute("insert into t (s) values (?)", (f"row {i}",)); c.commit()
print(f"sqlite {(time.perf_counter() - a) * 1000:.2f}")
END
python3 s.py
