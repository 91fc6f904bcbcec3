#!/usr/bin/env bash
# What the bench measures with and against: Debian packages (as root), and each Python tool in an environment of its
# own below the cache folder.      benchmarks/setup.sh [CACHE]
set -euo pipefail
cache="${1:-${XDG_CACHE_HOME:-$HOME/.cache}/tcia-mirror-bench}"

if ((EUID == 0)) && command -v apt-get >/dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends nginx aria2 wget2 curl iproute2 python3-venv
else
  echo "not root on Debian: nginx aria2 wget2 curl iproute2 are taken as they are here" >&2
fi

for tool in tcia_utils==3.3.5 nbiatoolkit==1.3.1; do
  folder="$cache/${tool%%==*}"
  [[ -x "$folder/bin/python" ]] || "${PYTHON:-python3}" -m venv "$folder"
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$tool"
done
