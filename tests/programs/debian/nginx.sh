#!/bin/bash
# timeout 180
# nginx with two workers serving curl: files, ranges, gzip, many connections, reload, quit.
mkdir -p www/d logs; seq 1 20000 > www/numbers; head -c 3000000 /dev/zero > www/zeros; echo index > www/index.html
cat > nginx.conf <<'END'
worker_processes 2; error_log /work/logs/error; pid /work/nginx.pid; events { worker_connections 256; }
http { access_log /work/logs/access; sendfile on; gzip on; gzip_types *; types { text/plain txt; } default_type text/plain;
  server { listen 127.0.0.1:8080; listen [::1]:8080; listen unix:/work/sock; root /work/www; location /up { proxy_pass http://unix:/work/sock:/; } location /echo { return 200 "$arg_x\n"; } } }
END
nginx -c /work/nginx.conf -t 2>&1 | grep -c successful
nginx -c /work/nginx.conf; c="curl -sS --retry 20 --retry-connrefused --retry-delay 1"
$c http://127.0.0.1:8080/; $c http://127.0.0.1:8080/numbers | cmp - www/numbers && echo same; $c http://127.0.0.1:8080/zeros | wc -c
$c -g 'http://[::1]:8080/echo?x=six'; $c --unix-socket /work/sock http://x/echo?x=unix; $c http://127.0.0.1:8080/up/ 
$c -r 10-19 http://127.0.0.1:8080/numbers | od -c | head -n 1; $c --compressed http://127.0.0.1:8080/numbers | md5sum
$c -o /dev/null -w '%{http_code}\n' http://127.0.0.1:8080/absent; $c -I http://127.0.0.1:8080/numbers | grep -i '^content-length'
seq 1 200 | xargs -P 8 -I{} curl -sS "http://127.0.0.1:8080/echo?x={}" | sort -n | md5sum
for i in $(seq 1 20); do printf 'url = "http://127.0.0.1:8080/echo?x=%d"\n' "$i"; done | curl -sS -K - | tail -n 1
wrk -t1 -c8 -d1s http://127.0.0.1:8080/ | grep -c 'requests in'
nginx -c /work/nginx.conf -s reload; sleep 0.3; $c http://127.0.0.1:8080/echo?x=reloaded
[ "$(wc -l < logs/access)" -gt 200 ] && echo logged; grep -c crit logs/error
nginx -c /work/nginx.conf -s quit; for i in $(seq 50); do [ -e nginx.pid ] || break; sleep 0.1; done; ls nginx.pid 2>&1 | grep -c 'No such'
