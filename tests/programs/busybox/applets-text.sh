#!/bin/sh
# Text applets on a generated file.
seq 1 500 > numbers
awk '{ s += $1 } END { print s, NR }' numbers
sed -n '10,12p;s/^5$/five/p' numbers
grep -c 7 numbers
sort -rn numbers | head -n 3
cut -c1 numbers | sort | uniq -c
tail -n 2 numbers | tr 0-9 a-j
wc -lwc numbers
md5sum numbers; sha1sum numbers; sha256sum numbers; sha512sum numbers
od -A d -t x1 numbers | head -n 3
hexdump -C numbers | tail -n 2
printf '%s-%05d-%x\n' text 42 255
echo 'a b c' | xargs -n 1 echo item
paste -d, numbers numbers | sed -n '3p'
fold -w 10 numbers | wc -l
tac numbers | head -n 1
nl numbers | tail -n 1
expr 6 \* 7
dc -e '2 100 ^ p' 2>/dev/null || echo "no dc"
bc <<END
2^100
END
base64 numbers | md5sum
base64 numbers | base64 -d | cmp - numbers && echo same
diff -u numbers - <<END | tail -n 3
$(sed 's/^250$/changed/' numbers)
END
strings /bin/busybox | grep -c BusyBox > /dev/null && echo strings
uuencode numbers x | uudecode -o back && cmp numbers back && echo uu
