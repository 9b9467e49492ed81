# Node as a server.
# rows: node-http
node -e 'require("http").createServer((q, s) => s.end("hello")).listen(8081, "127.0.0.1")' &
until_it curl -s -o /dev/null http://127.0.0.1:8081/
wrk -t2 -c16 -d3s http://127.0.0.1:8081/ | awk '/^Requests\/sec/ { print "node-http", $2 }'
kill %1; wait 2> /dev/null; true
