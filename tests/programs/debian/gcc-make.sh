#!/bin/bash
# timeout 300
# A small C project: make in parallel, libraries, tests, an incremental build.
set -e
for i in $(seq 1 12); do printf 'int f%d(int x) { int s = 0; for (int i = 0; i < x; i++) s += i * %d; return s; }\n' "$i" "$i" > "f$i.c"; done
{ for i in $(seq 1 12); do echo "int f$i(int);"; done; echo '#include <stdio.h>'; echo 'int main(void) { long s = 0;'; for i in $(seq 1 12); do echo "s += f$i(100);"; done; echo 'printf("%ld\n", s); return s != 386100; }'; } > main.c
cat > Makefile <<'END'
CFLAGS = -O2 -Wall -Wextra -Werror
OBJECTS = $(patsubst %.c,%.o,$(filter-out main.c,$(sort $(wildcard f*.c))))
all: static shared
libf.a: $(OBJECTS) ; @ar rcs $@ $^
libf.so: $(OBJECTS:.o=.c) ; @$(CC) $(CFLAGS) -fPIC -shared -o $@ $^
static: main.o libf.a ; @$(CC) -o $@ main.o libf.a
shared: main.o libf.so ; @$(CC) -o $@ main.o -L. -lf -Wl,-rpath,.
%.o: %.c ; @$(CC) $(CFLAGS) -c -o $@ $<
test: all ; @./static && ./shared
END
make -s -j2 test
make -s -q && echo "up to date"
touch f3.c; make -n -s all | grep -c 'f3\.' 
echo 'int broken( {' > broken.c; gcc -c broken.c 2> err || echo "error: $?"; grep -c error: err
echo '#include <iostream>' > /dev/null
gcc -O2 -static -pthread -x c - -o threads <<'END' && ./threads
#include <pthread.h>
#include <stdio.h>
static void *run(void *x) { return (void *)((long)x * (long)x); }
int main(void) { pthread_t t[8]; long s = 0; for (long i = 0; i < 8; i++) pthread_create(&t[i], 0, run, (void *)i); for (int i = 0; i < 8; i++) { void *r; pthread_join(t[i], &r); s += (long)r; } printf("%ld\n", s); }
END
objdump -d static | grep -c '<f[0-9]*>:' ; nm shared | grep -c ' U f' ; strip static && ./static
gcc -pipe -O1 -S -o - f1.c | grep -c imul || true
make -s -f - <<< 'all: ; @false' 2> /dev/null || echo "make: $?"
