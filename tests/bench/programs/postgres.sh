# PostgreSQL under load.
# rows: pgbench-select pgbench-tpcb
# packages: postgresql
export PATH=$PATH:$(echo /usr/lib/postgresql/*/bin)
folder=$PWD/pg
install -d -o postgres "$folder" /run/postgresql
as() { setpriv --reuid postgres --regid postgres --clear-groups env HOME="$folder" "$@"; }
as initdb -D "$folder"/data -A trust > /dev/null
as pg_ctl -D "$folder"/data -o '-c fsync=off' -l "$folder"/log -w start > /dev/null
as createdb bench
as pgbench -q -i -s 5 bench > /dev/null 2>&1
load() { as pgbench -T 4 -c 4 -j 2 $2 bench 2> /dev/null | awk -v name="$1" '/^tps/ { print name, $3 }'; }
load pgbench-select -S
load pgbench-tpcb
as pg_ctl -D "$folder"/data -m fast -w stop > /dev/null
