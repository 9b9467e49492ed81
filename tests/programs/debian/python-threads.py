#!/usr/bin/env python3
"""Threads, locks, queues, thread-local data, pools."""

import concurrent.futures, queue, threading, time

count, lock = 0, threading.Lock()


def add():
    global count
    for _ in range(10000):
        with lock:
            count += 1


threads = [threading.Thread(target=add) for _ in range(8)]
[t.start() for t in threads]
[t.join() for t in threads]
print(count)
q, done = queue.Queue(10), []


def consume():
    while (item := q.get()) is not None:
        done.append(item)


consumers = [threading.Thread(target=consume) for _ in range(3)]
[c.start() for c in consumers]
[q.put(i) for i in range(1000)]
[q.put(None) for _ in consumers]
[c.join() for c in consumers]
print(sorted(done) == list(range(1000)))
with concurrent.futures.ThreadPoolExecutor(10) as pool:
    print(sum(pool.map(lambda n: n * n, range(1000))))
event, barrier = threading.Event(), threading.Barrier(4)
print(event.wait(0.01))
waiting = [threading.Thread(target=lambda: (barrier.wait(), event.wait())) for _ in range(3)]
[w.start() for w in waiting]
barrier.wait()
event.set()
[w.join() for w in waiting]
condition, turn = threading.Condition(), [0]


def ping(me):
    for _ in range(500):
        with condition:
            condition.wait_for(lambda: turn[0] % 2 == me)
            turn[0] += 1
            condition.notify()


pair = [threading.Thread(target=ping, args=(m,)) for m in (0, 1)]
[p.start() for p in pair]
[p.join() for p in pair]
print(turn)
semaphore = threading.BoundedSemaphore(2)
print(semaphore.acquire(timeout=1), semaphore.acquire(timeout=1), semaphore.acquire(timeout=0.01))
timer = threading.Timer(0.01, print, ("timer",))
timer.start()
timer.join()
local = threading.local()
local.x = 1
t = threading.Thread(target=lambda: print(hasattr(local, "x")))
t.start()
t.join()
print(threading.active_count(), threading.get_native_id() > 0)
