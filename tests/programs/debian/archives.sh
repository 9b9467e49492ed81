#!/bin/bash
# tar, gzip, bzip2, xz: round trips of a real tree.
set -e
src=/usr/lib/python3.11
tar cf a.tar -C "$src" --sort=name json email collections
tar tf a.tar | md5sum; wc -c < a.tar
mkdir x; tar xf a.tar -C x; diff -r "$src/json" x/json && echo "tar agrees"
for z in gzip bzip2 xz; do $z -k -c a.tar > a.$z; $z -dc a.$z | cmp - a.tar && echo "$z agrees"; done
xz -T2 -c a.tar | xz -t && echo "xz with threads"
tar czf - -C "$src" asyncio | tar tzf - | wc -l
tar cJf a.txz -C "$src" json; tar xJf a.txz -O json/decoder.py | cmp - "$src/json/decoder.py" && echo "extracted to a pipe"
mkdir -p s/d; echo x > s/f; ln s/f s/hard; ln -s f s/soft; mkfifo s/fifo; chmod 2750 s/d; truncate -s 5M s/sparse
tar cSf s.tar s; rm -rf s; tar xpf s.tar; stat -c '%n %F %a %h %s' s/*; wc -c < s.tar
echo new > s/f; touch -d 2040-01-01 s/f; tar uf s.tar s/f; tar --delete -f s.tar s/fifo; tar tf s.tar | sort | uniq -c
gzip -l a.gzip | tail -n 1 | awk '{ print $2 }'
split -b 100k a.gzip part.; cat part.* | cmp - a.gzip && echo "joined"
tar cf - a.tar 2> /dev/null | (cd x && tar xf - && cmp a.tar ../a.tar && echo "through a pipe")
