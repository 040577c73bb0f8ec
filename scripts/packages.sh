# shellcheck shell=bash
# Sourced by try.sh and test.sh: which Debian packages the project needs, and installing those that
# are missing.  Knows Debian 12 and Ubuntu 24.04; on anything else it says what it would have done.

# Prints the packages for KIND: `build` (compile and run) or `check` (also format, lint and fuzz).
ds4_packages() {
  local kind=$1 id version boost=libboost-dev runtime=libclang-rt-18-dev
  id=$(. /etc/os-release && echo "${ID:-}")
  version=$(. /etc/os-release && echo "${VERSION_ID:-}")
  if [ "$id" = debian ] && [ "$version" = 12 ]; then
    boost=libboost1.81-dev
    runtime=libclang-rt-14-dev
  fi
  echo build-essential cmake ninja-build ccache pkg-config git ca-certificates \
    libfmt-dev libspdlog-dev nlohmann-json3-dev libcli11-dev libpcre2-dev libxxhash-dev \
    libssl-dev libsqlite3-dev libedit-dev libncurses-dev zlib1g-dev "$boost" \
    prometheus-cpp-dev libmd4c-dev libgtest-dev libgmock-dev libbenchmark-dev python3
  if [ "$kind" = check ]; then
    # The tree is formatted by clang-format 14, which both systems have under this name.
    echo clang clang-tidy clang-format-14 lld "$runtime"
  fi
}

ds4_missing_packages() {
  local package
  for package in $(ds4_packages "$1"); do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || echo "$package"
  done
}

# Installs what KIND needs and is not there.  Says what it does; does nothing when nothing is missing.
ds4_install_packages() {
  local kind=$1 missing as_root=
  if ! command -v dpkg-query >/dev/null; then
    echo "This is no Debian or Ubuntu; install the equivalents of: $(ds4_packages "$kind" | tr '\n' ' ')"
    return 0
  fi
  missing=$(ds4_missing_packages "$kind" | tr '\n' ' ')
  if [ -z "${missing// /}" ]; then
    return 0
  fi
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
      echo "Missing packages: $missing" >&2
      echo "Run this script as root once, or install them yourself." >&2
      return 1
    fi
    as_root=sudo
  fi
  echo "Installing missing packages: $missing"
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
  # shellcheck disable=SC2086  # a list of words
  $as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

# How many compilers to run at once: one a core, but no more than memory carries.
ds4_build_jobs() {
  local cores memory_jobs
  cores=$(nproc)
  memory_jobs=$(awk '/MemAvailable/ { print int($2 / 1500000) }' /proc/meminfo)
  [ "$memory_jobs" -ge 1 ] || memory_jobs=1
  [ "$cores" -lt "$memory_jobs" ] && echo "$cores" || echo "$memory_jobs"
}
