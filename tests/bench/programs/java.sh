# Start of Java.
# rows: java
java -version 2> /dev/null; a=$(now); for i in 1 2 3 4 5; do java -version 2> /dev/null; done; b=$(now); ms java "$a" "$b" 5
