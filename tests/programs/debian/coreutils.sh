#!/bin/bash
# GNU coreutils on files, text, numbers and sums.
set -o pipefail
seq 1 20000 > n
sort -R n | sort -n --parallel=2 | cmp - n && echo sorted
sort -t, -k2n -k1 <(paste -d, n <(tac n)) | head -n 2
shuf -i 1-100 | sort -n | tail -n 1
factor 1234567890123 97
numfmt --to=iec 1048576
sum n; b2sum n; sha384sum n; cksum n
join <(seq 1 5 | awk '{print $1, "a"}') <(seq 3 7 | awk '{print $1, "b"}')
comm -13 <(seq 1 5) <(seq 3 7)
pr -3 -t -l 10 n | head -n 2
fmt -w 40 <<< "$(yes word | head -n 30 | tr '\n' ' ')"
csplit -s n 10000 && wc -l xx00 xx01
dd if=n of=m bs=1000 skip=2 count=3 conv=notrunc status=none; wc -c m
cp --reflink=auto --sparse=always -a n copy; cmp n copy && stat -c '%s %a' copy
cp -l n hard; stat -c %h n; ln -sr n soft; readlink soft
truncate -s 10M sparse; [ "$(du -k sparse | cut -f1)" -lt 100 ] && echo sparse
touch -d '2001-02-03 04:05:06.789' t; date -u -r t '+%F %T.%N'
mkdir -p a/b/c; rmdir -p a/b/c; ls -d a 2> /dev/null || echo removed
chmod u=rwx,g=rx,o= t; stat -c '%A %a' t
install -D -m 751 n x/y/z; stat -c %a x/y/z
od -An -tx8 -N16 n; head -c 5 n | xxd 2> /dev/null || head -c 5 n | od -c
tail -n +19998 n; tail -c 6 n
timeout 0.2 sleep 10; echo "timeout $?"
nice -n 5 nice; nohup echo nohup 2> /dev/null
env -i A=1 B=2 env | sort
stdbuf -oL echo stdbuf
tee one two < <(echo tee) | cat - one two
expr length abc; expr match abcd 'ab'
test -nt n 2> /dev/null; [ n -ef hard ] && echo same
ls -l --time-style=+ n hard | awk '{print $1, $2, $5}'
ls -laR x | wc -l
df --output=target /tmp | tail -n 1
id; groups; who | wc -l; tty
split -n 4 -d n piece; cat piece0* | cmp - n && echo split
mktemp -u XXXX | wc -c
realpath -m a/../b; basename a/b.c .c; dirname a/b
sync n; shred -u -n 1 m && echo shredded
