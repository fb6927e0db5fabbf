# shellcheck shell=bash
# A check is a sentence and a command that must succeed. run.sh shows the lines that begin with CHECK and VERDICT.

passed=0 failed=0

# check SENTENCE COMMAND...: its exit code is the check's, for where it makes no sense to go on.
check() {
	local sentence=$1 said
	shift
	if said=$("$@" 2>&1); then
		echo "CHECK ok    $sentence"
		passed=$((passed + 1))
		return
	fi
	failed=$((failed + 1))
	echo "CHECK FAIL  $sentence"
	tail -n 15 <<<"$said" | sed 's/^/CHECK         /'
	return 1
}

# note SENTENCE: something for the record that nothing depends on.
note() { echo "CHECK       $1"; }

chapter() { printf '%s\n' "CHECK" "CHECK $1"; }

verdict() {
	if [ "$failed" = 0 ]; then
		echo "VERDICT passed: $passed checks"
	else
		echo "VERDICT FAILED: $failed of $((passed + failed)) checks"
	fi
}

# fails_with TEXT COMMAND...: the command fails, and what it prints has the text in it.
fails_with() {
	local text=$1 said
	shift
	if said=$("$@" 2>&1); then
		echo "it did not fail, and said: $said"
		return 1
	fi
	grep -qF "$text" <<<"$said" || { echo "$said"; return 1; }
}

# prints TEXT COMMAND...: the command succeeds, and what it prints has the text in it.
prints() {
	local text=$1 said code=0
	shift
	said=$("$@" 2>&1) || code=$?
	if [ "$code" != 0 ] || ! grep -qF "$text" <<<"$said"; then
		echo "exit code $code: $said"
		return 1
	fi
}

# prints_only TEXT COMMAND...: the command succeeds, and prints the text and nothing else.
prints_only() {
	local text=$1 said
	shift
	said=$("$@" 2>&1) || { echo "exit code $?: $said"; return 1; }
	[ "$said" = "$text" ] || differ "$text" "$said"
}

# differ EXPECTED SAID prints in which lines the two differ, and fails.
differ() {
	echo "$1" >/tmp/expected
	echo "$2" >/tmp/said
	diff /tmp/expected /tmp/said
}
