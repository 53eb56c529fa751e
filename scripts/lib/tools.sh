# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# Finds the tools that the project needs. Sourced.
#
# find_tools fills the arrays below, one entry per tool. tool_path is empty if the
# tool is missing or too old.
# shellcheck disable=SC2034

: "${root:?}" "${cache:?}" "${arch:?}" "${kernel_arch:?}"

declare -A tool_min tool_version tool_path
tools=()

# version_of COMMAND... - print the first version number in the command's output.
version_of()
{
	"$@" 2>/dev/null | grep -oE '[0-9]+(\.[0-9]+)+' | head -n 1
}

# add_tool NAME MINIMUM VERSION PATH - record one tool.
add_tool()
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

# find_program NAME MINIMUM [OPTION] - look NAME up in PATH. OPTION prints the version.
find_program()
{
	local path version=

	path=$(type -P "$1" || true)
	if [[ $path ]]; then
		version=$(version_of "$path" "${3:---version}" || true)
	fi
	add_tool "$1" "$2" "${version:-${path:+0}}" "$path"
}

# Find the newest LLVM that has clang, lld and the binary utilities in one version.
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
	add_tool clang 17.0.1 "$best" "$(type -P "clang$llvm_suffix" || true)"

	# bindgen loads libclang at run time.
	lib=$(compgen -G "/usr/lib/llvm-${best%%.*}/lib/libclang[.-][0-9s]*" | head -n 1 || true)
	add_tool libclang 17.0.1 "${lib:+$best}" "$lib"
	if [[ $lib ]]; then
		export LIBCLANG_PATH=${lib%/*}
	fi
}

# Find a compiler that comes with the matching library source, rustdoc, rustfmt and
# clippy. The first rustc in PATH often does not.
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
		# The path of Debian's library source contains its version.
		[[ $real =~ rustc-([0-9.]+)$ && ${BASH_REMATCH[1]} != "$version" ]] && continue
		for tool in rustdoc rustfmt clippy-driver; do
			[[ -x $dir/$tool ]] || continue 2
		done
		found_version=$version
		found_path=$candidate
		at_least "$version" 1.85.0 && break
	done
	add_tool rustc 1.85.0 "$found_version" "$found_path"
	add_tool rust-src 1.85.0 "$found_version" "${found_path:+$src}"
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
	add_tool bindgen 0.71.1 "$best" "$found"
}

# The private environment is valid only for the current requirements.txt.
find_virtme()
{
	local wanted=$root/scripts/build/requirements.txt version

	version=$(sed -n 's/^virtme-ng==//p' "$wanted")
	if cmp -s "$wanted" "$cache/venv/.requirements" &&
		"$cache/venv/bin/python" -c 'import virtme' 2>/dev/null; then
		add_tool virtme-ng "$version" "$version" "$cache/venv/bin/virtme-run"
	else
		add_tool virtme-ng "$version" '' ''
	fi
}

# find_header NAME FILE - look for a C header of the package NAME.
find_header()
{
	local path=/usr/include/$2

	[[ -e $path ]] || path=
	add_tool "$1" 0 "${path:+0}" "$path"
}

find_tools()
{
	local tool

	PATH=$PATH:/usr/sbin:/sbin
	find_llvm
	find_rust
	find_bindgen
	find_virtme
	[[ ! $qemu_program ]] || find_program "$qemu_program" 7.2
	find_program ccache 4.7
	find_program make 4.0
	find_program gcc 8.1
	find_program cargo 1.85
	for tool in file git flex bison bc patch quilt rsync perl xz zstd kmod modprobe shellcheck mmdebstrap cpio; do
		find_program "$tool" 0
	done
	find_program udevadm 0
	find_program ip 0 -V
	find_program capsh 0 --help
	for tool in mke2fs mkfs.btrfs mkfs.erofs mkfs.f2fs mkfs.vfat mkfs.xfs mksquashfs xorrisofs; do
		find_program "$tool" 0 -V
	done
	find_program fuse2fs 0
	find_program rpcbind 0 -v
	find_program rpc.mountd 0 -v
	find_program perf 0
	find_header libc6-dev stdio.h
	find_header libelf-dev gelf.h
	find_header libssl-dev openssl/opensslv.h
}

# Add the tools that only `make deb` needs.
find_deb_tools()
{
	local tool

	find_program pahole 1.24
	for tool in dh dpkg-buildpackage openssl python3; do
		find_program "$tool" 0
	done
	find_header libdw-dev dwarf.h
}

# Print the tools that are missing or too old.
missing_tools()
{
	local tool

	for tool in "${tools[@]}"; do
		[[ ${tool_path[$tool]} ]] || echo "$tool"
	done
}

# Print the arguments for the kernel's make, one per line. HOSTCC bypasses ccache
# because rustc uses it as the linker, which must be a single word.
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
	[[ $arch == x86_64 ]] || echo "ARCH=$kernel_arch"
}
