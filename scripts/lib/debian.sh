# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# Finds Debian packages and suites, without changing the machine's apt configuration.
# Sourced, after lib.sh.
# shellcheck disable=SC2034

: "${logs:?}"

# private_apt FOLDER - set private_apt to options for apt that use FOLDER/sources.list and
# keep apt's files in FOLDER.
private_apt()
{
	mkdir -p "$1/lists/partial" "$1/cache/archives/partial" "$logs"
	private_apt=(
		-o "Dir::Etc::sourcelist=$1/sources.list" -o Dir::Etc::sourceparts=-
		-o "Dir::State::Lists=$1/lists" -o "Dir::Cache=$1/cache"
		-o Acquire::Languages=none -o APT::Sandbox::User=root
	)
}

# print_mirrors - print the Debian mirrors in the machine's own apt sources.
print_mirrors()
{
	# shellcheck disable=SC2016
	apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' |
		sed -n 's/^Debian //p' | awk '!seen[$0]++'
}

# debian_mirrors - set uris to these mirrors. On failure, exits with $otherwise (if set) as
# advice.
debian_mirrors()
{
	mapfile -t uris < <(print_mirrors)
	if ((!${#uris[@]})); then
		hint="Is the network up, and are apt's sources right?" \
			step apt-update 'apt: package lists' apt-get -qq update
		mapfile -t uris < <(print_mirrors)
	fi
	((${#uris[@]})) || die "apt's sources list no Debian mirror: add one${otherwise:+, or $otherwise}"
}

# source_line URI SUITE - print a line of sources.list.
source_line()
{
	printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$@"
}

# find_package FOLDER PACKAGE VERSION SUITE... - look for a package in these suites, on
# the mirrors of the machine. Takes VERSION if one of them has it, else the newest.
# Sets found to the version, and private_apt to options for apt that select its suite and
# mirror; apt's files are in FOLDER. On failure, exits with $otherwise (if set) as advice.
find_package()
{
	local folder=$1 package=$2 version=$3 uris uri suite candidate line

	private_apt "$folder"
	debian_mirrors
	found=
	for suite in "${@:4}"; do
		for uri in "${uris[@]}"; do
			source_line "$uri" "$suite" >"$folder/sources.list"
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

# find_suite FOLDER SUITE - look for a mirror that has the suite: a security archive, for
# example, does not. Sets source to its line of sources.list, and mmdebstrap to the command
# and the options of every use. apt's files are in FOLDER.
find_suite()
{
	local folder=$1 suite=$2 uris uri protocol name proxy

	private_apt "$folder"
	debian_mirrors
	source=
	for uri in "${uris[@]}"; do
		source_line "$uri" "$suite" >"$folder/sources.list"
		if apt-get "${private_apt[@]}" -o APT::Update::Error-Mode=any \
			-qq update >"$logs/suite-$suite.log" 2>&1; then
			source=$(<"$folder/sources.list")
			break
		fi
	done
	[[ $source ]] ||
		die "no mirror has Debian $suite. Is the network up? See $logs/suite-$suite.log"

	# mmdebstrap ignores the machine's apt configuration. Pass on the proxies.
	mmdebstrap=(mmdebstrap --mode=root --aptopt='APT::Install-Recommends "false"')
	for protocol in http https; do
		name=Acquire::$protocol::Proxy
		proxy=
		eval "$(apt-config shell proxy "$name")"
		if [[ $proxy ]]; then
			mmdebstrap+=(--aptopt="$name \"$proxy\"")
		fi
	done
}
