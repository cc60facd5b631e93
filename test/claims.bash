# claims.bash - what the tests of the program from outside share. Sourced with the program's path in
# $tandem; leaves $work (removed at the end), $count and $bad.
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
bad=0
count=0

claim() { # NAME: the condition of the last command must hold
    local rc=$?
    count=$((count + 1))
    if [ $rc = 0 ]; then echo "ok $count - $1"; else echo "not ok $count - $1"; bad=1; fi
}
run() { # into $work/out, $work/err, $rc
    "$tandem" "$@" >"$work/out" 2>"$work/err" </dev/null
    rc=$?
}
mentions() { grep -qF -- "$1" "$work/$2"; } # TEXT FILE, out or err
