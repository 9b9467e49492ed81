# Start of Node.
# rows: node
node -e 'console.log("hello")' > /dev/null; a=$(now); for i in 1 2 3 4 5; do node -e 'console.log("hello")' > /dev/null; done; b=$(now); ms node "$a" "$b" 5
