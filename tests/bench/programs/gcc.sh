# A compilation.
# rows: gcc
mkdir c; cd c
for i in $(seq 1 24); do { echo '#include <stdio.h>'; echo '#include <stdlib.h>'; echo '#include <string.h>'; for j in $(seq 1 40); do echo "int f${i}_$j(int *a, int n) { int s = 0; for (int i = 0; i < n; i++) s += a[i] * $j + i % $i; return s; }"; done; } > "f$i.c"; done
printf 'all: $(patsubst %%.c,%%.o,$(wildcard *.c))\n%%.o: %%.c ; @gcc -O2 -c -o $@ $<\n' > Makefile
make -s f1.o; rm f1.o
a=$(now); make -s -j2; b=$(now); ms gcc "$a" "$b"
