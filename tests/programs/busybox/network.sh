#!/bin/sh
# A web server and its client, netcat both ways, over loopback.
mkdir www; seq 1 5000 > www/index.html
httpd -p 127.0.0.1:8080 -h www
wget -q -O got http://127.0.0.1:8080/ && cmp got www/index.html && echo "http agrees"
wget -q -O - http://127.0.0.1:8080/absent; echo "absent: $?"
i=0; while [ $i -lt 20 ]; do wget -q -O /dev/null http://localhost:8080/ || echo failed; i=$((i + 1)); done
seq 1 1000 | nc -l -p 9000 > /dev/null & sleep 0.3; sleep 0.5 | nc 127.0.0.1 9000 > received
cmp received - <<END && echo "netcat agrees"
$(seq 1 1000)
END
ip -o addr show lo | awk '{ print $3, $4 }'
hostname
killall httpd; echo "server stopped"
