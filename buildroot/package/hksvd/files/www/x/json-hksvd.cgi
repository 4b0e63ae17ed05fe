#!/bin/sh
# What the page config-hksvd.html asks of the daemon. GET reads, POST changes. Nothing that a client sends is repeated
# or run: its words are compared with those below.

# shellcheck disable=SC1091
. /var/www/x/auth.sh
# It ends the script without a login. A firmware that calls it something else must not open the door.
require_auth || exit

HKSVD=/usr/bin/hksvd

answer() { # STATUS TYPE
	printf 'Status: %s\r\nContent-Type: %s\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\r\n' "$1" "$2"
}

# The daemon's own words can hold quotes: a file's name, a configuration's.
refuse() { # STATUS TEXT
	answer "$1" application/json
	printf '{"error":"%s"}\n' "$(printf %s "$2" | tr -d '\000-\037' | sed 's/[\\"]/\\&/g')"
	exit 0
}

show() { # TYPE VERB ARGUMENTS...: what the verb prints
	type=$1
	shift
	if said=$("$HKSVD" "$@" 2>&1 </dev/null); then
		answer "200 OK" "$type"
		printf '%s\n' "$said"
	else
		refuse "503 Service Unavailable" "$said"
	fi
}

change() { # VERB ARGUMENTS...
	if said=$("$HKSVD" "$@" 2>&1 </dev/null); then
		answer "200 OK" application/json
		echo '{}'
	else
		refuse "409 Conflict" "$said"
	fi
}

# Too large for a variable of the shell, and bytes that it would lose. The file has no name any more when the server ends
# this script because nobody waits for the picture.
picture() {
	file=$(mktemp /tmp/hksvd-picture.XXXXXX) || refuse "503 Service Unavailable" "/tmp is full"
	exec 3>"$file"
	exec 4<"$file"
	rm -f "$file"
	if said=$("$HKSVD" snapshot - 2>&1 >&3 </dev/null); then
		answer "200 OK" image/jpeg
		cat <&4
	else
		refuse "503 Service Unavailable" "$said"
	fi
}

case "$REQUEST_METHOD" in
GET)
	# What follows is the firmware's: its key as token=.
	case "${QUERY_STRING%%&*}" in
	do=status) show application/json status --json ;;
	do=qr) show "text/plain; charset=utf-8" qr --ascii ;;
	do=picture) picture ;;
	do=events)
		answer "200 OK" application/x-ndjson
		# The verb goes on for ever; what has been comes at once.
		timeout 1 "$HKSVD" events --history </dev/null 2>/dev/null
		;;
	*) refuse "404 Not Found" "do is one of: status qr picture events" ;;
	esac
	;;
POST)
	# No other site's page can make a browser send this type unasked.
	case "$CONTENT_TYPE" in
	application/json | application/json\;*) ;;
	*) refuse "415 Unsupported Media Type" "send application/json" ;;
	esac
	case "$CONTENT_LENGTH" in
	'' | *[!0-9]* | ????*) refuse "413 Content Too Large" "send a short body and its length" ;;
	esac
	body=$(head -c "$CONTENT_LENGTH" | tr -d ' \r\n')
	case "$body" in
	'{"do":"motion-on"}') change motion on ;;
	'{"do":"motion-off"}') change motion off ;;
	'{"do":"ring"}') change ring ;;
	'{"do":"identify"}') change identify ;;
	*) refuse "400 Bad Request" "do is one of: motion-on motion-off ring identify" ;;
	esac
	;;
*)
	refuse "405 Method Not Allowed" "GET reads, POST changes"
	;;
esac
