# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# Finds Debian packages in any suite, without changing the machine's apt configuration.
# Sourced, after lib.sh.
# shellcheck disable=SC2034

: "${logs:?}"

# find_package FOLDER PACKAGE VERSION SUITE... - look for a package in these suites, on
# the mirrors of the machine. Takes VERSION if one of them has it, else the newest.
# Sets found to the version, and private_apt to options for apt that select its suite and
# mirror; apt's files are in FOLDER. On failure, exits with $otherwise (if set) as advice.
find_package()
{
	local folder=$1 package=$2 version=$3 uris uri suite candidate line

	mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial" "$logs"
	private_apt=(
		-o "Dir::Etc::sourcelist=$folder/sources.list" -o Dir::Etc::sourceparts=-
		-o "Dir::State::Lists=$folder/lists" -o "Dir::Cache=$folder/cache"
		-o Acquire::Languages=none -o APT::Sandbox::User=root
	)

	mapfile -t uris < <(debian_mirrors)
	if ((!${#uris[@]})); then
		hint="Is the network up, and are apt's sources right?" \
			step apt-update 'apt: package lists' apt-get -qq update
		mapfile -t uris < <(debian_mirrors)
	fi
	((${#uris[@]})) || die "apt's sources list no Debian mirror: add one${otherwise:+, or $otherwise}"

	found=
	for suite in "${@:4}"; do
		for uri in "${uris[@]}"; do
			printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' \
				"$uri" "$suite" >"$folder/sources.list"
			apt-get "${private_apt[@]}" -qq update >"$logs/package-lists.log" 2>&1 || continue
			for candidate in $(apt-cache "${private_apt[@]}" madison "$package" | awk '{ print $3 }'); do
				if [[ $candidate == "$version" ]] || dpkg --compare-versions "$candidate" gt "$found"; then
					found=$candidate
					line=$(<"$folder/sources.list")
				fi
				[[ $candidate == "$version" ]] && return
			done
		done
	done
	[[ $found ]] ||
		die "no mirror has $package. Is the network up? See $logs/package-lists.log${otherwise:+, or $otherwise}"

	echo "$line" >"$folder/sources.list"
	apt-get "${private_apt[@]}" -qq update >"$logs/package-lists.log" 2>&1 ||
		die "cannot re-read the mirror's package list. Is the network up? See $logs/package-lists.log"
}
