# Shared by the scripts beside it: where things are, and installing what is missing. Sourced, not run.

repo_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache_dir=${XDG_CACHE_HOME:-$HOME/.cache}/kvanalyze
venv_dir=$cache_dir/venv

build_packages=(
  g++ cmake ninja-build ccache pkg-config git
  libopenblas-dev liblapacke-dev libdnnl-dev libhwy-dev libfaiss-dev
  libcli11-dev nlohmann-json3-dev libfmt-dev libpcre2-dev libutf8proc-dev libxxhash-dev libyaml-cpp-dev libzstd-dev
  libcurl4-openssl-dev
  gnuplot-nox fonts-dejavu-core python3 python3-venv
)
test_packages=(
  libgtest-dev libgmock-dev libbenchmark-dev clang libclang-rt-14-dev clang-format clang-tidy chromium
)

# The preset to build: with CUDA where nvcc is, else without.
if command -v nvcc >/dev/null; then preset=cuda; else preset=cpu; fi
program=$repo_dir/build/$preset/bin/kvanalyze

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# install_packages NAME...: installs the Debian packages that are missing; without root or sudo, says how.
install_packages() {
  command -v dpkg-query >/dev/null || die "this needs Debian or Ubuntu; elsewhere install the packages listed in scripts/common.sh and run cmake --preset cpu"
  local missing=() package
  for package in "$@"; do
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  local as_root=()
  if [[ $(id -u) != 0 ]]; then
    if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [[ -t 0 ]]; }; then
      as_root=(sudo)
    else
      die "packages are missing and there is neither root nor sudo here; ask an administrator to run:
  apt-get install -y --no-install-recommends ${missing[*]}"
    fi
  fi
  say "Installing ${#missing[@]} packages: ${missing[*]}"
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# make_venv: the Python helpers (model fetching, report checks) in the project's own cache.
make_venv() {
  local stamp=$venv_dir/.requirements
  if [[ ! -x $venv_dir/bin/python ]] || ! cmp -s "$repo_dir/scripts/requirements.txt" "$stamp"; then
    say "Preparing the Python helpers in $venv_dir"
    mkdir -p "$cache_dir"
    python3 -m venv "$venv_dir" || die "python3 -m venv failed; install the package python3-venv"
    "$venv_dir/bin/pip" install -q --disable-pip-version-check -r "$repo_dir/scripts/requirements.txt"
    cp "$repo_dir/scripts/requirements.txt" "$stamp"
  fi
  "$venv_dir/bin/python" "$repo_dir/scripts/fetch_plotly.py" >&2 ||
    say "Without Plotly the HTML reports hold pictures instead of interactive charts"
}

# build_preset PRESET [cmake options] -- [targets]: configures where needed and builds.
build_preset() {
  local preset=$1 options=()
  shift
  mkdir -p "$cache_dir"
  while (($#)) && [[ $1 != -- ]]; do options+=("$1"); shift; done
  (($#)) && shift
  say "Building (preset $preset)"
  (cd "$repo_dir" && cmake --preset "$preset" "${options[@]}" >"$cache_dir/configure-$preset.log" 2>&1) ||
    { tail -n 30 "$cache_dir/configure-$preset.log" >&2; die "configuring failed; the whole log is $cache_dir/configure-$preset.log"; }
  (cd "$repo_dir" && cmake --build --preset "$preset" ${1+--target "$@"}) >&2
}
