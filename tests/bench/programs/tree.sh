# Walking and reading a tree, cached.
# rows: find tar
find / -xdev > /dev/null
a=$(now); find / -xdev > /dev/null; b=$(now); ms find "$a" "$b"
tar cf - /usr/lib /usr/share 2> /dev/null | cat > /dev/null
a=$(now); tar cf - /usr/lib /usr/share 2> /dev/null | cat > /dev/null; b=$(now); ms tar "$a" "$b"
