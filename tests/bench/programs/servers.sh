# Servers and their load, over loopback.
# rows: redis-tcp-1 redis-tcp-16 redis-unix-1 redis-unix-16 nginx-1k nginx-1m node-http
redis-server --port 7777 --unixsocket /tmp/redis.sock --save '' --daemonize yes > /dev/null
for i in $(seq 200); do redis-cli -p 7777 ping > /dev/null 2>&1 && break; sleep 0.05; done
rate() { tr '\r' '\n' | awk -v name="$1" '/^SET: [0-9.]+ requests/ { printf "%s %s\n", name, $2 }'; }
redis-benchmark -p 7777 -q -t set -n 40000 -P 1 2> /dev/null | rate redis-tcp-1
redis-benchmark -p 7777 -q -t set -n 300000 -P 16 2> /dev/null | rate redis-tcp-16
redis-benchmark -s /tmp/redis.sock -q -t set -n 40000 -P 1 2> /dev/null | rate redis-unix-1
redis-benchmark -s /tmp/redis.sock -q -t set -n 300000 -P 16 2> /dev/null | rate redis-unix-16
redis-cli -p 7777 shutdown nosave
mkdir www; head -c 1024 /dev/urandom > www/1k; head -c 1048576 /dev/urandom > www/1m
echo 'worker_processes 2; pid /work/pid; error_log /work/error; events { } http { access_log off; sendfile on; server { listen 127.0.0.1:8080; root /work/www; } }' > nginx.conf
nginx -c /work/nginx.conf
for i in $(seq 200); do curl -s -o /dev/null http://127.0.0.1:8080/1k && break; sleep 0.05; done
load() { wrk -t2 -c16 -d3s "$2" | awk -v name="$1" '/^Requests\/sec/ { printf "%s %s\n", name, $2 }'; }
load nginx-1k http://127.0.0.1:8080/1k
load nginx-1m http://127.0.0.1:8080/1m
nginx -c /work/nginx.conf -s stop
node -e 'require("http").createServer((q, s) => s.end("hello")).listen(8081, "127.0.0.1")' &
for i in $(seq 200); do curl -s -o /dev/null http://127.0.0.1:8081/ && break; sleep 0.05; done
load node-http http://127.0.0.1:8081/
kill %1; wait 2> /dev/null; true
