# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# Finds the tools that the project needs, and says how good they are. Sourced.
#
# For every tool there is a row in the arrays below. A tool that is missing or
# too old has an empty tool_path.
# shellcheck disable=SC2034

: "${root:?}" "${cache:?}"

declare -A tool_min tool_version tool_path
tools=()

# The first thing that looks like a version in a program's --version output.
version_of()
{
	"$@" 2>/dev/null | grep -oE '[0-9]+(\.[0-9]+)+' | head -n 1
}

# row NAME MINIMUM VERSION PATH - records a tool.
row()
{
	tools+=("$1")
	tool_min[$1]=$2
	tool_version[$1]=$3
	if [[ $4 ]] && at_least "$3" "$2"; then
		tool_path[$1]=$4
	else
		tool_path[$1]=
	fi
}

# simple NAME MINIMUM [OPTION] - a tool that is found by its name.
simple()
{
	local path version=

	path=$(type -P "$1" || true)
	if [[ $path ]]; then
		version=$(version_of "$path" "${3:---version}" || true)
	fi
	row "$1" "$2" "${version:-${path:+0}}" "$path"
}

# The newest complete LLVM: clang, lld and the binary utilities of one version.
find_llvm()
{
	local suffix path version best='' lib

	llvm_suffix=
	for path in $(compgen -c clang | grep -xE 'clang(-[0-9]+)?' | sort -u); do
		suffix=${path#clang}
		version=$(version_of "$path" --version || true)
		for tool in ld.lld llvm-ar llvm-nm llvm-objcopy llvm-objdump llvm-readelf llvm-strip; do
			type -P "$tool$suffix" >/dev/null || continue 2
		done
		if at_least "$version" "${best:-0}"; then
			best=$version
			llvm_suffix=$suffix
		fi
	done
	row clang 17.0.1 "$best" "$(type -P "clang$llvm_suffix" || true)"

	# bindgen loads this library when it runs.
	lib=$(compgen -G "/usr/lib/llvm-${best%%.*}/lib/libclang[.-][0-9s]*" | head -n 1 || true)
	row libclang 17.0.1 "${lib:+$best}" "$lib"
	if [[ $lib ]]; then
		export LIBCLANG_PATH=${lib%/*}
	fi
}

# A compiler with the source of its own library, and the tools beside it.
find_rust()
{
	local candidate dir version src real tool
	local found_version='' found_path=''

	for candidate in $(type -ap rustc) /usr/bin/rustc; do
		[[ -x $candidate ]] || continue
		dir=${candidate%/*}
		version=$(version_of "$candidate" --version || true)
		src=$("$candidate" --print sysroot 2>/dev/null || true)/lib/rustlib/src/rust
		real=$(readlink -f "$src" || true)
		[[ -e $src/library/core/src/lib.rs ]] || continue
		# Debian's library source has its version in its path.
		[[ $real =~ rustc-([0-9.]+)$ && ${BASH_REMATCH[1]} != "$version" ]] && continue
		for tool in rustdoc rustfmt clippy-driver; do
			[[ -x $dir/$tool ]] || continue 2
		done
		found_version=$version
		found_path=$candidate
		at_least "$version" 1.85.0 && break
	done
	row rustc 1.85.0 "$found_version" "$found_path"
	row rust-src 1.85.0 "$found_version" "${found_path:+$src}"
	rust_bin=${found_path%/*}
}

find_bindgen()
{
	local path version best='' found=''

	for path in $(type -ap bindgen) "$cache/tools/bin/bindgen"; do
		[[ -x $path ]] || continue
		version=$(version_of "$path" --version || true)
		if at_least "$version" "${best:-0}"; then
			best=$version
			found=$path
		fi
	done
	row bindgen 0.71.1 "$best" "$found"
}

# What pip installed counts only if it was all that is asked for today.
find_virtme()
{
	local wanted=$root/scripts/requirements.txt version

	version=$(sed -n 's/^virtme-ng==//p' "$wanted")
	if cmp -s "$wanted" "$cache/venv/.requirements" &&
		"$cache/venv/bin/python" -c 'import virtme' 2>/dev/null; then
		row virtme-ng "$version" "$version" "$cache/venv/bin/virtme-run"
	else
		row virtme-ng "$version" '' ''
	fi
}

find_header()
{
	local path=/usr/include/$2

	[[ -e $path ]] || path=
	row "$1" 0 "${path:+0}" "$path"
}

find_tools()
{
	local tool

	PATH=$PATH:/usr/sbin:/sbin
	find_llvm
	find_rust
	find_bindgen
	find_virtme
	simple qemu-system-x86_64 7.2
	simple ccache 4.7
	simple make 4.0
	simple gcc 8.1
	simple cargo 1.85
	for tool in file git flex bison bc patch quilt rsync perl xz zstd kmod modprobe shellcheck mmdebstrap cpio; do
		simple "$tool" 0
	done
	simple udevadm 0
	simple ip 0 -V
	simple capsh 0 --help
	simple mkfs.xfs 0 -V
	simple perf 0
	find_header libc6-dev stdio.h
	find_header libelf-dev gelf.h
	find_header libssl-dev openssl/opensslv.h
}

missing_tools()
{
	local tool

	for tool in "${tools[@]}"; do
		[[ ${tool_path[$tool]} ]] || echo "$tool"
	done
}

# Arguments for the kernel's make. The host's C compiler is not behind ccache:
# it is handed to rustc as a linker, which takes one word.
kernel_make_arguments()
{
	printf '%s\n' \
		LLVM="${llvm_suffix:-1}" \
		CC="ccache clang$llvm_suffix" \
		HOSTCC="clang$llvm_suffix" \
		HOSTRUSTC="$rust_bin/rustc" \
		RUSTC="$rust_bin/rustc" \
		RUSTDOC="$rust_bin/rustdoc" \
		RUSTFMT="$rust_bin/rustfmt" \
		CLIPPY_DRIVER="$rust_bin/clippy-driver" \
		BINDGEN="${tool_path[bindgen]}"
}
