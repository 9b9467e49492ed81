#!/usr/bin/env python3
# timeout 180
import multiprocessing as mp, os, time
from multiprocessing import shared_memory


def square(n):
    return n * n


def produce(q, n):
    for i in range(n):
        q.put(i)
    q.put(None)


def add(value, lock):
    for _ in range(1000):
        with lock:
            value.value += 1


def fill(name, byte):
    m = shared_memory.SharedMemory(name)
    m.buf[:] = bytes([byte]) * len(m.buf)
    m.close()


def answer(c):
    c.send({"got": c.recv()})
    c.close()


def late(event):
    time.sleep(0.02)
    event.set()


if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        context = mp.get_context(method)
        with context.Pool(4) as pool:
            print(method, sum(pool.map(square, range(500))), pool.apply_async(square, (7,)).get(30))
    q = mp.Queue()
    p = mp.Process(target=produce, args=(q, 2000))
    p.start()
    print(sum(iter(q.get, None)))
    p.join()
    print(p.exitcode)
    value, lock = mp.Value("i", 0, lock=False), mp.Lock()
    ps = [mp.Process(target=add, args=(value, lock)) for _ in range(4)]
    [p.start() for p in ps]
    [p.join() for p in ps]
    print(value.value)
    m = shared_memory.SharedMemory(create=True, size=100000)
    p = mp.Process(target=fill, args=(m.name, 42))
    p.start()
    p.join()
    print(m.buf[0], m.buf[99999])
    m.close()
    m.unlink()
    a, b = mp.Pipe()
    p = mp.Process(target=answer, args=(b,))
    p.start()
    a.send([1, 2])
    print(a.recv())
    p.join()
    with mp.Manager() as manager:
        d = manager.dict(x=1)
        d["y"] = 2
        print(dict(d))
    e = mp.Event()
    p = mp.Process(target=late, args=(e,))
    p.start()
    print(e.wait(10))
    p.join()
    p = mp.Process(target=time.sleep, args=(100,))
    p.start()
    p.terminate()
    p.join()
    print(p.exitcode)
    array = mp.Array("d", 10)
    ps = [mp.Process(target=array.__setitem__, args=(i, i / 2)) for i in range(10)]
    [p.start() for p in ps]
    [p.join() for p in ps]
    print(array[:])
