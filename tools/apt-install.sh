#!/bin/sh
# Install the given Debian packages that are missing. Without root, print the command instead.
set -eu

if ! command -v dpkg-query >/dev/null; then
    echo "This is not Debian. Make sure that these are installed: $*" >&2
    exit 0
fi
missing=
for package; do
    dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
        missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
    echo "Debian packages are missing. Install them as root, then run make again:" >&2
    echo "    apt-get update && apt-get install --no-install-recommends$missing" >&2
    exit 1
fi
echo "Installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
set -- -qq -o DPkg::Lock::Timeout=300
apt-get "$@" update
# shellcheck disable=SC2086  # one word per package
apt-get "$@" --yes --no-install-recommends install $missing >/dev/null
