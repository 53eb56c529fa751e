# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# Facts about architectures: nothing else has any. Sourced by lib.sh.
# shellcheck disable=SC2034

arches=(x86_64 arm64 arm riscv64 loongarch)

# host_arch - print the architecture of this machine.
host_arch()
{
	local machine

	machine=$(uname -m)
	case $machine in
	aarch64) echo arm64 ;;
	arm*) echo arm ;;
	loongarch64) echo loongarch ;;
	*) echo "$machine" ;;
	esac
}

# The kernel's make takes ARCH from the environment, with other names. Keep ours apart.
arch=${ARCH:-${MODULE_DEDUP_ARCH:-$(host_arch)}}
unset ARCH
export MODULE_DEDUP_ARCH=$arch

# kernel_arch     ARCH of the kernel's make
# kernel_image    image that QEMU boots, in the build folder
# qemu_program    QEMU's program, empty if it cannot boot the kernel
# qemu_package    Debian package that has it
# machine, cpu    its machine and CPU
# max_cpus        number of CPUs that the machine may have
# console_tty     name of the machine's first serial port
# target          target triple of the compiler
# debian_arch     name of the Debian architecture, and the suite of the userland
case $arch in
x86_64)
	kernel_arch=x86 kernel_image=arch/x86/boot/bzImage max_cpus=255
	qemu_program=qemu-system-x86_64 qemu_package=qemu-system-x86
	;;
arm64)
	kernel_arch=arm64 kernel_image=arch/arm64/boot/Image max_cpus=255 console_tty=ttyAMA0
	qemu_program=qemu-system-aarch64 qemu_package=qemu-system-arm
	# The architecture's algorithm of pointer authentication is slow to emulate.
	machine=virt,gic-version=3 cpu=max,pauth-impdef=on
	target=aarch64-linux-gnu debian_arch=arm64 debian_suite=bookworm
	;;
arm)
	# The machine's interrupt controller has room for eight CPUs.
	kernel_arch=arm kernel_image=arch/arm/boot/zImage max_cpus=8 console_tty=ttyAMA0
	qemu_program=qemu-system-arm qemu_package=qemu-system-arm machine=virt cpu=cortex-a15
	target=arm-linux-gnueabihf debian_arch=armhf debian_suite=bookworm
	;;
riscv64)
	kernel_arch=riscv kernel_image=arch/riscv/boot/Image max_cpus=255 console_tty=ttyS0
	qemu_program=qemu-system-riscv64 qemu_package=qemu-system-misc machine=virt cpu=rv64
	# Debian 12 has no riscv64.
	target=riscv64-linux-gnu debian_arch=riscv64 debian_suite=trixie
	;;
loongarch)
	# Only built: QEMU 7.2 cannot boot the kernel without firmware, which Debian lacks.
	kernel_arch=loongarch kernel_image=arch/loongarch/boot/vmlinux.elf qemu_program=
	;;
*)
	die "unknown ARCH '$arch', or one that the kernel has no Rust for: use one of ${arches[*]}"
	;;
esac

# The build folders of x86_64 have no suffix.
arch_suffix=
[[ $arch == x86_64 ]] || arch_suffix=-$arch
case ${PAGES:-} in
'' | 4K) ;;
64K)
	[[ $arch == arm64 ]] || die "PAGES=64K needs ARCH=arm64"
	arch_suffix+=-64k
	;;
*) die "unknown PAGES '$PAGES': use 4K, or 64K with ARCH=arm64" ;;
esac

# need_x86_64 WHAT - exit with the status of a skipped test on other architectures.
need_x86_64()
{
	[[ $arch != x86_64 ]] || return 0
	echo "skip: $1 runs on ARCH=x86_64 only, not on $arch"
	exit 4
}
