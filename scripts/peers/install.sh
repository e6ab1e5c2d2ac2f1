# Installs the peers of scripts/bench --peers; sourced, after scripts/common.sh.

# ggml_options: the instruction sets of this machine that llama.cpp is to use, one by one. Not "native": with FP16
# arithmetic its attention falls back to plain code at 64 numbers a head, and GCC 12 breaks its AMX kernels for int8;
# both would make a weaker peer.
ggml_options() {
  local flag option options="-DGGML_NATIVE=OFF -DGGML_AMX_TILE=OFF -DGGML_AMX_INT8=OFF -DGGML_AMX_BF16=OFF"
  [[ $(uname -m) == x86_64 ]] || { echo "-DGGML_NATIVE=ON"; return; }
  for flag in sse4_2:SSE42 avx:AVX avx2:AVX2 fma:FMA f16c:F16C bmi2:BMI2 avx_vnni:AVX_VNNI avx512bw:AVX512 \
    avx512vbmi:AVX512_VBMI avx512_vnni:AVX512_VNNI avx512_bf16:AVX512_BF16; do
    option=${flag#*:}
    if grep -qw "${flag%%:*}" /proc/cpuinfo; then options+=" -DGGML_$option=ON"; else options+=" -DGGML_$option=OFF"; fi
  done
  echo "$options"
}

# install_peers: the versions of requirements-peers.txt. One that cannot be had is left out of the table.
install_peers() {
  local requirements=$repo_dir/scripts/requirements-peers.txt stamp=$venv_dir/.requirements-peers
  local pip=("$venv_dir/bin/pip" install -q --disable-pip-version-check) build llama
  build="-DLLAVA_BUILD=OFF -DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache $(ggml_options)"
  cmp -s <(cat "$requirements" <(echo "$build")) "$stamp" && return
  say "Installing the peers in $venv_dir"
  "${pip[@]}" -r <(grep -v '^llama-cpp-python' "$requirements") || say "Some peers could not be installed"
  llama=$(grep '^llama-cpp-python' "$requirements")
  say "Building $llama: minutes"
  # pip's cache of what it built does not know the options. The compile cache does, and paths are not part of it.
  CMAKE_GENERATOR=Ninja CMAKE_ARGS=$build CCACHE_BASEDIR=${TMPDIR:-/tmp} CCACHE_NOHASHDIR=1 \
    "${pip[@]}" --no-deps --force-reinstall --no-cache-dir --no-binary llama-cpp-python "$llama" || {
    say "llama.cpp could not be built: its rows are left out"
    return
  }
  cat "$requirements" <(echo "$build") >"$stamp"
}

# make_peer_model FOLDER TYPE: the model as a GGUF; prints where.
make_peer_model() {
  local file
  file=$cache_dir/peers/$(basename "$1")-$2.gguf
  mkdir -p "$cache_dir/peers"
  [[ $file -nt $1/model.safetensors && $file -nt $repo_dir/scripts/make_gguf.py ]] ||
    "$venv_dir/bin/python" "$repo_dir/scripts/make_gguf.py" "$1" "$file" --type "$2" >&2 || return
  echo "$file"
}
