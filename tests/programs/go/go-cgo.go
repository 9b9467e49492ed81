package main

/*
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int square(int n) { return n * n; }
static void *body(void *p) { usleep(1000); *(int *)p += 1; return p; }
static int threads(int n) {
	pthread_t t[64]; int v[64]; int s = 0;
	for (int i = 0; i < n; i++) { v[i] = i; pthread_create(&t[i], 0, body, &v[i]); }
	for (int i = 0; i < n; i++) { pthread_join(t[i], 0); s += v[i]; }
	return s;
}
extern int callback(int);
static int call_back(int n) { int s = 0; for (int i = 0; i < n; i++) s += callback(i); return s; }
*/
import "C"

import (
	"fmt"
	"net"
	"os/user"
	"runtime"
	"sync"
	"unsafe"
)

//export callback
func callback(n C.int) C.int { return n * 2 }

func main() {
	fmt.Println(C.square(12), C.threads(32), C.call_back(1000))
	var group sync.WaitGroup
	total := make(chan int, 64)
	for i := 0; i < 64; i++ {
		group.Add(1)
		go func() { defer group.Done(); runtime.LockOSThread(); C.usleep(2000); total <- int(C.square(C.int(i))) }()
	}
	group.Wait()
	close(total)
	sum := 0
	for v := range total {
		sum += v
	}
	fmt.Println(sum)
	text := C.CString("from C")
	fmt.Println(C.GoString(text), C.strlen(text))
	C.free(unsafe.Pointer(text))
	me, err := user.Current()
	fmt.Println(me.Username, me.HomeDir, err)
	addresses, err := net.LookupHost("localhost")
	fmt.Println(len(addresses) > 0, err)
	memory := C.malloc(64 << 20)
	C.memset(memory, 1, 64<<20)
	fmt.Println(*(*byte)(unsafe.Add(memory, 60<<20)))
}
