# Runs in the guest of scripts/emulate (`scripts/emulate --in mipsel "$(cat tests/launcher/supervise.sh)"`), by
# busybox's shell: a second daemon under `run --supervise`, with the system calls of 3.10. It is killed, and then its
# parent. Prints what is seen, one line each, and ends with an error at the first that is not as it should be.
set -u
folder=/tmp/supervise
port=51999
mkdir -p $folder
mkfifo $folder/video
cat >$folder/hksvd.json <<JSON
{ "setup_code": "031-45-154", "state_dir": "$folder", "memory_kb": 768, "control": { "socket": "$folder/socket" },
  "hap": { "port": $port, "mdns": false }, "video": { "source": "fifo:$folder/video" } }
JSON

fail() {
    echo "FAILED: $*"
    cat $folder/log
    exit 1
}

answers() { hksvd status --json --socket $folder/socket >/dev/null 2>&1; }
listens() { nc -w 2 127.0.0.1 $port </dev/null >/dev/null 2>&1; }
# The one child of that process.
child() { grep -l "^PPid:[^0-9]*$1\$" /proc/[0-9]*/status 2>/dev/null | sed 's|/proc/||; s|/status||' | head -n 1; }
# Gone, or dead and only not yet buried.
gone() { ! grep -q '^State:[^A-Z]*[^ZX[:space:]]' "/proc/$1/status" 2>/dev/null; }
eventually() { # WHAT COMMAND...
    what=$1
    shift
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        "$@" && return
        sleep 0.5
    done
    fail "not within 10 s: $what"
}
nobody_listens() { ! listens; }

kernel-3.10 hksvd run --supervise --config $folder/hksvd.json >$folder/log 2>&1 </dev/null &
parent=$!
eventually "the daemon answers" answers
first=$(child $parent)
listens || fail "nobody listens on $port"
echo "parent $parent: $(grep -E 'VmRSS|RssAnon' /proc/"$parent"/status | tr -s '\t\n ' ' ')"
echo "daemon $first: oom_score_adj $(cat /proc/"$first"/oom_score_adj)"
[ "$(cat /proc/"$first"/oom_score_adj)" = 800 ] || fail "oom_score_adj is not 800"

kill -9 "$first"
eventually "the killed daemon is gone" gone "$first"
eventually "it answers again" answers
second=$(child $parent)
case $second in "" | "$first") fail "no other daemon: $second" ;; esac
grep 'killed by SIGKILL' $folder/log || fail "the end was not told"
echo "daemon $second: started again by $parent, answers"

kill -9 "$parent"
eventually "the daemon has ended with its parent" gone "$second"
eventually "nobody listens" nobody_listens
echo "daemon $second: ended with its parent; nobody listens on $port"
rm -r $folder
