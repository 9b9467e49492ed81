#!/bin/bash
# Searching and editing text.
seq 1 50000 | awk '{ printf "%d %s line %x\n", $1, ($1 % 3 ? "odd" : "three"), $1 * 7919 }' > text
grep -c three text; grep -E '^(12|34)[0-9]{2} ' text | wc -l; grep -P '\b7\d+ th' text | head -n 2
grep -rn 'line ff$' . | head -n 3; grep -o '[a-f]\{4\}' text | sort | uniq -c | sort -rn | head -n 3
grep -v line text; echo "none: $?"; grep -q absent text; echo "absent: $?"; grep x absent 2> /dev/null; echo "error: $?"
grep -A1 -B1 '^500 ' text; zgrep -c three <(gzip < text) 2> /dev/null || echo "zgrep"
sed -n -E '100{s/([a-z]+) line/<\1>/;p}' text
sed -i.bak '1,49990d;s/line/LINE/' text; wc -l text text.bak
sed ':a;N;$!ba;s/\n/|/g' <(seq 1 5); sed '$!d' text; sed = <(echo x) | sed 'N;s/\n/ /'
awk '{ c[$2]++; s += length } END { for (k in c) print k, c[k]; print s }' text.bak | sort
gawk 'BEGIN { "echo from a command" | getline x; print x; print strftime("%Y", 0, 1); printf "%.3f\n", atan2(0, -1) }'
gawk 'BEGIN { cmd = "sort"; print "b\na" |& cmd; close(cmd, "to"); while ((cmd |& getline l) > 0) print l }'
awk -F: '{ print $1 > "users" } END { close("users"); while ((getline u < "users") > 0) n++; print n > 0 }' /etc/passwd
awk 'BEGIN { while (i++ < 300000) s += i * i; print s }'
echo 'scale=30; 4*a(1)' | bc -l
diff -u <(seq 1 10) <(seq 1 10 | sed 's/5/five/') | tail -n +3 > p; seq 1 10 > f; patch -s f < p 2> /dev/null || patch -s f p; sed -n 5p f
less -F f < /dev/null | head -n 1
file /bin/bash | cut -d, -f1; file text.bak
