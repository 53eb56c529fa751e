# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# What the scripts share. Sourced, never run.
# shellcheck disable=SC2034

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
build=$root/build
logs=$build/log
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/module-dedup
variants=(rust c off debug lean)

# The kernel's make must not inherit the variables and the job server of ours.
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES
export LC_ALL=C.UTF-8

# What is set to 0 is not set.
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

# For a script that takes no arguments: no_arguments "$@"
no_arguments()
{
	((!$#)) || die "${0##*/} takes no arguments, and got '$*'"
}

# step LOG TEXT COMMAND... - runs a command that takes long: one line says what
# runs and how long it took, the output goes to build/log/LOG.log. A failure
# shows the end of that log and ends the script; $hint, if set, says what to do.
# COMMAND is a program: a shell function would run without errexit here.
step()
{
	local log=$logs/$1.log text=$2 start=$SECONDS status=0 line
	shift 2

	mkdir -p "$logs"
	printf '%-58s' "$text" >&2
	"$@" >"$log" 2>&1 </dev/null || status=$?
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

# beside COMMAND... - starts it in the background; its number is $!. What still runs of
# it ends with this script: it is a process group, because an interrupt at the terminal
# does not reach what is in the background.
beside()
{
	set -m
	"$@" &
	set +m
	trap end_beside EXIT
	trap 'exit 130' INT TERM HUP
}

end_beside()
{
	local group

	jobs -pr | while read -r group; do
		kill -- "-$group" 2>/dev/null || :
	done
}

# at_least FOUND WANTED - compares version numbers.
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

# need_space DIR GIB - refuses to start what would fill the disk.
need_space()
{
	local free

	mkdir -p "$1"
	free=$(($(df --output=avail -BM "$1" | tail -n 1 | tr -dc 0-9) / 1024))
	((free >= $2)) ||
		die "$1 has $free GiB free and $2 GiB are needed: make room (XDG_CACHE_HOME moves the cache)"
}

# MODULE_DEDUP_BUILT says that a script that called this one has built everything: kernel,
# programs and tree have nothing to do then, and need not wait for each other.

# Lets one script at a time change what is cached and built. Scripts that this
# one calls are under its lock.
exclusive()
{
	[[ ${MODULE_DEDUP_LOCK:-} ]] && return
	mkdir -p "$build"
	exec 9>"$build/.lock"
	if ! flock -n 9; then
		echo "waiting for another build in $build" >&2
		flock 9
	fi
	export MODULE_DEDUP_LOCK=1
}

# The source tree that a variant is built from, and the folder it is built in.
# The second lies in the first, because kbuild then names every source by the
# same relative path and ccache finds one variant's objects for the other.
tree_of()
{
	case $1 in
	c) echo "$build/pristine" ;;
	*) echo "$build/linux" ;;
	esac
}

objects_of()
{
	echo "$(tree_of "$1")/build-$1"
}

# Prints the kHz of the counter that emulated guests take their time from, or
# nothing where that is not known to be this machine's.
tsc_khz()
{
	local program=$cache/tsc_khz

	[[ $(uname -m) == x86_64 ]] || return 0
	if [[ ! $program -nt $root/scripts/tsc_khz.c ]]; then
		gcc -O2 -o "$program.$$" "$root/scripts/tsc_khz.c"
		mv "$program.$$" "$program"
	fi
	"$program"
}

# The numbers of the tests in the kernel's kmod.sh.
kmod_tests()
{
	sed -nE 's/^ALL_TESTS=".*\b([0-9]{4}):[0-9]+:[01]"$/\1/p' "$1"
}

# Debian's mirrors, as the machine's own apt sources name them.
mirrors()
{
	# shellcheck disable=SC2016
	apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' |
		sed -n 's/^Debian //p' | awk '!seen[$0]++'
}
