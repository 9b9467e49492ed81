#!/bin/sh
# File applets: trees, links, modes, times, searching, archives.
set -e
umask 022
mkdir -p tree/a/b tree/c
for i in 1 2 3; do echo "file $i" > tree/a/f$i; done
ln tree/a/f1 tree/c/hard
ln -s ../a/f2 tree/c/soft
mkfifo tree/fifo
chmod 4755 tree/a/f3
touch -d '2020-01-02 03:04:05' tree/a/f1
find tree | sort
find tree -type l -o -perm -4000 | sort
find tree -name 'f*' -newer tree/a/f1 | sort
stat -c '%n %F %a %h %s %u:%g' tree/a/f1 tree/c/soft tree/a/f3
date -u -r tree/a/f1
ls -l tree/a | awk '{ print $1, $2, $3, $5, $NF }'
ls -R tree
readlink -f tree/c/soft
du -s tree > /dev/null
cp -a tree copy
diff -r tree/a copy/a && echo "the copy agrees"
mv copy moved
rm -r moved/a
ls moved
tar cf t.tar tree && tar tf t.tar | sort
tar czf t.tgz tree && mkdir x && tar xzf t.tgz -C x && diff tree/a x/tree/a && echo tar
echo tree/a/f1 | cpio -o -H newc 2> /dev/null | cpio -t 2> /dev/null
gzip -k t.tar && gunzip -c t.tar.gz | cmp - t.tar && echo gzip
bzip2 -k t.tar && bunzip2 -c t.tar.bz2 | cmp - t.tar && echo bzip2
dd if=/dev/zero of=zeros bs=4k count=100 2> /dev/null; wc -c < zeros
truncate -s 1M sparse; wc -c < sparse
cmp zeros sparse 2>&1 || true
rmdir "$(mktemp -d t.XXXXXX)" && echo mktemp
df . > /dev/null && echo df
rm -rf tree x; ls
sync
