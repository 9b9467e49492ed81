# nginx under load.
# rows: nginx-1k nginx-1m
mkdir www; head -c 1024 /dev/urandom > www/1k; head -c 1048576 /dev/urandom > www/1m
echo "worker_processes 2; pid $PWD/pid; error_log $PWD/error; events { } http { access_log off; sendfile on; server { listen 127.0.0.1:8080; root $PWD/www; } }" > nginx.conf
nginx -c "$PWD/nginx.conf"
until_it curl -s -o /dev/null http://127.0.0.1:8080/1k
load() { wrk -t2 -c16 -d3s "$2" | awk -v name="$1" '/^Requests\/sec/ { print name, $2 }'; }
load nginx-1k http://127.0.0.1:8080/1k
load nginx-1m http://127.0.0.1:8080/1m
nginx -c "$PWD/nginx.conf" -s stop
