# redis under load.
# rows: redis-tcp-1 redis-tcp-16 redis-unix-1 redis-unix-16
redis-server --port 7777 --unixsocket /tmp/redis.sock --save '' --daemonize yes > /dev/null
until_it redis-cli -p 7777 ping
rate() { tr '\r' '\n' | awk -v name="$1" '/^SET: [0-9.]+ requests/ { print name, $2 }'; }
redis-benchmark -p 7777 -q -t set -n 40000 -P 1 2> /dev/null | rate redis-tcp-1
redis-benchmark -p 7777 -q -t set -n 300000 -P 16 2> /dev/null | rate redis-tcp-16
redis-benchmark -s /tmp/redis.sock -q -t set -n 40000 -P 1 2> /dev/null | rate redis-unix-1
redis-benchmark -s /tmp/redis.sock -q -t set -n 300000 -P 16 2> /dev/null | rate redis-unix-16
redis-cli -p 7777 shutdown nosave
