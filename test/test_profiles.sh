#!/bin/bash
# test_profiles.sh - the shipped hardware profiles are what tools/make_profiles.py writes.
set -u
. "$(dirname "$0")/claims.bash"
python3 tools/make_profiles.py "$work/profiles" && diff -r profiles "$work/profiles" >"$work/diff"
claim "profiles/ is what tools/make_profiles.py writes"
echo "1..$count"
exit $bad
