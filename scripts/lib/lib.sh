# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# Functions and variables shared by all scripts. Sourced, never run.
# shellcheck disable=SC2034

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
# series-check has a build folder of its own, and lays out the tree in it.
build=${MODULE_DEDUP_BUILD:-$root/build}
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/module-dedup
variants=(rust c off debug lean)

# Keep our make's variables and job server out of the kernel's make.
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES
export LC_ALL=C.UTF-8

# FULL=0 and QUICK=0 mean the same as unset.
for option in FULL QUICK; do
	[[ ${!option:-} != 0 ]] || unset "$option"
done

warn()
{
	printf 'warning: %s\n' "$*" >&2
}

die()
{
	printf 'error: %s\n' "$*" >&2
	exit 1
}

# shellcheck source=scripts/lib/version.sh
. "$root/scripts/lib/version.sh"
# shellcheck source=scripts/lib/arch.sh
. "$root/scripts/lib/arch.sh"
logs=$build/log
# The programs and modules of our selftests.
selftests=$build/selftests$arch_suffix

# no_arguments "$@" - for scripts that take no arguments.
no_arguments()
{
	((!$#)) || die "${0##*/} takes no arguments, but got '$*'"
}

# step LOG TEXT COMMAND... - run a slow command. Prints one line with TEXT and the
# time taken; the command's output goes to build/log/LOG.log. On failure, prints the
# end of that log and $hint (if set), and exits. $progress (if set) is a command that prints
# how far it is; its output is shown on a terminal.
#
# COMMAND must be a program: a shell function would run without errexit here.
step()
{
	local log=$logs/$1.log text=$2 start=$SECONDS status=0 line ticker=''
	shift 2

	mkdir -p "$logs"
	printf '%-58s' "$text" >&2
	if [[ ${progress:-} && -t 2 ]]; then
		while sleep 5 && kill -0 $$ 2>/dev/null; do
			printf '\r%-58s%s' "$text" "$("$progress")" >&2
		done &
		ticker=$!
	fi
	"$@" >"$log" 2>&1 </dev/null || status=$?
	if [[ $ticker ]]; then
		kill "$ticker"
		wait "$ticker" 2>/dev/null || true
		printf '\r%-70s\r%-58s' '' "$text" >&2
	fi
	if ((status)); then
		printf ' FAILED after %d s\n' $((SECONDS - start)) >&2
		while IFS= read -r line; do
			printf '  | %s\n' "$line"
		done < <(tail -n 25 "$log") >&2
		printf 'error: %s failed, see %s\n' "$text" "$log" >&2
		if [[ ${hint:-} ]]; then
			printf '%s\n' "$hint" >&2
		fi
		exit "$status"
	fi
	printf '%5d s\n' $((SECONDS - start)) >&2
}

# background COMMAND... - run it in the background; $! is its process ID. When this
# script exits, everything still running is killed. Each command gets its own process
# group, because Ctrl-C does not reach background processes.
background()
{
	set -m
	"$@" &
	set +m
	trap kill_background EXIT
	trap 'exit 130' INT TERM HUP
}

kill_background()
{
	local group

	jobs -pr | while read -r group; do
		kill -- "-$group" 2>/dev/null || :
	done
}

# at_least FOUND WANTED - compare version numbers.
at_least()
{
	[[ $1 && $(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1) == "$2" ]]
}

check_variant()
{
	local v

	for v in "${variants[@]}"; do
		[[ $1 == "$v" ]] && return
	done
	die "unknown VARIANT '$1': use one of ${variants[*]}"
}

# require_space DIR GIB - fail early instead of filling the disk.
require_space()
{
	local free

	mkdir -p "$1"
	free=$(($(df --output=avail -BM "$1" | tail -n 1 | tr -dc 0-9) / 1024))
	((free >= $2)) ||
		die "$1 has $free GiB free, but $2 GiB are needed: make room (XDG_CACHE_HOME moves the cache)"
}

# A caller that has built everything sets MODULE_DEDUP_BUILT. kernel, programs and tree
# then return at once, without taking the lock.

# lock_build - serialize changes to the cache and to build/. Held until this script
# exits; scripts called from here inherit it.
lock_build()
{
	[[ ${MODULE_DEDUP_LOCK:-} ]] && return
	mkdir -p "$build"
	exec 9>"$root/build/.lock"
	if ! flock -n 9; then
		echo "waiting for another build in $root/build" >&2
		flock 9
	fi
	export MODULE_DEDUP_LOCK=1
}

# tree_of VARIANT - print the source tree that a variant is built from.
tree_of()
{
	case $1 in
	c) echo "$build/pristine" ;;
	*) echo "$build/linux" ;;
	esac
}

# objects_of VARIANT - print the folder a variant is built in: build/VARIANT, with the
# architecture added unless it is x86_64, is a link to it. It lies inside the
# source tree, so that kbuild uses the same relative paths for every variant and
# ccache can share objects between them.
objects_of()
{
	echo "$(tree_of "$1")/build-$1$arch_suffix"
}

# config_name CONFIG - print the short name of a configuration of `make deb`.
config_name()
{
	local name=${1##*/}

	name=${name#config-}
	echo "${name%.config}"
}

# tsc_khz - print the frequency of the TSC that emulated guests see, in kHz, or
# nothing if it is not the host's.
tsc_khz()
{
	local program=$cache/tsc_khz

	[[ $(uname -m) == x86_64 ]] || return 0
	if [[ ! $program -nt $root/scripts/lib/tsc_khz.c ]]; then
		gcc -O2 -o "$program.$$" "$root/scripts/lib/tsc_khz.c"
		mv "$program.$$" "$program"
	fi
	"$program"
}

# kmod_tests FILE - print the test numbers of the kernel's kmod.sh.
kmod_tests()
{
	sed -nE 's/^ALL_TESTS=".*\b([0-9]{4}):[0-9]+:[01]"$/\1/p' "$1"
}
