# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# The version of Linux: KERNEL, else that of KSRC, else the default. Sourced by lib.sh.
#
# A version has a pin, scripts/build/linux-source-VERSION.pin, and options of other names in
# configs/VERSION.config. Patches of the series that do not apply to it are replaced by
# those of the same name in patches/VERSION/. Nothing else differs between versions.
# shellcheck disable=SC2034

: "${root:?}" "${build:?}"

default_kernel=7.3
mapfile -t kernels < <(printf '%s\n' "$root"/scripts/build/linux-source-*.pin |
	sed -E 's/.*-([0-9.]+)\.pin$/\1/' | sort -V)

# has_pin VERSION
has_pin()
{
	printf '%s\n' "${kernels[@]}" | grep -qxF -- "$1"
}

# version_of_source FOLDER - print the version of a source tree, for example 7.3.4.
version_of_source()
{
	sed -nE 's/^(VERSION|PATCHLEVEL|SUBLEVEL) = //p' "$1/Makefile" | paste -sd.
}

kernel=${KERNEL:-}
if [[ ! $kernel ]]; then
	kernel=$default_kernel
	if [[ ${KSRC:-} && -f $KSRC/Makefile ]]; then
		found=$(version_of_source "$KSRC")
		! has_pin "${found%.*}" || kernel=${found%.*}
	fi
fi
has_pin "$kernel" || die "there is no pin for KERNEL='$kernel': use one of ${kernels[*]}"

# The default version is built in build/, the others in build/VERSION/.
kernel_option=
if [[ $kernel != "$default_kernel" ]]; then
	build+=/$kernel
	kernel_option=" KERNEL=$kernel"
fi
