#!/bin/bash
# find and xargs over a tree of a few thousand files, and over /usr.
mkdir t; cd t
for d in {1..40}; do mkdir -p "d$d/sub"; for f in {1..40}; do echo "$d $f" > "d$d/sub/f$f"; done; done
find . -type f | wc -l
find . -name 'f1*' -path '*d2*' | sort | md5sum
find . -type f -size -10c -newermt 2001-01-01 | wc -l
find . -mindepth 2 -maxdepth 2 -type d | wc -l
find . -type f -print0 | xargs -0 cat | sort | md5sum
find . -type f -name f1 -exec grep -l '^3 ' {} +
find . -type f -print0 | xargs -0 -P 4 -n 50 wc -c | awk '/total/ { s += $1 } END { print s }'
find . -name 'f4*' -delete; find . -type f | wc -l
find . -type f -perm 644 -user root -printf '%m %u %s\n' | sort | uniq -c
find /usr -xdev -type f | wc -l
find /usr/lib -xdev -name '*.so*' -type l -printf '%f %l\n' | sort | md5sum
find /usr -xdev -type f -size +1M -printf '%s %P\n' | sort | md5sum
