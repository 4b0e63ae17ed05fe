#!/bin/sh
# The init script in a camera's root, where there is no network: run by scripts/test within tests/launcher/camera_root.

script=/etc/init.d/S98hksvd
list=/etc/cfg-backup.list

fail() {
	echo "init script: $*"
	ps
	cat /var/log/messages
	exit 1
}

pid() { cat /var/run/hksvd.pid; }
# Until a command succeeds, 10 s at most.
within_10_s() {
	for _ in $(seq 50); do
		"$@" >/dev/null 2>&1 && return 0
		sleep 0.2
	done
	fail "not within 10 s: $*"
}
logged() { grep -q "hksvd: .*$1" /var/log/messages; }
daemons() { pidof hksvd | wc -w; }
# The daemon, which is not its parent.
daemon() { pidof hksvd | tr ' ' '\n' | grep -vx "$(pid)"; }
centiseconds() { tr -d . </proc/uptime | cut -d ' ' -f 1; }

syslogd -S -O /var/log/messages
# As an editor may leave it: without an end of line.
printf '/etc/shadow\n/etc/TZ' >$list

$script status && fail "it runs before it was started"
began=$(centiseconds)
$script start || fail "start: $?"
took=$(($(centiseconds) - began))
[ $took -le 100 ] || fail "start took $took centiseconds"
echo "start came back after ${took}0 ms, without network and picture"
within_10_s hksvd status
$script status || fail "status: $?"
first=$(pid)
[ "$(cat /proc/"$first"/comm)" = hksvd ] || fail "the pid file has $(cat /proc/"$first"/comm)"
[ "$(daemons)" = 2 ] || fail "$(daemons) processes, not the daemon and its parent"
within_10_s logged "cannot be opened; waiting"

$script start || fail "a second start: $?"
[ "$(pid) $(daemons)" = "$first 2" ] || fail "started twice"
printf '/etc/shadow\n/etc/TZ\n/etc/hksvd\n/etc/hksvd.json\n' | cmp - $list || fail "$list: $(cat $list)"

# Neither the daemon's crash nor the end of what writes the log changes who is in the pid file.
killall logger
kill -9 "$(daemon)"
sleep 2
within_10_s hksvd status
[ "$(pid)" = "$first" ] || fail "another parent after a crash"

$script restart || fail "restart: $?"
within_10_s hksvd status
[ "$(pid)" != "$first" ] || fail "restart left the old one"
kill -9 "$(daemon)"
within_10_s logged "was killed by SIGKILL"

$script stop || fail "stop: $?"
$script status
[ $? = 3 ] || fail "status of what is stopped"
[ "$(daemons)" = 0 ] || fail "something is left"
ls /var/run/hksvd.pid /var/run/hksvd.log 2>/dev/null && fail "files are left"
$script stop || fail "stop of what is stopped: $?"

# The number in the file now belongs to somebody else.
echo $$ >/var/run/hksvd.pid
$script status && fail "somebody else's process was taken for the daemon"
$script start || fail "start after a crash of everything: $?"
within_10_s hksvd status
$script stop || fail "the last stop: $?"

echo '{ "name": 1 }' >/etc/hksvd.json
$script start || fail "start with a wrong configuration: $?"
within_10_s logged "hksvd.json.*name"
sleep 1
$script status && fail "it runs with a wrong configuration"
rm /usr/bin/hksvd
$script start && fail "start without a program"
echo "start, status, restart, stop: as they should be"
