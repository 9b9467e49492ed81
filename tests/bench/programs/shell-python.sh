# Start of many small programs.
# rows: shell-loop python-pass python-imports
/bin/true; python3 -c pass
a=$(now); for ((i = 0; i < 1000; i++)); do /bin/true; done; b=$(now); ms shell-loop "$a" "$b"
a=$(now); for i in 1 2 3 4 5 6 7 8 9 10; do python3 -c pass; done; b=$(now); ms python-pass "$a" "$b" 10
python3 -c 'import asyncio, json, sqlite3, urllib.request'
a=$(now); for i in 1 2 3 4 5; do python3 -c 'import asyncio, json, sqlite3, urllib.request'; done; b=$(now); ms python-imports "$a" "$b" 5
