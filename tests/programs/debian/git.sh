#!/bin/bash
# timeout 300
# init, a commit of 1000 files, branches, merges, gc, clone, fsck.
set -e
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
export GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z'
git init -q -b main repo; cd repo
for i in $(seq 1 1000); do mkdir -p "d$((i % 20))"; seq 1 $((i % 50)) > "d$((i % 20))/f$i"; done
git add .; git commit -q -m "a thousand files"; git rev-parse HEAD
git status --short | wc -l
git checkout -q -b side; echo side >> d1/f1; git commit -q -am side
git checkout -q main; echo main >> d2/f2; git commit -q -am main
git merge -q -m merged side; git log --oneline --graph | cut -c1-4 ; git rev-parse HEAD
git gc -q; git count-objects -v | grep -E '^(count|in-pack|packs):'
git fsck --full 2> /dev/null; echo "fsck $?"
git clone -q . ../clone; cd ../clone; git log --format=%s; git ls-files | wc -l
echo conflict > d3/f3; git commit -q -am one; git checkout -q HEAD~1; echo other > d3/f3; git commit -q -am two
git merge -q main 2>&1 | tail -n 1 || true; git status --short | grep -c ^UU || true
git checkout -q -f main; git grep -c 49 -- d5 | sort | head -n 3; git diff HEAD~1 --stat | tail -n 1
git archive HEAD d1 | tar t | wc -l; git stash list | wc -l; git blame d3/f3 | cut -c1-8
git push -q ../repo HEAD:refs/heads/pushed; git -C ../repo branch | sort
