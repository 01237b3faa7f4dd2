#!/bin/sh
# Tests that open a page need Chromium. Install it where that is ours to do; never fail, since those tests skip themselves.
for name in chromium chromium-browser google-chrome google-chrome-stable; do
    command -v "$name" >/dev/null 2>&1 && exit 0
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    log=.venv/chromium.log
    echo "chromium: installing (apt-get; all it says is in $log)"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update && apt-get install -y --no-install-recommends chromium; } >"$log" 2>&1 </dev/null && exit 0
    echo 'chromium: apt-get could not install it; tests that open a page are skipped'
else
    echo 'chromium: not found, and only root can install it; tests that open a page are skipped'
fi
exit 0
