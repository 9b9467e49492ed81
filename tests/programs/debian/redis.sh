#!/bin/bash
# timeout 180
# A redis server and its benchmark, over TCP and a unix socket; persistence by fork; reload.
redis-server --port 7777 --unixsocket /tmp/redis.sock --dir /work --save '' --daemonize yes --logfile log > /dev/null
for i in $(seq 100); do redis-cli -p 7777 ping > /dev/null 2>&1 && break; sleep 0.05; done
r="redis-cli -p 7777"
$r set k v; $r get k; $r incr n; $r lpush l a b c; $r lrange l 0 -1; $r hset h f 1 g 2; $r hgetall h; $r expire k 100; $r type l
seq 1 3000 | awk '{ print "SET key" $1 " value" $1 }' | $r --pipe | tail -n 1
$r dbsize; $r eval 'return redis.call("get", KEYS[1]) .. ARGV[1]' 1 key42 x
redis-benchmark -p 7777 -q -n 3000 -c 20 -t set,get,lpush,ping 2> /dev/null | tr '\r' '\n' | grep -o '^[A-Z_]*: [0-9.]* requests' | awk '{ print $1, ($2 > 100) }'
redis-benchmark -s /tmp/redis.sock -q -n 3000 -P 16 -t set,get 2> /dev/null | tr '\r' '\n' | grep -o '^[A-Z_]*: [0-9.]* requests' | awk '{ print $1, ($2 > 100) }'
$r bgsave > /dev/null; for i in $(seq 200); do $r info persistence | grep -q 'rdb_bgsave_in_progress:0' && break; sleep 0.05; done
$r info persistence | grep -o 'rdb_last_bgsave_status:ok'; ls dump.rdb
(timeout 5 stdbuf -oL $r --csv subscribe ch | head -n 3 > sub) & sleep 0.3; $r publish ch hello; wait; tail -n 1 sub
$r shutdown save; redis-server --port 7778 --dir /work --daemonize yes > /dev/null; for i in $(seq 100); do redis-cli -p 7778 ping 2> /dev/null | grep -q PONG && break; sleep 0.05; done
redis-cli -p 7778 get key2999; redis-cli -p 7778 shutdown nosave; echo "stopped $?"
