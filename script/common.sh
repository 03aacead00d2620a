# Shared by the scripts: what a machine must have, and how to get it. Sourced, not run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# The scripts call what they have built by its path.
export CARGO_TARGET_DIR=$PWD/target

say() { printf '%s\n' "$*" >&2; }
fail() { say "error: $1"; [ $# -lt 2 ] || say "hint: $2"; exit 7; }

# Debian packages that are missing, by what shows that they are there.
missing_packages() {
  command -v cc >/dev/null || echo build-essential
  command -v bwrap >/dev/null || echo bubblewrap
  command -v setpriv >/dev/null || echo util-linux
  new_enough_python || echo python3
  [ -n "$(find_python)" ] || echo python3-venv
}

# Chromium without windows, which is the cheapest to look with.
headless_shell=/usr/lib/chromium/chromium-headless-shell

# Where the critic looks for it; Ubuntu's own package is a snap, which no sandbox can start.
has_chromium() {
  local program
  for program in "$headless_shell" /usr/lib/chromium/chromium /usr/lib64/chromium-browser/chromium-browser \
    /usr/lib/chromium-browser/chromium-browser /opt/google/chrome/chrome /opt/chromium.org/chromium/chromium \
    /opt/microsoft/msedge/msedge; do
    [ -x "$program" ] && return
  done
  return 1
}

new_enough_python() {
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11; do
    "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && return 0
  done
  return 1
}

# The first Python that is new enough and can make environments.
find_python() {
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11; do
    if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
}

can_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

install() {
  say "installing with apt-get: $*"
  apt-get update -qq >&2 || say "warning: apt-get update failed; trying with the lists that are there"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# Of Debian's family, Debian alone packages a Chromium that is no snap.
packages_chromium() { grep -qsx 'ID=debian' /etc/os-release; }

chromium_hint() {
  if packages_chromium; then
    echo "sudo apt-get update && sudo apt-get install -y chromium-headless-shell"
  else
    echo "the distribution's Chromium may be a snap, which no sandbox can start; Google Chrome's package will do:" \
      "curl -LO https://dl.google.com/linux/direct/google-chrome-stable_current_amd64.deb &&" \
      "sudo apt-get install -y ./google-chrome-stable_current_amd64.deb"
  fi
}

install_missing() {
  local packages browser=""
  packages=$(missing_packages | sort -u | tr '\n' ' ')
  if [ ! -x "$headless_shell" ] && packages_chromium; then browser=chromium-headless-shell; fi
  if [ -n "${packages// /}" ]; then
    say "missing: $packages$browser"
    if can_install; then
      # shellcheck disable=SC2086
      install $packages
    else
      say "run this, then run the script again:"
      say "    sudo apt-get update && sudo apt-get install -y $packages$browser"
      exit 7
    fi
  fi
  # Without a browser everything works, but nobody looks at the apps.
  if [ -n "$browser" ] && can_install; then install "$browser" || has_chromium || install chromium || true; fi
  if ! has_chromium; then
    say "warning: no Chromium: apps are run and used, but nobody looks at them"
    say "hint: $(chromium_hint)"
  fi
  [ -n "$(find_python)" ] ||
    fail "Python 3.11 or newer with the venv module is needed" \
      "use Debian 12, Ubuntu 24.04 or newer, or install python3.11 and python3.11-venv"
  need_cargo
}

need_cargo() {
  local have
  if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
    PATH="$HOME/.cargo/bin:$PATH"
  fi
  command -v cargo >/dev/null ||
    fail "cargo is needed, version 1.95 or newer" "install Rust with rustup, then open a new shell"
  have=$(cargo --version | cut -d' ' -f2)
  [ "$(printf '%s\n' 1.95.0 "$have" | sort -V | head -n1)" = 1.95.0 ] ||
    fail "cargo $have is too old: 1.95 or newer is needed" "run: rustup update stable"
}

# The tests look at apps, and the code's form is a test too.
need_for_tests() {
  has_chromium || fail "the tests need Chromium" "$(chromium_hint)"
  cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 ||
    fail "cargo fmt and cargo clippy are needed" "run: rustup component add rustfmt clippy"
}
