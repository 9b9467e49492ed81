# A commit of many files.
# rows: git
mkdir g; cd g; for i in $(seq 1 2000); do mkdir -p "d$((i % 40))"; echo "file $i" > "d$((i % 40))/f$i"; done
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
a=$(now); git init -q .; git add .; git commit -q -m all; b=$(now); ms git "$a" "$b"
