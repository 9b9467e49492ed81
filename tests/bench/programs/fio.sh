# Random reads and writes of a cached file.
# rows: fio-read fio-write
# packages: fio
job() { fio --name=job --filename=fio --size=64m --bs=4k --ioengine=psync --invalidate=0 --time_based --runtime=3 --rw="$2" --output-format=json | awk -v name="$1" -v part="$3" '$1 == "\"" part "\"" { inside = 1 } inside && $1 == "\"iops\"" { print name, $3 + 0; exit }'; }
fio --name=lay --filename=fio --size=64m --bs=1m --rw=write > /dev/null
job fio-read randread read
job fio-write randwrite write
