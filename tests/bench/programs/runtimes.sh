# Start of the big language runtimes.
# rows: java node
now() { date +%s%N; }
ms() { awk -v a="$2" -v b="$3" -v n="$4" -v name="$1" 'BEGIN { printf "%s %.2f\n", name, (b - a) / 1e6 / n }'; }
java -version 2> /dev/null; a=$(now); for i in 1 2 3 4 5; do java -version 2> /dev/null; done; b=$(now); ms java "$a" "$b" 5
node -e 'console.log("hello")' > /dev/null; a=$(now); for i in 1 2 3 4 5; do node -e 'console.log("hello")' > /dev/null; done; b=$(now); ms node "$a" "$b" 5
