package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"sort"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	return value
}

func main() {
	var group sync.WaitGroup
	var sum atomic.Int64
	for i := 0; i < 10000; i++ {
		group.Add(1)
		go func() { defer group.Done(); runtime.Gosched(); sum.Add(int64(i)) }()
	}
	group.Wait()
	fmt.Println("goroutines", sum.Load())
	ping, pong := make(chan int), make(chan int)
	go func() {
		for v := range ping {
			pong <- v + 1
		}
		close(pong)
	}()
	v := 0
	for i := 0; i < 10000; i++ {
		ping <- v
		v = <-pong
	}
	close(ping)
	fmt.Println("channel", v)
	spinning := make(chan bool)
	go func() { // never yields by itself: the runtime preempts it by a signal
		for x := 0; ; x++ {
			if x == 1<<40 {
				fmt.Println(x)
			}
		}
	}()
	go func() { time.Sleep(20 * time.Millisecond); spinning <- true }()
	fmt.Println("preempted", <-spinning)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	<-ctx.Done()
	fmt.Println(ctx.Err())
	dir := must(os.MkdirTemp("", "x"))
	for i := 0; i < 100; i++ {
		os.MkdirAll(filepath.Join(dir, fmt.Sprint(i%10)), 0o755)
		os.WriteFile(filepath.Join(dir, fmt.Sprint(i%10), fmt.Sprint(i)), bytes.Repeat([]byte{byte(i)}, 1000*i), 0o644)
	}
	hash, files := sha256.New(), 0
	filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if !entry.IsDir() {
			hash.Write(must(os.ReadFile(path)))
			files++
		}
		return nil
	})
	fmt.Printf("%d files %x\n", files, hash.Sum(nil)[:8])
	os.RemoveAll(dir)
	_, err := os.Stat(dir)
	fmt.Println(errors.Is(err, fs.ErrNotExist), os.IsNotExist(err))
	command := exec.Command("sh", "-c", "cat; exit 3")
	command.Stdin = bytes.NewBufferString("through a process\n")
	output, err := command.Output()
	fmt.Printf("%s%v\n", output, err)
	timed, stop := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer stop()
	fmt.Println(exec.CommandContext(timed, "sleep", "10").Run())
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) }))
	results := make([]string, 100)
	for i := range results {
		group.Add(1)
		go func() {
			defer group.Done()
			response := must(http.Get(fmt.Sprintf("http://%s/%02d", listener.Addr(), i)))
			results[i] = string(must(io.ReadAll(response.Body)))
			response.Body.Close()
		}()
	}
	group.Wait()
	sort.Strings(results)
	fmt.Println(results[0], results[99], len(results))
	unix := must(net.Listen("unix", "/tmp/go.sock"))
	go func() { c := must(unix.Accept()); io.Copy(c, c); c.Close() }()
	c := must(net.Dial("unix", "/tmp/go.sock")).(*net.UnixConn)
	fmt.Fprintln(c, "unix")
	fmt.Print(must(bufio.NewReader(c).ReadString('\n')))
	packet := must(net.ListenPacket("udp", "127.0.0.1:0"))
	udp := must(net.Dial("udp", packet.LocalAddr().String()))
	udp.Write([]byte("datagram"))
	buffer := make([]byte, 100)
	n, _, _ := packet.ReadFrom(buffer)
	fmt.Println(string(buffer[:n]))
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	syscall.Kill(os.Getpid(), syscall.SIGUSR1)
	fmt.Println(<-signals)
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	w.Write(make([]byte, 1<<20))
	w.Close()
	fmt.Println(len(must(io.ReadAll(must(gzip.NewReader(&zipped))))))
	var keep [][]byte
	for i := 0; i < 2000; i++ {
		keep = append(keep, make([]byte, 100000))
		if len(keep) > 100 {
			keep = nil
		}
	}
	runtime.GC()
	fmt.Println("collected")
	func() {
		defer func() { fmt.Println("recovered:", recover()) }()
		var nothing *struct{ x [100]int }
		fmt.Println(nothing.x[5])
	}()
	ticker, ticks := time.NewTicker(5*time.Millisecond), 0
	for range ticker.C {
		if ticks++; ticks == 5 {
			break
		}
	}
	fmt.Println("ticks", ticks, runtime.NumCPU() >= 1, os.Getpid() == syscall.Getpid())
}
